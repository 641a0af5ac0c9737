"""The chain by hand is the chain by autograd: to rounding step by step, and in law."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from scipy.stats import ks_2samp
from torch import Tensor, nn

from zsl_lib.learn import ABP, ABPConfig, engine
from zsl_lib.models import Generator, log_joint

CONFIG = ABPConfig(latent_dim=3, hidden=32, sigma=0.3, langevin_steps=4, step_size=0.1)


def bent(net: Generator, seed: int = 1) -> Generator:
    """Weights so large that every ReLU has examples on both of its sides."""
    for p in net.parameters():
        p.data = (0.5 * torch.randn(p.shape, generator=rng(seed), dtype=torch.float64)).to(p.dtype)
    return net


def model_of(config: ABPConfig = CONFIG, dtype: torch.dtype = torch.float64) -> ABP:
    model = ABP(config, seed=0, device="cpu").fit(small_dataset(), epochs=0, progress=False)
    model.net = bent(model.net.to(dtype))
    return model


def batch(n: int = 40, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = rng(2)
    z, x, c = (torch.randn(n, k, generator=g, dtype=dtype) for k in (3, 6, 4))
    return z, x, c, torch.rand(n, 6, generator=g) < 0.6


@pytest.mark.parametrize("masked", [False, True])
def test_the_slope_is_autograds_in_float64(masked):
    model, (z, x, c, mask) = model_of(), batch()
    mask = mask if masked else None
    z.requires_grad_()
    log_p = log_joint(x, model.net(c, z), z, CONFIG.sigma, mask)
    (expected,) = torch.autograd.grad(log_p.sum(), z)
    found, gradient = engine.slope(
        engine.Visit.of(model.net, x, c, mask, "float32"), z.detach(), CONFIG.sigma
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, log_p.detach(), rtol=1e-12, atol=0)


def test_both_sides_of_every_relu_are_met():
    """Else the comparison above would say little."""
    model, (z, _, c, _) = model_of(), batch()
    hidden = model.net.condition(c) + z @ model.net.inner.weight[:, 4:].T
    for value in (hidden, model.net.outer(nn.functional.leaky_relu(hidden, 0.2))):
        assert (value > 0).any(0).all()
        assert (value < 0).any(0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_chain_and_its_trace_are_autograds_in_float64(masked):
    model, (z, x, c, mask) = model_of(), batch()
    mask = mask if masked else None
    by_hand = model.infer(z, x, c, mask, rng(3))
    by_autograd = model.infer_by_autograd(z, x, c, mask, rng(3))
    for one, other in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_another_network_goes_through_autograd(monkeypatch):
    class Derived(Generator):
        """Its output is not the paper's, so the chain by hand would be wrong."""

        def decode(self, from_c: Tensor, z: Tensor) -> Tensor:
            return super().decode(from_c, z).tanh()

    model, (z, x, c, _) = model_of(), batch()
    own = Derived(4, 3, 6, hidden=32).double()
    own.load_state_dict(model.net.state_dict())
    model.net = own
    monkeypatch.setattr(engine, "chain", None)
    torch.testing.assert_close(
        model.infer(z, x, c, None, rng(3)), model.infer_by_autograd(z, x, c, None, rng(3))
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_long_chains_have_the_law_of_autograds_in_float64(precision):
    """400 chains of one example each way, other noise: Kolmogorov and Smirnov see no difference."""
    config = replace(CONFIG, langevin_steps=300, precision=precision)
    fast, slow = model_of(config, torch.float32), model_of(replace(config, precision="float32"))
    _, x, c, _ = batch(1)
    start = torch.randn(400, 3, generator=rng(4), dtype=torch.float64)
    x, c = x.expand(400, -1), c.expand(400, -1)
    found, _ = fast.infer(start.float(), x.float(), c.float(), None, rng(5))
    expected, _ = slow.infer_by_autograd(start, x, c, None, rng(6))
    for i in range(3):
        assert ks_2samp(found[:, i].numpy(), expected[:, i].numpy()).pvalue > 1e-3


def test_networks_stacked_give_each_ones_chain():
    models = [model_of(), model_of()]
    bent(models[1].net, seed=7)
    z, x, c, mask = batch()
    alone = [m.infer(z, x, c, mask, rng(3)) for m in models]
    visits = [engine.Visit.of(m.net, x, c, mask, "float32") for m in models]
    stacked = engine.Visit(*(torch.stack(parts) for parts in zip(*visits, strict=True)))
    g = rng(3)
    both = engine.chain(
        stacked,
        torch.stack([z, z]),
        lambda: torch.randn(z.shape, generator=g, dtype=z.dtype).expand(2, -1, -1),
        sigma=CONFIG.sigma,
        steps=CONFIG.langevin_steps,
        step_size=CONFIG.step_size,
    )
    torch.testing.assert_close(both[0], torch.stack([z for z, _ in alone]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(both[1], torch.stack([t for _, t in alone], dim=1), rtol=1e-10, atol=1e-10)


def test_a_diverging_chain_is_an_arithmetic_error():
    model, (z, x, c, _) = model_of(replace(CONFIG, sigma=1e-3, step_size=1.0, langevin_steps=500)), batch()
    with pytest.raises(ArithmeticError, match=r"step_size 1\.0 is too large"):
        model.infer(z, x, c)
