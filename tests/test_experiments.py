"""The experiment on robustness: one budget for what learns from pixels, settings found on validation."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from zsl_lib.data import load
from zsl_lib.errors import DataError

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def script(name):
    """A script of results/ as a module; it and what it imports from there are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "results"))
        yield importlib.import_module(name)
        for path in (ROOT / "results").glob("*.py"):
            sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def experiment():
    with script("robustness") as module:
        yield module


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


@pytest.mark.parametrize("method", ["baseline", "both"])
def test_a_crossed_run_attacks_images_and_tables(experiment, search, method, tmp_path, monkeypatch):
    crossed = importlib.import_module("crossed")
    raw = load("hangul", images=True)
    few = replace(raw, trainval=raw.trainval[::4])
    monkeypatch.setattr(crossed, "load", lambda *_, **__: few)
    monkeypatch.setattr(crossed, "best_setting", lambda *_, **__: {"lr": 3e-3})
    crossed.run(method, 1, argparse.Namespace(**vars(options(tmp_path)) | {"images": 40}))
    (file,) = (tmp_path / "crossed").iterdir()
    metrics = json.loads(file.read_text())["metrics"]
    assert 0 < metrics["T1_clean"] < 100
    for part in ("images", "own"):
        assert metrics[f"T1_{part}"] <= metrics["T1_clean"]
    assert {name.split("_")[1] for name in metrics} == {"seconds", "clean", "images", "own", "universal"}


# --- poisoned descriptions --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poison():
    with script("poisoning") as module:
        yield module


@pytest.fixture
def few_letters(poison, monkeypatch):
    """Part of hangul, each class with few images."""
    raw = load("hangul")
    short = replace(raw, trainval=raw.trainval[::6], test_seen=raw.test_seen[::10], train=raw.train[::6])
    monkeypatch.setattr(poison, "load", lambda *_, **__: short)
    monkeypatch.setattr(poison, "EPOCHS", 1)
    monkeypatch.setattr(poison, "POINTS", (1.0, 3.0))
    monkeypatch.setattr(poison, "PAPER", (1.0, 3.0))
    monkeypatch.setattr(poison, "STEPS", 2)
    monkeypatch.setattr(poison, "LIES", (1,))
    return short


def told(folder: Path) -> argparse.Namespace:
    given = {"dataset": "hangul", "root": None, "semantics": "att", "device": "cpu", "results_dir": folder}
    return argparse.Namespace(**given, images=12, few=3, hidden=16, samples=5)


def test_every_method_against_poison_takes_every_setting_of_its_search(poison):
    search = importlib.import_module("poisoning_search")
    for name, method in poison.trainable().items():
        assert method.setting_of in search.SEARCHED
        grid = search.grid(method.setting_of)
        for values in product(*grid.values()):
            setting = dict(zip(grid, values, strict=True))
            made = poison.learned(name, "hangul", 68, 7, device="cpu", **setting)
            known = vars(made) | vars(getattr(made, "config", made))
            assert {k: known[k] for k in setting | method.own} == setting | method.own
            assert made.seed == 7
            if "radius" in known:
                assert known["radius"] == pytest.approx(3 * 68**0.5)


def test_the_committed_searches_against_poison_are_of_the_grids_of_today(poison):
    search = importlib.import_module("poisoning_search")
    files = sorted((ROOT / "results" / "poisoning_search").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text())
        assert content["parameters"]["grid"] == search.grid(content["method"])


@pytest.mark.parametrize("method", ["atzsl", "fgzsl"])
def test_a_run_against_poison_writes_what_it_measured(poison, few_letters, method, tmp_path, monkeypatch):
    monkeypatch.setattr(poison, "best_setting", lambda *_, **__: {"lr": 1e-3})
    monkeypatch.setattr(poison, "chosen", lambda *_: ({}, 1))
    poison.run(method, 3, told(tmp_path))
    (file,) = (tmp_path / "poisoning").iterdir()
    content = json.loads(file.read_text())
    columns = content["curves"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    cells = {(poison.KINDS[int(r["threat"])], poison.ATTACKS[int(r["attack"])], r["points"]): r for r in rows}
    threats = {threat for threat, *_ in cells}
    assert threats == ({"universal"} if method == "fgzsl" else {"own", "universal", "all"})
    for (threat, attack, points), row in cells.items():
        if attack not in ("worst", "clean", "flip"):
            assert cells[threat, "worst", points]["T1"] <= row["T1"]
        if threat != "universal":
            assert row["T1"] <= cells[threat, "clean", 0]["T1"]
    assert content["metrics"]["T1_universal_worst"] == cells["universal", "worst", 3.0]["T1"]
    assert {name for name in content["metrics"] if name.startswith("check_")} == {
        f"check_{name}" for name in ("floor", "monotone", "iterated", "converged", "transfer")
    }
    assert content["metrics"]["check_floor"] == 1 or method == "fgzsl"
    assert "there already" in poison.run(method, 3, told(tmp_path))


def test_poison_needs_a_scale(poison, few_letters, tmp_path, monkeypatch):
    monkeypatch.setattr(poison, "load", lambda *_, **__: replace(few_letters, points=None))
    with pytest.raises(DataError, match="hangul, att: points: found none, expected some"):
        poison.run("atzsl", 0, told(tmp_path))


@pytest.mark.parametrize("radii", [["1", "2"], ["4", "-1"]])
def test_radii_without_the_one_of_the_checks_or_below_0_are_refused(radii, experiment, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["robustness.py", "hangul", "--radii", *radii])
    with pytest.raises(SystemExit):
        experiment.main()
    assert "--radii: found [" in capsys.readouterr().err


def test_a_command_tells_the_radii_that_are_not_the_usual(experiment, tmp_path):
    given = vars(options(tmp_path)) | {"few": 4, "rare": 1, "hidden": 8, "samples": 2, "set": "{}"}
    usual, told = (argparse.Namespace(**given, radii=radii) for radii in (experiment.RADII, [0.25, 4.0]))
    assert "--radii" not in experiment.command(usual, "dem", 0)
    assert "--radii 0.25 4" in experiment.command(told, "dem", 0)
