"""The experiment on robustness: one budget for what learns from pixels, settings found on validation."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from zsl_lib.data import load
from zsl_lib.errors import DataError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def experiment():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "results"))
        yield importlib.import_module("robustness")
        for name in ("robustness", "robustness_search", "common", "generative", "convergence"):
            sys.modules.pop(name, None)


@pytest.fixture
def search(experiment, monkeypatch):
    """The search on a few images of hangul, with one setting, for an epoch."""
    module = importlib.import_module("robustness_search")
    raw = load("hangul", images=True)
    few = replace(raw, train=raw.train[::40], val=raw.val[::20])
    monkeypatch.setattr(module, "load", lambda *_, **__: few)
    monkeypatch.setattr(module, "grid", lambda method: {"lr": [1e-3, 1e-4]})
    return module


def options(folder: Path) -> argparse.Namespace:
    given = {"dataset": "hangul", "root": None, "semantics": "att", "backbone": "hangul", "device": "cpu"}
    sizes = {"images": 10, "batch": 10, "set": '{"epochs": 1}', "settings": "tuned"}
    return argparse.Namespace(**given, **sizes, results_dir=folder)


def test_every_method_from_pixels_takes_every_setting_of_its_search_with_the_same_epochs(
    experiment, tmp_path
):
    from_search = importlib.import_module("robustness_search")
    told = argparse.Namespace(**vars(options(tmp_path)) | {"set": "{}"})
    for name, method in experiment.FROM_PIXELS.items():
        assert method.setting_of in from_search.SEARCHED
        grid = from_search.grid(method.setting_of)
        for values in product(*grid.values()):
            setting = dict(zip(grid, values, strict=True))
            made = experiment.from_pixels(name, told, 7, **setting)
            known = vars(made) | vars(getattr(made, "config", made))
            epochs = {"epochs": experiment.EPOCHS} | method.own
            assert {k: known[k] for k in setting | epochs} == setting | epochs
            assert made.seed == 7


def test_without_a_search_a_tuned_run_says_which_command_makes_it(experiment, tmp_path):
    with pytest.raises(DataError, match=r"robustness_search\.py hangul --methods baseline\b"):
        experiment.tuned("hangul", "more_epochs", options(tmp_path))


def test_the_search_writes_a_record_whose_first_setting_is_the_best_and_which_is_then_used(
    experiment, search, tmp_path
):
    told = options(tmp_path)
    search.run("dem_pixels", told)
    (file,) = (tmp_path / "robustness_search").iterdir()
    content = json.loads(file.read_text())
    tried = content["parameters"]["tried"]
    for row in tried:
        assert row["score"] == pytest.approx((row["HT1"] + row["HHM"]) / 2)
        assert row["T1_ifgsm"] <= row["T1"]
    assert tried[0]["score"] == max(row["score"] for row in tried) == content["metrics"]["score"]
    assert content["selection"] == "validation"
    assert experiment.tuned("hangul", "dem_pixels", told) == {"lr": tried[0]["lr"]}
    assert "there already" in search.run("dem_pixels", told)


def test_the_committed_searches_are_of_the_grids_of_today(experiment):
    from_search = importlib.import_module("robustness_search")
    files = sorted((ROOT / "results" / "robustness_search").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text())
        assert content["parameters"]["grid"] == from_search.grid(content["method"])
