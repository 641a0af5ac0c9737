"""Noise, FGSM and PGD: by hand on linear scores, and against foolbox."""

from __future__ import annotations

import foolbox
import pytest
import torch
from helpers import rng
from problems import Linear, Problem, fooled, in_foolbox, lengths
from torch import Tensor

from zsl_lib.attacks import fgsm, noise, pgd
from zsl_lib.attacks.common import loss_values, margin


def two_classes() -> Problem:
    """Scores ±w'x: FGSM's step is the best of all, and its margin known."""
    W = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]])
    x = 100 + 20 * torch.rand(4, 3, generator=rng(1))
    scores = Linear(W, torch.zeros(2))
    return Problem(scores, x, scores(x).argmax(1))


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_linear_margin_moves_by_the_radius_times_the_dual_norm(attack, norm, dual, loss):
    scores, x, y = two_classes()
    if loss == "ce":  # scores so far apart that the cross-entropy's slope would vanish
        scores = Linear(scores.W / 1000, scores.b)
    x_adv = attack(scores, x, y, radius=3.0, norm=norm, loss=loss)
    slope = scores.W[1] - scores.W[0]
    gain = margin(scores(x_adv), y) - margin(scores(x), y)
    assert torch.allclose(gain, 3 * torch.linalg.vector_norm(slope, dual), rtol=1e-4)


def test_fgsm_is_the_sign_of_the_gradient():
    scores, x, y = two_classes()
    sign = torch.tensor([-1.0, 1.0, 0.0]) * (1 - 2 * y[:, None])
    assert torch.allclose(fgsm(scores, x, y, radius=3.0, loss="margin"), x + 3 * sign)


def test_one_step_of_the_radius_is_fgsm(trained):
    scores, x, y = trained
    one = pgd(scores, x, y, radius=4.0, steps=1, step=4.0)
    assert torch.equal(one, fgsm(scores, x, y, radius=4.0))


def test_the_papers_steps_by_a_plain_loop(trained):
    scores, x, y = trained
    radius, steps = 6.0, 9
    moved = x.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(loss_values(scores(moved), y, "ce").sum(), moved)
        moved = moved.detach() + 1.25 * radius / steps * slope.sign()
        moved = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 255)
    assert torch.allclose(pgd(scores, x, y, radius=radius), moved, atol=1e-4)


def test_pgd_is_stronger_than_fgsm_and_that_than_noise(trained):
    scores, x, y = trained
    radius = 15.0
    rates = [
        fooled(trained, attack).float().mean().item()
        for attack in (
            noise(scores, x, y, radius=radius, kind="sign", generator=rng()),
            fgsm(scores, x, y, radius=radius),
            pgd(scores, x, y, radius=radius, steps=20),
        )
    ]
    assert rates[0] <= 0.1 < 0.3 < rates[1] <= rates[2]
    assert (
        loss_values(scores(pgd(scores, x, y, radius=radius, steps=20)), y, "ce").mean()
        > loss_values(scores(fgsm(scores, x, y, radius=radius)), y, "ce").mean()
    )


@pytest.mark.parametrize("start", ["clean", "uniform"])
def test_more_restarts_are_never_worse(trained, start):
    scores, x, y = trained
    losses, wrong = [], []
    for restarts in (1, 2, 4):
        x_adv = pgd(
            scores, x, y, radius=9.0, steps=3, step=1.0, restarts=restarts, start=start, generator=rng(7)
        )
        losses.append(loss_values(scores(x_adv), y, "ce"))
        wrong.append(fooled(trained, x_adv))
    for a, b in ((0, 1), (1, 2)):
        assert (wrong[b] | ~wrong[a]).all()
        same = wrong[a] == wrong[b]
        assert (losses[b][same] >= losses[a][same]).all()
    assert (losses[2] > losses[0]).any()


def test_a_misrecognised_restart_goes_before_a_larger_loss():
    """Cross-entropy can be larger for an image that is still recognised."""
    from zsl_lib.attacks.pgd import worse_of

    def scores(x: Tensor) -> Tensor:
        """Right, at chance among many; or wrong, between two."""
        many = torch.zeros(8) + torch.tensor([0.01] + 7 * [0.0])
        two = torch.tensor([0.0, 0.01] + 6 * [-9.0])
        return torch.where(x[:, :1] > 0, two, many)

    a, b, y = torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)
    assert loss_values(scores(a), y, "ce") > loss_values(scores(b), y, "ce")
    assert torch.equal(worse_of(scores, a, b, y, "ce"), b)
    assert torch.equal(worse_of(scores, b, a, y, "ce"), b)


def test_sign_noise_moves_every_pixel_by_the_radius(trained):
    scores, x, y = trained
    inside = x.clamp(20, 235)
    moved = noise(scores, inside, y, radius=5.0, kind="sign", generator=rng()) - inside
    assert torch.allclose(moved.abs(), torch.tensor(5.0), atol=1e-4)
    assert 0.4 < (moved > 0).float().mean() < 0.6
    moved = noise(scores, inside, y, radius=5.0, norm="l2", kind="sign", generator=rng())
    assert torch.allclose(lengths(moved, inside), torch.tensor(5.0), atol=1e-3)


@pytest.mark.parametrize(("norm", "radius"), [("linf", 8.0), ("linf", 20.0), ("l2", 40.0), ("l2", 90.0)])
def test_foolbox_agrees(trained, norm, radius):
    """FGSM and 9 steps of PGD, pixel by pixel; where the slope is about 0, its sign may differ."""
    scores, x, y = trained
    model = in_foolbox(trained)
    kinds = {
        "linf": (foolbox.attacks.LinfFastGradientAttack, foolbox.attacks.LinfProjectedGradientDescentAttack),
        "l2": (foolbox.attacks.L2FastGradientAttack, foolbox.attacks.L2ProjectedGradientDescentAttack),
    }[norm]
    theirs = [
        kinds[0](random_start=False),
        kinds[1](abs_stepsize=1.25 * radius / 255 / 9, steps=9, random_start=False),
    ]
    for attack, oracle in zip((fgsm, pgd), theirs, strict=True):
        ours = attack(scores, x, y, radius=radius, norm=norm)
        _, found, success = oracle(model, x / 255, y, epsilons=radius / 255)
        assert ((ours - 255 * found).abs() < 0.05).float().mean() > 0.99
        assert (fooled(trained, ours) != success).float().mean() <= 0.025
        assert success.float().mean() > 0
