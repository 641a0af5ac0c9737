"""The curve of AU and AS against a recogniser that is calibrated at each γ, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor

from zsl_lib.calibration import Calibrated, ausuc, best, seen_unseen_curve
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.metrics import evaluate


@pytest.fixture(scope="module")
def fitted():
    data = small_dataset(noise=0.8)
    return data, ESZSL().fit(data)


def test_the_curve_is_what_evaluate_says_at_every_gamma(fitted):
    data, model = fitted
    curve = seen_unseen_curve(model, data)
    edges = [*curve["gamma"].iloc[1:], curve["gamma"].iloc[-1] + 1]
    middles = [edges[0] - 1, *np.convolve(edges, [0.5, 0.5], "valid")]
    assert len(middles) == len(curve)
    for gamma, (_, row) in zip(middles, curve.iterrows(), strict=True):
        found = evaluate(Calibrated(model, data.semantics[data.seen], gamma), data)
        assert pytest.approx(row["AU"]) == found.AU
        assert pytest.approx(row["AS"]) == found.AS
        assert pytest.approx(row["H"]) == found.H


def test_the_ends_of_the_curve_are_the_two_ordinary_tasks(fitted):
    data, model = fitted
    curve = seen_unseen_curve(model, data)
    assert curve["AU"].is_monotonic_increasing
    assert curve["AS"].is_monotonic_decreasing
    assert (curve["AU"].iloc[0], curve["AS"].iloc[-1]) == pytest.approx((0, 0))
    assert curve["AU"].iloc[-1] == pytest.approx(evaluate(model, data).T1)


def test_calibration_leaves_t1_alone_and_knows_seen_classes_in_any_order(fitted):
    data, model = fitted
    order = torch.randperm(len(data.semantics), generator=rng(1))
    x = data.features[:7]
    gaps = model.scores(x, data.semantics[order]) - Calibrated(model, data.semantics[data.seen], 0.25).scores(
        x, data.semantics[order]
    )
    torch.testing.assert_close(gaps, 0.25 * torch.isin(order, data.seen).double().expand(7, -1))


def test_the_area_by_hand():
    """Two steps: AS 80 until AU is 50, then AS 20 until AU is 60."""
    curve = pd.DataFrame({"AU": [0, 50, 50, 60, 60], "AS": [80, 80, 20, 20, 0]})
    assert ausuc(curve) == pytest.approx((50 * 80 + 10 * 20) / 100)


class Perfect:
    """Scores are the features: one column a class."""

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        return x @ semantics.T


def test_a_perfect_recogniser_has_the_whole_square_whatever_its_bias():
    data = small_dataset()
    codes = torch.eye(len(data.semantics))
    features = codes[data.labels] + 0.5 * codes[data.seen].sum(0)
    perfect = replace(data, features=features, semantics=codes)
    curve = seen_unseen_curve(Perfect(), perfect)
    assert ausuc(curve) == pytest.approx(100)
    assert curve["H"].max() == pytest.approx(100)
    assert 0.0 < best(curve) < 1.5


def test_the_best_gamma_is_inside_its_step_and_0_where_nothing_is_right():
    curve = pd.DataFrame({"gamma": [-np.inf, 1.0, 3.0], "H": [0.0, 50.0, 40.0]})
    assert best(curve) == 2.0
    assert best(curve.iloc[:2]) == 1.0
    assert best(curve.assign(H=0.0)) == 0.0
