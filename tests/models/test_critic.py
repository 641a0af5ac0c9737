"""The critic: its closed-form slope and penalty against autograd, and against values by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import rng
from torch import Tensor

from zsl_lib.models.critic import Critic, penalty
from zsl_lib.models.generator import Generator


def random_critic(semantic_dim: int = 3, classes: int = 0) -> Critic:
    """In float64, with weights so large that the network bends."""
    critic = Critic(5, semantic_dim, 16, classes, generator=rng()).double()
    for i, p in enumerate(critic.parameters()):
        p.data = 0.5 * torch.randn(p.shape, generator=rng(i), dtype=torch.float64)
    return critic


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and synthetic features, semantics and α."""
    real, fake = (torch.rand(7, 5, generator=rng(i), dtype=torch.float64) for i in (1, 2))
    c, mix = (torch.rand(7, n, generator=rng(n), dtype=torch.float64) for n in (3, 1))
    return real, fake, c, mix


def by_autograd(critic: Critic, real: Tensor, fake: Tensor, c: Tensor, mix: Tensor) -> Tensor:
    """The penalty as one writes it first: x̂ through the critic, and its gradient with a graph."""
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between, c).sum(), between, create_graph=True)
    return (slope.norm(dim=1) - 1).square()


@pytest.mark.parametrize("semantic_dim", [3, 0])
def test_the_penalty_and_its_gradient_are_those_of_autograd_twice(inputs, semantic_dim):
    critic, (real, fake, c, mix) = random_critic(semantic_dim), inputs
    from_c = critic.condition(c)
    short = penalty(critic, critic.activate(real, from_c), critic.activate(fake, from_c), mix)
    long = by_autograd(critic, real, fake, c, mix)
    torch.testing.assert_close(short, long, rtol=1e-10, atol=1e-10)
    assert (critic.activate(real, from_c) > 0).any()
    assert (critic.activate(real, from_c) < 0).any()
    parameters = list(critic.parameters())
    ours = torch.autograd.grad(short.mean(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(long.mean(), parameters, allow_unused=True)
    for p, a, b in zip(parameters, ours, theirs, strict=True):
        zero = torch.zeros_like(p)
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b, rtol=1e-10, atol=1e-10)


def test_the_penalty_of_a_linear_critic_by_hand():
    """With every a far above 0 the critic is x ↦ w₂ᵀ W x + …, its slope w₂ᵀ W wherever x is."""
    critic = Critic(2, 0, 3, generator=rng()).double()
    critic.inner.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).double()
    critic.inner.bias.data.fill_(100.0)
    critic.outer.weight.data = torch.tensor([[1.0, 1.0, 2.0]]).double()
    x = torch.rand(4, 2, generator=rng(), dtype=torch.float64)  # slope (3, 4): its norm is 5
    a = critic.activate(x, critic.condition(x))
    torch.testing.assert_close(penalty(critic, a, a, x[:, :1]), torch.full((4,), 16.0).double())
    critic.inner.bias.data.fill_(-100.0)  # the other side of the LeakyReLU: 0.2 (3, 4)
    a = critic.activate(x, critic.condition(x))
    torch.testing.assert_close(penalty(critic, a, a, x[:, :1]), torch.zeros(4).double(), atol=1e-12, rtol=0)


def test_forward_is_the_formula(inputs):
    critic, (x, _, c, _) = random_critic(classes=4), inputs
    a = x @ critic.inner.weight.T + c @ critic.semantic.T + critic.inner.bias
    h = torch.where(a > 0, a, 0.2 * a)
    torch.testing.assert_close(critic(x, c), h @ critic.outer.weight[0] + critic.outer.bias)
    labels = critic.auxiliary
    assert labels is not None
    torch.testing.assert_close(critic.classify(a), h @ labels.weight.T + labels.bias)


def test_the_start_is_the_generators_and_comes_from_the_source_of_randomness():
    before = torch.get_rng_state()
    critic, again = (Critic(200, 100, 300, generator=rng()) for _ in range(2))
    assert torch.equal(critic.inner.weight, again.inner.weight)
    assert torch.equal(critic.semantic, again.semantic)
    for weight in (critic.inner.weight, critic.semantic):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not critic.inner.bias.any()
    assert not critic.outer.bias.any()
    assert torch.equal(torch.get_rng_state(), before)


def test_f_clswgan_has_the_printed_number_of_parameters():
    """20.62 M in Table 3: a generator with z as long as c, and the critic, at CUB's sizes."""
    networks = Generator(312, 312, 2048, 4096), Critic(2048, 312, 4096)
    count = sum(p.numel() for net in networks for p in net.parameters())
    assert count == 20_625_409
    assert math.floor(count / 1e4) / 100 == 20.62
