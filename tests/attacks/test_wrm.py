"""WRM against its closed forms."""

from __future__ import annotations

import pytest
import torch
from helpers import rng
from problems import Linear, lengths
from torch import Tensor

from zsl_lib.attacks import wrm
from zsl_lib.attacks.common import gradient, loss_values


def test_a_linear_loss_moves_by_the_slope_over_twice_gamma(linear):
    scores, x, y = linear
    slope, _ = gradient(scores, x, y, "margin")
    gamma = 0.004
    x_adv = wrm(scores, x, y, gamma=gamma, loss="margin", steps=60)
    same = gradient(scores, x_adv, y, "margin")[0].allclose(slope)
    still = (gradient(scores, x_adv, y, "margin")[0] - slope).flatten(1).abs().amax(1) < 1e-7
    assert still.sum() > 3 or same
    assert torch.allclose(x_adv[still], (x + slope / (2 * gamma))[still], atol=1e-2)


@pytest.mark.parametrize("gamma", [0.03, torch.linspace(0.03, 0.3, 6)])
def test_a_quadratic_loss_has_its_maximum_where_algebra_says(gamma):
    """Margin b'x + x'Ax/2: the slope b + Ax' equals 2γ(x' − x)."""
    root = torch.randn(4, 4, generator=rng(1)) / 20
    A, b = root @ root.T - 0.02 * torch.eye(4), torch.randn(4, generator=rng(2)) / 10
    assert torch.linalg.eigvalsh(A).max() < 2 * 0.03  # concave

    def scores(x: Tensor) -> Tensor:
        z = x - 120
        other = z @ b + (z @ A * z).sum(1) / 2
        return torch.stack([torch.zeros_like(other), other], 1)

    x, y = 110 + 20 * torch.rand(6, 4, generator=rng(3)), torch.zeros(6, dtype=torch.int64)
    g = torch.as_tensor(gamma).expand(6)
    system = 2 * g[:, None, None] * torch.eye(4) - A
    exact = x + torch.linalg.solve(system, (x - 120) @ A + b)
    assert torch.allclose(wrm(scores, x, y, gamma=gamma, loss="margin", steps=400), exact, atol=0.02)


def test_steps_are_the_authors(trained):
    """Their program: ascent of loss / 2γ − ½‖x' − x‖², steps 1/√(t + 2)."""
    scores, x, y = trained
    gamma, moved = 2e-5, x
    for t in range(5):
        moved = moved.detach().requires_grad_()
        total = loss_values(scores(moved), y, "ce") / (2 * gamma)
        total = total - (moved - x).square().flatten(1).sum(1) / 2
        (slope,) = torch.autograd.grad(total.sum(), moved)
        moved = (moved + slope / (t + 2) ** 0.5).clamp(0, 255)
    found = wrm(scores, x, y, gamma=gamma, steps=5)
    assert lengths(found, x).median() > 5
    assert torch.allclose(found, moved.detach(), atol=1e-2)


def test_a_larger_penalty_moves_less_and_a_confident_image_least(trained):
    scores, x, y = trained
    near, far = (lengths(wrm(scores, x, y, gamma=g), x) for g in (1e-4, 1e-5))
    assert (near <= far).all()
    slope, _ = gradient(scores, x, y, "ce")
    order = lengths(slope, torch.zeros_like(slope)).argsort()
    assert near[order[:5]].max() < near[order[-5:]].min()


def test_without_gamma_the_first_order_solution_has_the_radius_in_each_pixel():
    """One image, slope (3, 4)/5 · s: the way is ρ√2 along it, before the ball cuts."""
    scores = Linear(torch.tensor([[0.0, 0.0], [0.3, 0.4]]), torch.tensor([70.0, 0.0]))
    x, y = torch.full((1, 2), 90.0), torch.zeros(1, dtype=torch.int64)
    free = wrm(scores, x, y, radius=10.0, norm="l2", loss="margin", steps=60)
    assert torch.allclose(free - x, torch.tensor([[6.0, 8.0]]), atol=0.05)  # cut at l2 length 10
    held = wrm(scores, x, y, radius=10.0, loss="margin", steps=60)
    whole = 10 * 2**0.5 * torch.tensor([[0.6, 0.8]])
    assert torch.allclose(held - x, whole.clamp(max=10), atol=0.05)


def test_more_than_noise(trained):
    scores, x, y = trained
    attacked = loss_values(scores(wrm(scores, x, y, radius=8.0)), y, "ce")
    assert (attacked > loss_values(scores(x), y, "ce")).all()
