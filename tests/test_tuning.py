"""The grid search sees validation data only, and sorts what it finds."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib import tuning
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.errors import DataError
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


def test_score_is_the_mean_of_t1_and_h():
    table = tuning.search(ESZSL, GRID, with_tuning_split(), metric="score")
    assert table["score"].tolist() == ((table["T1"] + table["H"]) / 2).tolist()
    assert table["score"].is_monotonic_decreasing


def test_processes_change_nothing():
    data = with_tuning_split()
    pd.testing.assert_frame_equal(tuning.search(ESZSL, GRID, data, jobs=2), tuning.search(ESZSL, GRID, data))


class Diverging(ESZSL):
    """Fails at one setting."""

    def fit(self, dataset):
        if self.lam == 1.0:
            raise ArithmeticError("loss nan")
        return super().fit(dataset)


def test_a_setting_that_diverges_comes_last_without_accuracies():
    table = tuning.search(Diverging, GRID, with_tuning_split(), metric="H")
    assert table["lam"].iloc[-2:].tolist() == [1.0, 1.0]
    assert table["H"].isna().tolist() == [False] * 4 + [True] * 2


def test_a_search_goes_on_where_its_log_ends(tmp_path):
    data, log = with_tuning_split(), tmp_path / "logs" / "eszsl.jsonl"
    whole = tuning.search(ESZSL, GRID, data, log=log)
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    log.write_text("\n".join(lines[:3]) + '\n{"gamma": 0.1, "la')  # cut off in mid-line
    calls = []

    def counting(**setting):
        calls.append(setting)
        return ESZSL(**setting)

    pd.testing.assert_frame_equal(tuning.search(counting, GRID, data, log=log), whole)
    assert len(calls) == 3
    assert len(log.read_text().splitlines()) == 6
    pd.testing.assert_frame_equal(tuning.search(counting, GRID, data, log=log), whole)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "line 1: found no JSON, expected a setting tried"),
        ('{"other": 1}', "line 1: found .*other.*, expected a setting tried"),
        ('{"gamma": 7.0, "lam": 1.0, "T1": 1}', "expected a setting of the grid .*the grid has changed"),
    ],
)
def test_a_log_of_something_else_is_an_error_that_names_it(tmp_path, line, message):
    log = tmp_path / "eszsl.jsonl"
    log.write_text(line + "\n")
    with pytest.raises(DataError, match=rf"eszsl\.jsonl.*{message}"):
        tuning.search(ESZSL, GRID, with_tuning_split(), log=log)


def test_another_metric_is_an_error():
    with pytest.raises(DataError, match="search: metric: found 'F1', expected one of T1, AU, AS, H, score"):
        tuning.search(ESZSL, GRID, with_tuning_split(), metric="F1")


class Brightness:
    """Scores by the mean of the pixels, which nobody has scaled."""

    def fit(self, dataset):
        assert dataset.features is None
        return self

    def scores(self, x, semantics):
        return x.flatten(1).mean(1, keepdim=True) * semantics.sum(1)


def test_images_without_features_are_searched_as_they_are():
    data = with_tuning_split()
    images = torch.rand(len(data), 1, 2, 2, generator=rng())
    table = tuning.search(Brightness, {}, replace(data, features=None, images=images))
    assert len(table) == 1
    assert table[["T1", "H"]].notna().all(axis=None)


def test_another_measure_decides_and_is_told_in_the_table():
    data, split = with_tuning_split(), with_tuning_split().tuning_split().scaled()

    def lowest(model, dataset):
        torch.testing.assert_close(dataset.features, split.features)
        return {"lowest": float(model.scores(dataset.features, dataset.semantics).min())}

    table = tuning.search(ESZSL, GRID, data, "lowest", measure=lowest)
    assert list(table.columns) == ["gamma", "lam", "lowest"]
    assert table["lowest"].is_monotonic_decreasing
    assert table["lowest"].nunique() > 1
    with pytest.raises(DataError, match="one of lowest"):
        tuning.search(ESZSL, GRID, data, measure=lowest)
