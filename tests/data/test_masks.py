"""Masks: what they hide, with which probability, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from zsl_lib.data import masks
from zsl_lib.errors import DataError

FEATURES = torch.rand(400, 12, generator=rng(5))
ratios = st.floats(0, 1, exclude_max=True)


def assert_share(mask: torch.Tensor, ratio: float) -> None:
    """The share of hidden entries is one that a coin of ``ratio`` gives more often than once in 10⁵ times."""
    flat = mask.flatten()
    assert binomtest(int((~flat).sum()), len(flat), ratio).pvalue > 1e-5


@pytest.mark.parametrize("kind", ["random", "large", "small"])
@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.9])
def test_the_share_is_the_one_asked_for_in_each_dimension(kind, ratio):
    mask = masks.draw(kind, FEATURES, ratio, rng())
    assert mask.dtype == torch.bool
    assert mask.shape == FEATURES.shape
    for column in mask.T:
        assert_share(column, ratio)


@given(kind=st.sampled_from(list(masks.KINDS)), ratio=ratios, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_seed_decides_the_mask_and_nothing_else_does(kind, ratio, seed):
    first, second = (masks.draw(kind, FEATURES, ratio, rng(seed)) for _ in range(2))
    assert torch.equal(first, second)
    if ratio == 0:
        assert first.all()


def test_a_random_mask_does_not_look_at_the_values():
    assert torch.equal(masks.random(FEATURES, 0.5, rng()), masks.random(FEATURES * torch.nan, 0.5, rng()))


@example(parts=1, ratio=0.9999999999999998, seed=0)
@given(parts=st.integers(1, 12), ratio=ratios, seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_a_part_is_hidden_or_shown_as_a_whole(parts, ratio, seed):
    mask = masks.blocks(FEATURES, ratio, rng(seed), parts=parts)
    part = torch.arange(12) * parts // 12
    sizes = part.bincount()
    assert len(sizes) == parts
    assert sizes.max() - sizes.min() <= 1
    for i in range(parts):
        members = mask[:, part == i]
        assert torch.equal(members.all(1), members.any(1))


def test_blocks_hide_given_parts_at_their_own_rates():
    part = torch.tensor([0, 1, 0, 2, 1, 1, 2, 0, 0, 1, 2, 2])
    mask = masks.blocks(FEATURES, torch.tensor([0.0, 0.5, 0.9]), rng(), parts=part)
    assert mask[:, part == 0].all()
    assert_share(mask[:, 1], 0.5)
    assert_share(mask[:, 3], 0.9)
    assert torch.equal(mask[:, 1], mask[:, 9])


def test_parts_are_independent_of_each_other():
    mask = masks.blocks(FEATURES, 0.5, rng(), parts=2)
    assert_share(mask[:, 0] == mask[:, -1], 0.5)


def test_by_value_hides_the_large_or_the_small():
    """The mean of what is hidden, in each dimension, is on the side that hides."""
    for kind, sign in (("large", 1), ("small", -1)):
        mask = masks.draw(kind, FEATURES, 0.5, rng())
        hidden, seen = (torch.where(m, FEATURES, torch.nan).nanmean(0) for m in (~mask, mask))
        assert (sign * (hidden - seen) > 0.1).all()


def test_by_value_follows_the_logistic_of_the_rank():
    """One dimension, many draws: the share hidden at each rank is sigmoid(a + slope · u)."""
    column = torch.tensor([[3.0], [1.0], [2.0], [4.0]])
    draws = torch.stack([masks.by_value(column, 0.5, rng(i), slope=2.0)[:, 0] for i in range(4000)])
    chance = torch.sigmoid(2 * torch.tensor([0.25, -0.75, -0.25, 0.75]))  # a = 0 by symmetry
    for seen, p in zip(draws.T, chance.tolist(), strict=True):
        assert_share(seen, p)


def test_ties_hide_alike_whatever_the_slope():
    mask = masks.by_value(torch.zeros(5000, 1), 0.3, rng(), slope=50.0)
    assert_share(mask, 0.3)
    assert_share(mask[:2500], 0.3)


def test_hide_covers_the_training_examples_only_and_adds_to_the_mask_that_is_there():
    data = small_dataset()
    n = len(data.trainval)
    first = masks.random(data.features[data.trainval], 0.3, rng(1))
    second = masks.random(data.features[data.trainval], 0.3, rng(2))
    once = masks.hide(data, first)
    both = masks.hide(once, second)
    assert torch.equal(once.mask[data.trainval], first)
    assert torch.equal(both.mask[data.trainval], first & second)
    rest = torch.cat([data.test_seen, data.test_unseen])
    assert both.mask[rest].all()
    assert len(rest) + n == len(data)
    assert data.mask is None, "the data set itself is not changed"
    assert torch.equal(once.mask[data.trainval], first), "nor is the one in between"
    assert torch.equal(both.features, data.features), "hidden values stay where they are"


def test_hide_covers_the_rows_that_are_named():
    data = small_dataset()
    rows = torch.arange(len(data))
    mask = masks.random(data.features, 0.5, rng())
    assert torch.equal(masks.hide(data, mask, rows).mask, mask)


def test_the_scaler_sees_only_what_is_observed():
    data = small_dataset()
    mask = masks.random(data.features[data.trainval], 0.4, rng(3))
    hidden = masks.hide(data, mask)
    wild = data.features.clone()
    wild[data.trainval] = wild[data.trainval].where(mask, 1e6)
    assert torch.equal(
        masks.hide(replace(data, features=wild), mask).scaled().features, hidden.scaled().features
    )


BAD = {
    "ratio 1": (
        lambda: masks.random(FEATURES, 1.0, rng()),
        r"random: ratio: found 1.0, expected a share in \[0, 1\)",
    ),
    "ratio negative": (lambda: masks.by_value(FEATURES, -0.1, rng()), "by_value: ratio: found -0.1"),
    "ratio NaN": (lambda: masks.blocks(FEATURES, float("nan"), rng()), "blocks: ratio: found nan"),
    "one rate is 1": (
        lambda: masks.blocks(FEATURES, torch.tensor([0.0, 1.0]), rng(), parts=2),
        "blocks: ratio: found 1.0",
    ),
    "rates for other parts": (
        lambda: masks.blocks(FEATURES, torch.tensor([0.1, 0.2]), rng(), parts=3),
        r"blocks: ratio: found shape \(2,\), expected \(3,\), one a part",
    ),
    "no part": (
        lambda: masks.blocks(FEATURES, 0.5, rng(), parts=0),
        "blocks: parts: found 0, expected 1 to 12",
    ),
    "too many parts": (lambda: masks.blocks(FEATURES, 0.5, rng(), parts=13), "blocks: parts: found 13"),
    "parts of another size": (
        lambda: masks.blocks(FEATURES, 0.5, rng(), parts=torch.zeros(5, dtype=torch.int64)),
        r"blocks: parts: found torch.int64 of shape \(5,\)",
    ),
    "a row of features": (lambda: masks.random(FEATURES[0], 0.5, rng()), "features: found 1-d tensor"),
    "kind": (
        lambda: masks.draw("holes", FEATURES, 0.5, rng()),
        "kind: found 'holes', expected one of random, blocks, large, small",
    ),
    "mask of floats": (
        lambda: masks.hide(small_dataset(), torch.ones(30, 6)),
        r"hide: mask: found torch.float32 of shape \(30, 6\), expected torch.bool",
    ),
    "mask of another shape": (
        lambda: masks.hide(small_dataset(), torch.ones(2, 6, dtype=torch.bool)),
        r"hide: mask: found torch.bool of shape \(2, 6\), expected torch.bool of shape \(30, 6\)",
    ),
    "no features": (
        lambda: masks.hide(
            replace(small_dataset(), features=None, images=torch.zeros(72, 1, 2, 2, dtype=torch.uint8)),
            torch.ones(30, 6, dtype=torch.bool),
        ),
        "features: found none, expected features to hide",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
