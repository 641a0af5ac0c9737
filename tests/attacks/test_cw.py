"""CW: near the exact distance on linear scores, and no longer than foolbox's on a network."""

from __future__ import annotations

import foolbox
import pytest
import torch
from problems import Linear, fooled, in_foolbox, lengths

from zsl_lib.attacks import cw, deepfool
from zsl_lib.attacks.common import margin


def test_the_distance_is_close_to_that_of_a_linear_boundary(linear):
    """By DeepFool, which is exact there."""
    scores, x, y = linear
    exact = lengths(deepfool(scores, x, y, overshoot=0.0), x) - 1e-4 * 255  # which it goes beyond
    x_adv = cw(scores, x, y, steps=150, searches=8)
    near = (exact > 0) & (exact < 60)
    assert near.sum() > 10
    assert fooled(linear, x_adv)[near].all()
    ratio = lengths(x_adv, x)[near] / exact[near]
    assert ratio.min() > 0.995
    assert ratio.median() < 1.02
    assert ratio.max() < 1.1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_scores_does_not_matter(linear, scale):
    scores, x, y = linear
    scaled = Linear(scale * scores.W, scale * scores.b)
    one, other = (lengths(cw(s, x, y, searches=3), x) for s in (scores, scaled))
    assert torch.allclose(one, other, rtol=0.02)


def test_confidence_is_a_margin(trained):
    scores, x, y = trained
    x_adv = cw(scores, x, y, confidence=2.0, searches=3)
    assert fooled(trained, x_adv).all()
    assert (margin(scores(x_adv), y) > 2 - 1e-3).all()
    assert (lengths(x_adv, x) > lengths(cw(scores, x, y, searches=3), x)).all()


def test_nothing_found_gives_x(linear):
    scores, x, y = linear
    assert torch.equal(cw(scores, x, y, steps=1, searches=1), x)  # the first step looks at x itself


def test_a_pixel_at_its_bound_is_hard_to_move():
    """At the bounds tanh is flat: a few of the authors' steps do not leave x, however near the boundary."""
    scores = Linear(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([3.0, 0.0]))
    y = torch.zeros(1, dtype=torch.int64)
    at_bound, inside = torch.zeros(1, 2), torch.full((1, 2), 1.0)
    assert torch.equal(cw(scores, at_bound, y, steps=9, lr=0.01), at_bound)
    assert lengths(cw(scores, inside, y, steps=30, lr=0.01), inside) > 0
    assert lengths(cw(scores, at_bound, y, steps=300), at_bound) > 0


def test_foolbox_agrees(trained):
    """Same rounds, steps, rate and first constant, on ten images."""
    scores, x, y = (part[:10] if isinstance(part, torch.Tensor) else part for part in trained)
    options = {"steps": 100, "initial_const": 1e-2, "stepsize": 0.02, "binary_search_steps": 5}
    oracle = foolbox.attacks.L2CarliniWagnerAttack(**options, abort_early=False)
    _, theirs, success = oracle(in_foolbox(trained), x / 255, y, epsilons=None)
    ours = cw(scores, x, y, steps=100, const=1e-2, lr=0.02, searches=5)
    assert success.all()
    assert (scores(ours).argmax(1) != y).all()
    ratio = lengths(ours, x) / lengths(255 * theirs, x)
    assert ratio.median() == pytest.approx(1, abs=0.01)
    assert ratio.max() < 1.05


def test_cw_is_no_longer_than_deepfool(trained):
    scores, x, y = trained
    ratio = lengths(cw(scores, x, y), x) / lengths(deepfool(scores, x, y), x)
    assert ratio.median() <= 1
    assert ratio.max() < 1.1
