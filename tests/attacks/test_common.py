"""Checks, losses and balls; and what holds for every attack."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Linear, lengths

from zsl_lib.attacks import autoattack, cw, deepfool, fgsm, noise, pgd, wrm, zoo
from zsl_lib.attacks.common import Counted, direction, gradient, loss_values, margin, project, random_point
from zsl_lib.errors import DataError

SHORT = {
    "noise": noise,
    "fgsm": fgsm,
    "pgd": partial(pgd, restarts=2),
    "deepfool": partial(deepfool, steps=8),
    "cw": partial(cw, steps=10, searches=2),
    "wrm": wrm,
    "zoo": partial(zoo, steps=10, coordinates=8),
}
BY_NORM = ("noise", "fgsm", "pgd", "deepfool", "wrm")
every_attack = pytest.mark.parametrize("name", SHORT)


def test_the_margin_is_the_best_other_score_minus_the_true_one():
    values = torch.tensor([[1.0, 4.0, 2.0], [0.0, -3.0, -1.0]])
    y = torch.tensor([2, 0])
    assert margin(values, y).tolist() == [2.0, -1.0]
    assert torch.equal(loss_values(values, y, "margin"), margin(values, y))
    by_hand = torch.logsumexp(values, 1) - values.gather(1, y[:, None])[:, 0]
    assert torch.allclose(loss_values(values, y, "ce"), by_hand)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_the_gradient_is_that_of_finite_differences(trained, loss):
    scores, x, y = trained
    net, x, y = scores.double(), x[:3].double(), y[:3]
    slope, values = gradient(net, x, y, loss)
    unit = torch.zeros_like(x)
    unit[:, 0, 2, 3] = 1e-3
    ahead, behind = (loss_values(net(x + s * unit), y, loss) for s in (1, -1))
    assert torch.allclose(slope[:, 0, 2, 3], (ahead - behind) / 2e-3, rtol=1e-4, atol=1e-9)
    assert torch.equal(values, net(x))
    scores.float()


def test_the_steepest_direction_maximises_a_linear_function_over_the_ball():
    slope = torch.randn(6, 2, 3, generator=rng())
    slope[0] = 0
    for norm, dual in (("linf", 1), ("l2", 2)):
        found = (direction(slope, norm) * slope).flatten(1).sum(1)
        assert torch.allclose(found, lengths(slope, torch.zeros_like(slope), dual))
    assert direction(slope, "l2")[0].abs().sum() == 0
    assert torch.allclose(direction(1e-30 * slope, "l2"), direction(slope, "l2"))


@settings(deadline=None, max_examples=60)
@given(radius=st.floats(0, 300, width=32), reach=st.floats(0, 1000), norm=st.sampled_from(["linf", "l2"]))
def test_a_projection_lies_in_the_ball_and_in_the_bounds_and_stays_there(radius, reach, norm):
    x = 255 * torch.rand(4, 1, 3, 3, generator=rng(1))
    moved = x + reach * torch.randn(x.shape, generator=rng(2))
    rho = torch.full((4, 1, 1, 1), radius)
    found = project(moved, x, rho, norm, (0.0, 255.0))
    assert found.min() >= 0
    assert found.max() <= 255
    assert (lengths(found, x, torch.inf if norm == "linf" else 2) <= radius + 2e-4).all()
    assert torch.allclose(project(found, x, rho, norm, (0.0, 255.0)), found, atol=1e-4)


def test_the_projection_on_the_linf_ball_is_the_nearest_point():
    x, moved = torch.tensor([[100.0, 250.0, 3.0]]), torch.tensor([[120.0, 300.0, 4.0]])
    found = project(moved, x, torch.tensor([[10.0]]), "linf", (0.0, 255.0))
    assert found.tolist() == [[110.0, 255.0, 4.0]]


def test_random_points_are_uniform_in_the_ball():
    """In d dimensions the share within half the radius is 2^-d in either norm."""
    x, rho = torch.zeros(20000, 3), torch.full((20000, 1), 2.0)
    for norm, order in (("l2", 2), ("linf", torch.inf)):
        length = lengths(random_point(x, rho, norm, rng(5)), x, order)
        assert length.max() <= 2
        assert (length < 1).float().mean() == pytest.approx(1 / 8, abs=0.01)


@every_attack
@settings(deadline=None, max_examples=6)
@given(radius=st.floats(0.1, 60), seed=st.integers(0, 9))
def test_bounds_and_radius_are_respected(learned, name, radius, seed):
    scores, x, y = learned.scores, learned.x[:6], learned.y[:6]
    for norm in ("linf", "l2") if name in BY_NORM else ("l2",):
        options = {"norm": norm} if name in BY_NORM else {}
        x_adv = SHORT[name](scores, x, y, radius=radius, generator=rng(seed), **options)
        assert x_adv.shape == x.shape
        assert x_adv.dtype == torch.float32
        assert x_adv.min() >= 0
        assert x_adv.max() <= 255
        assert (lengths(x_adv, x, torch.inf if norm == "linf" else 2) <= radius + 1e-3).all()


@every_attack
def test_radius_0_gives_x(trained, name):
    scores, x, y = trained
    assert torch.equal(SHORT[name](scores, x[:6], y[:6], radius=0.0, generator=rng()), x[:6])


@every_attack
def test_each_image_has_its_own_radius(linear, name):
    scores, x, y = linear
    radius = torch.arange(len(x)).float() / 4
    x_adv = SHORT[name](scores, x, y, radius=radius, generator=rng())
    order = torch.inf if name in ("noise", "fgsm", "pgd", "wrm") else 2
    length = lengths(x_adv, x, order)
    assert (length <= radius + 1e-4).all()
    assert length[1:].max() > 1


@pytest.mark.parametrize("name", [n for n in SHORT if n != "noise"])
def test_zero_gradients_give_x(name):
    """Scores that do not depend on the pixels leave nothing to climb."""
    x, y = torch.full((3, 4), 100.0), torch.zeros(3, dtype=torch.int64)
    flat = Linear(torch.zeros(2, 4), torch.tensor([1.0, 0.0]))
    options = {"restarts": 1} if name == "pgd" else {}
    assert torch.equal(SHORT[name](flat, x, y, radius=5.0, generator=rng(), **options), x)


@every_attack
def test_the_model_and_the_global_state_are_left_alone(trained, name):
    scores, x, y = trained
    before = {k: v.clone() for k, v in scores.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        first = SHORT[name](scores, x[:6], y[:6], radius=9.0, generator=rng(1))
    again = SHORT[name](scores, x[:6], y[:6], radius=9.0, generator=rng(1))
    assert torch.equal(first, again)
    assert not first.requires_grad
    assert not again.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert not scores.training
    assert all(p.grad is None and p.requires_grad for p in scores.parameters())
    assert all(torch.equal(v, before[k]) for k, v in scores.state_dict().items())


@every_attack
def test_inputs_are_not_written_to(trained, name):
    scores, x, y = trained
    given_x, given_y = x[:6].clone(), y[:6].clone()
    SHORT[name](scores, given_x, given_y, radius=9.0, generator=rng(1))
    assert torch.equal(given_x, x[:6])
    assert torch.equal(given_y, y[:6])


BAD = {
    "outside": (lambda x, y: (x + 200, y), "x: found values from"),
    "negative": (lambda x, y: (-x, y), "x: found values from"),
    "nan": (lambda x, y: (x * torch.nan, y), "x: found values from nan"),
    "bytes": (lambda x, y: (x.byte(), y), "x: found torch.uint8, expected float32"),
    "flat": (lambda x, y: (x[:, 0], y), "x: found shape"),
    "none": (lambda x, y: (x[:0], y[:0]), "x: found shape"),
    "label -1": (lambda x, y: (x, y - 5), "y: found -"),
    "label 5": (lambda x, y: (x, y + 5), "y: found .* expected a column of the scores, 0..4"),
    "float labels": (lambda x, y: (x, y.float()), "y: found torch.float32"),
    "fewer labels": (lambda x, y: (x, y[:-1]), "y: found torch.int64"),
}


@pytest.mark.parametrize("attack", [n for n in SHORT if n != "noise"])
@pytest.mark.parametrize("case", BAD)
def test_unfit_inputs_are_named(linear, attack, case):
    change, message = BAD[case]
    x, y = change(linear.x, linear.y)
    with pytest.raises(DataError, match=message):
        SHORT[attack](linear.scores, x, y, radius=1.0, generator=rng())


@every_attack
@pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf"), torch.ones(3), torch.ones(20, 1)])
def test_a_bad_radius_is_named(linear, name, radius):
    with pytest.raises(DataError, match="radius: found"):
        SHORT[name](*linear, radius=radius, generator=rng())


@pytest.mark.parametrize("name", ["fgsm", "pgd", "deepfool", "cw", "wrm"])
def test_scores_without_a_gradient_are_named(linear, name):
    scores, x, y = linear

    def detached(x):
        return scores(x.detach())

    def constant(x):
        return scores.b.expand(len(x), 5)

    def infinite(x):
        return scores(x) + (x - x).sqrt().sum(1, keepdim=True)

    for wrong, message in (
        (detached, "no gradient in x"),
        (constant, "no gradient in x"),
        (infinite, "NaN or infinite gradient"),
        (lambda x: scores(x)[:, :1], r"shape \[20, 1\]"),
        (lambda x: scores(x)[0], "scores: found shape"),
    ):
        with pytest.raises(DataError, match=message):
            SHORT[name](wrong, x, y * 0 if "20, 1" in message else y, radius=1.0, generator=rng())


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (pgd, {"steps": 0}, "steps: found 0"),
        (pgd, {"restarts": 1.5}, "restarts"),
        (pgd, {"step": -1.0}, "step: found -1"),
        (pgd, {"norm": "l1"}, "norm: found 'l1', expected one of 'linf', 'l2'"),
        (pgd, {"loss": "mse"}, "loss: found 'mse'"),
        (pgd, {"start": "random"}, "start: found 'random'"),
        (pgd, {"start": "uniform"}, "generator: found None"),
        (pgd, {"bounds": (1.0, 1.0)}, "bounds"),
        (noise, {"kind": "normal"}, "kind"),
        (noise, {}, "generator: found None"),
        (zoo, {}, "generator: found None"),
        (zoo, {"h": 0.0}, "h: found 0"),
        (wrm, {"gamma": 0.0}, "gamma: found 0"),
        (wrm, {"radius": None}, "gamma: found None"),
        (autoattack, {}, r"x: found shape \[20, 12\]"),
    ],
)
def test_bad_settings_are_named(linear, attack, options, message):
    with pytest.raises(DataError, match=message):
        attack(*linear, **{"radius": 1.0} | options)


def test_counted_counts(trained):
    counted = Counted(trained.scores)
    pgd(counted, trained.x, trained.y, radius=2.0, steps=3)
    assert (counted.images, counted.gradients) == (120, 120)
    zoo(counted, trained.x[:2], trained.y[:2], steps=4, coordinates=5, generator=rng())
    assert counted.images == 120 + 2 * (1 + 4 * (1 + 2 * 5))
    assert counted.gradients == 120
