"""The grid search sees validation data only, and sorts what it finds."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from helpers import small_dataset

from zsl_lib import tuning
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.metrics import evaluate

GRID = {"gamma": [0.1, 10.0], "lam": [0.1, 1.0, 10.0]}


def with_tuning_split():
    """The made-up data set with the last seen class as validation class."""
    data = small_dataset()
    is_val = data.labels[data.trainval] == data.seen[-1]
    return replace(data, train=data.trainval[~is_val], val=data.trainval[is_val])


def test_every_setting_is_tried_and_the_best_comes_first():
    table = tuning.search(ESZSL, GRID, with_tuning_split(), metric="H")
    assert len(table) == 6
    assert table["H"].is_monotonic_decreasing
    assert not table[["gamma", "lam"]].duplicated().any()


def test_the_accuracies_are_those_of_the_tuning_split():
    data = with_tuning_split()
    row = tuning.search(ESZSL, {"gamma": [1.0], "lam": [2.0]}, data).loc[0]
    split = data.tuning_split().scaled()
    expected = evaluate(ESZSL(gamma=1.0, lam=2.0).fit(split), split)
    assert row[["T1", "AU", "AS", "H"]].tolist() == list(expected)


def test_test_images_and_earlier_scaling_change_nothing():
    data = with_tuning_split()
    features = data.features.clone()
    features[torch.cat([data.test_seen, data.test_unseen])] = 1e3
    before = tuning.search(ESZSL, GRID, data)
    pd.testing.assert_frame_equal(tuning.search(ESZSL, GRID, replace(data, features=features)), before)
    pd.testing.assert_frame_equal(tuning.search(ESZSL, GRID, data.scaled()), before)
