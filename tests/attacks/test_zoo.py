"""ZOO: its differences are slopes, its queries are counted, and ART's finds no shorter way."""

from __future__ import annotations

import numpy as np
import torch
from art.attacks.evasion import ZooAttack
from helpers import rng
from problems import Linear, fooled, in_art, lengths

from zsl_lib.attacks import cw, zoo
from zsl_lib.attacks.common import Closest, gradient
from zsl_lib.attacks.zoo import _slopes


def test_differences_are_the_slope_of_the_margin(trained):
    scores, x, y = (part[:5] if isinstance(part, torch.Tensor) else part for part in trained)
    slope, _ = gradient(scores, x, y, "margin")
    i = torch.rand(5, 36, generator=rng()).argsort(1)[:, :10]
    with torch.no_grad():
        found = _slopes(scores, Closest(x, y, 0.0), x.flatten(1), i, 0.5, batch=64)
    assert torch.allclose(found, -slope.flatten(1).gather(1, i), atol=2e-4)  # the hinge falls as it rises


def test_scores_need_no_gradient(trained):
    """Scores through NumPy, rounded: all that a black box gives."""
    scores, x, y = trained

    def black_box(x):
        with torch.no_grad():
            return torch.from_numpy(np.round(scores(x).numpy(), 4))

    x_adv = zoo(black_box, x[:6], y[:6], steps=60, coordinates=18, lr=0.03, h=1.0, generator=rng())
    assert (scores(x_adv).argmax(1) != y[:6]).float().mean() > 0.8


def test_it_comes_near_the_distance_of_cw(trained):
    scores, x, y = trained
    near = cw(scores, x, y)
    far = zoo(scores, x, y, steps=150, coordinates=18, lr=0.02, searches=2, generator=rng())
    assert fooled(trained, far).all()
    ratio = lengths(far, x) / lengths(near, x)
    assert ratio.median() < 1.3
    assert ratio.min() > 0.95


def test_more_steps_find_more(trained):
    scores, x, y = trained
    rates = [
        fooled(trained, zoo(scores, x, y, steps=k, coordinates=4, generator=rng())).float().mean()
        for k in (5, 60)
    ]
    assert rates[0] < 0.5 < rates[1]


def test_nothing_found_gives_x():
    scores = Linear(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0.0, -1.0]))
    x, y = torch.tensor([[200.0, 3.0]]), torch.zeros(1, dtype=torch.int64)
    assert torch.equal(zoo(scores, x, y, steps=20, generator=rng()), x)  # the boundary is beyond 0


def test_art_agrees(trained):
    """As many fooled, and no farther. Its constant is absolute; ours is relative to the mean margin."""
    scores, x, y = (part[:8] if isinstance(part, torch.Tensor) else part for part in trained)
    np.random.seed(0)  # noqa: NPY002  # ART draws from the global state
    options = {"max_iter": 60, "learning_rate": 0.02, "nb_parallel": 18, "variable_h": 1e-3}
    attack = ZooAttack(
        in_art(trained),
        **options,
        initial_const=1.0,
        binary_search_steps=1,
        abort_early=False,
        use_resize=False,
        use_importance=False,
        verbose=False,
    )
    theirs = 255 * torch.from_numpy(attack.generate((x / 255).numpy()))
    margins = (scores(x).topk(2).values @ torch.tensor([1.0, -1.0])).mean().item()
    ours = zoo(scores, x, y, steps=60, coordinates=18, lr=0.02, h=0.255, const=margins, generator=rng())
    rates = [(scores(a).argmax(1) != y).float().mean().item() for a in (ours, theirs)]
    assert rates[0] >= 0.9
    assert rates[0] >= rates[1] - 0.1
    both = (scores(theirs).argmax(1) != y) & (scores(ours).argmax(1) != y)
    assert both.sum() >= 5
    assert (lengths(ours, x)[both] / lengths(theirs, x)[both]).median() < 1.15
