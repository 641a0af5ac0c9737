"""The committed tables of accuracies follow from the committed records, by arithmetic of its own."""

from __future__ import annotations

import html
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from scipy import stats

from zsl_lib.claims import TITLES as ROBUST
from zsl_lib.embedding import available, is_random
from zsl_lib.learn.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
METRICS = ("T1", "AU", "AS", "H")
TABLES = [
    ("90_results", 0, "recognition"),
    ("92_paper1_claims", 0, "generative"),
    ("92_paper1_claims", 1, "published"),
    ("92_paper1_claims", 2, "compatibility"),
]
"""Notebook, which of its tables of accuracies over seeds, whose records' methods are in it."""
TITLES = {
    "recognition": {"abp": "abp", "eszsl": "eszsl"},
    "generative": {name: method.title for name, method in METHODS.items()},
    "published": {f"{name}_published": method.title for name, method in METHODS.items()},
    "compatibility": {name: method.NAME for name, method in available().items()},
}


def tables(notebook: str) -> list[list[list[str]]]:
    """All HTML tables among the outputs of a committed notebook: rows of texts, the header first."""
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    pages = [
        o.data["text/html"] for c in cells for o in c.get("outputs", ()) if "text/html" in o.get("data", {})
    ]
    found = []
    for page in pages:
        rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        cells = [re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append(
            [[html.unescape(t).strip() for how, t in row for _ in range(_columns(how))] for row in cells]
        )
    return found


def _columns(attributes: str) -> int:
    """How many columns a cell spans."""
    span = re.search(r'colspan="(\d+)"', attributes)
    return int(span[1]) if span else 1


def accuracies(notebook: str, which: int) -> dict[tuple[str, str, str], str]:
    """(data set, method, metric) → text, of one of the tables of accuracies over seeds."""
    table = [t for t in tables(notebook) if {*METRICS, "seeds"} <= set(t[0])][which]
    start, width = table[0].index("T1"), len(table[0])
    found, dataset = {}, ""
    for row in table[2:]:  # below the two rows of the header
        if len(row) == width:  # a data set spans its rows, so only the first of them names it
            dataset = row[0]
        found |= {(dataset, row[start - width - 1], m): row[start - width + i] for i, m in enumerate(METRICS)}
    return found


def from_records(experiment: str) -> dict[tuple[str, str, str], str]:
    """(data set, method, metric) → "mean ± sd" of the records, without the library."""
    values = defaultdict(list)
    for path in (ROOT / "results" / experiment).glob("*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        for metric in METRICS:
            values[run["dataset"], run["method"], metric].append(run["metrics"][metric])
    return {key: mean_sd(v) for key, v in values.items()}


def mean_sd(values: list[float]) -> str:
    """``"59.1 ± 0.8"``."""
    return f"{statistics.mean(values):.1f}" + (
        f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    )


@pytest.mark.parametrize(("notebook", "which", "methods"), TABLES)
def test_the_table_of_accuracies_follows_from_the_records(notebook, which, methods):
    titles = TITLES[methods]
    records = from_records("generative" if methods == "published" else methods)
    expected = {(d, titles[m], k): text for (d, m, k), text in records.items() if m in titles}
    assert accuracies(notebook, which) == expected


@pytest.mark.parametrize("experiment", ["generative", "compatibility"])
def test_five_seeds_or_no_randomness_stand_behind_each_row_of_claims(experiment):
    seeds = defaultdict(set)
    for path in (ROOT / "results" / experiment).glob("*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        seeds[run["dataset"], run["method"]].add(run["seed"])
    assert seeds
    random = {m for _, m in seeds if m not in available() or is_random(m)}
    assert all(len(found) >= 5 for (_, m), found in seeds.items() if m in random), seeds


def test_every_compatibility_model_has_been_tested():
    tested = {path.name.split("-")[1] for path in (ROOT / "results" / "compatibility").glob("hangul-*.json")}
    assert tested == set(available())


# --- paper 2: accuracies under attack -------------------------------------------------------------------

ATTACKS = {
    "noise": "noise",
    "FGSM": "fgsm",
    "IFGSM": "ifgsm",
    "WRM": "wrm",
    "PGD, margin": "pgd_margin",
    "worst case": "worst",
    "DeepFool": "deepfool",
    "CW": "cw",
    "ZOO": "zoo",
    "AutoAttack": "autoattack",
}


def robust_runs():
    """Per record of ``results/robustness``: data set, method, seed, metrics and (attack, radius) → point."""
    for path in (ROOT / "results" / "robustness").glob("*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        columns = run["curves"]
        points = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        names = run["parameters"]["attacks"]
        cells = {(names[int(point["attack"])], point["radius"]): point for point in points}
        yield run["dataset"], run["method"], run["seed"], run["metrics"], cells


@pytest.mark.parametrize(("which", "metric"), [(0, "T1"), (1, "H")])
def test_the_tables_under_attack_follow_from_the_records(which, metric):
    values = defaultdict(list)
    for dataset, method, _, metrics, cells in robust_runs():
        row = dataset, ROBUST.get(method, method)
        values[*row, "all"].append(metrics[metric])
        values[*row, "clean"].append(cells["clean", 0][metric])
        for column, attack in ATTACKS.items():
            values[*row, column].append(cells[attack, 4][metric])
    expected = {k: mean_sd(v) for k, v in values.items()}
    table = [t for t in tables("93_paper2_claims") if {"worst case", "AutoAttack", "seeds"} <= set(t[0])][
        which
    ]
    found, dataset = {}, ""
    for row in table[2:]:
        dataset = row[0] if len(row) == len(table[0]) else dataset
        *cells, seeds = row[-len(table[0][2:]) :]
        key = dataset, row[-len(table[0][1:])]
        found |= {(*key, column): text for column, text in zip(table[0][2:-1], cells, strict=True)}
        assert int(seeds) == len(values[*key, "all"])
    assert found == expected


def test_the_differences_to_atzsl_are_scipys_paired_intervals():
    """In the worst case at radius 4, for each method and data set with two seeds in common at least."""
    worst = {(d, m, seed): cells["worst", 4]["T1"] for d, m, seed, _, cells in robust_runs()}
    (table,) = [t for t in tables("93_paper2_claims") if t[2][0] == "ATZSL minus"]
    datasets = list(dict.fromkeys(d for d, *_ in sorted(worst, key=lambda k: (k[0] != "hangul", k[0]))))
    columns = [i for i, title in enumerate(table[1]) if title == "T1, worst case"]
    assert list(dict.fromkeys(table[0][1:])) == datasets
    for name, column in zip(datasets, columns, strict=True):
        found = {row[0]: row[column] for row in table[3:]}
        for method in {m for d, m, _ in worst if d == name} - {"atzsl"}:
            seeds = [s for d, m, s in worst if (d, m) == (name, method) and (name, "atzsl", s) in worst]
            ours, theirs = ([worst[name, m, s] for s in seeds] for m in ("atzsl", method))
            if len(seeds) > 1:
                test = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
                mean = statistics.mean(ours) - statistics.mean(theirs)
                expected = f"{mean:+.1f} [{test.low:.1f}, {test.high:.1f}]"
                assert found[ROBUST.get(method, method)] == expected


# --- paper 2: poisoned descriptions ---------------------------------------------------------------------

POISONED = {"own": "per image, own row", "all": "per image, all rows", "universal": "universal"}
KINDS = {"random": "noise", "gradient": "gradient", "margin": "margin", "worst": "worst"}
KINDS |= {"FGSM": "fgsm", "IFGSM": "ifgsm", "WRM": "wrm"}


def poisoned_runs():
    """Per record: data set, method, seed, metrics, (threat, attack, points) → point."""
    for path in (ROOT / "results" / "poisoning").glob("*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        columns, told = run["curves"], run["parameters"]
        points = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        cells = {}
        for point in points:
            threat, attack = (
                told[key][int(point[k])] for key, k in (("threats", "threat"), ("attacks", "attack"))
            )
            cells[threat, attack, point["points"]] = point
        yield run["dataset"], run["method"], run["seed"], run["metrics"], cells


@pytest.mark.parametrize(("which", "metric"), [(0, "T1"), (1, "H")])
def test_the_tables_under_poison_follow_from_the_records(which, metric):
    values, seeds = defaultdict(list), defaultdict(int)
    for dataset, method, _, metrics, cells in poisoned_runs():
        row = dataset, ROBUST.get(method, method)
        seeds[row] += 1
        values[*row, "clean"].append(metrics[metric])
        for (threat, attack, points), point in cells.items():
            if points == 3 and attack in KINDS.values():
                values[*row, f"{POISONED[threat]}: {attack}"].append(point[metric])
    table = [t for t in tables("94_paper2_attributes") if {"clean", "seeds"} <= set(t[0])][which]
    header = zip(table[0][2:-1], table[1][2:-1], strict=True)  # threats, and attacks
    columns = [f"{threat}: {KINDS[attack]}" if attack else threat for threat, attack in header]
    assert {"clean", "per image, own row: worst", "universal: gradient"} <= set(columns)
    found, dataset = {}, ""
    for row in table[3:]:
        dataset = row[0] if len(row) == len(table[0]) else dataset
        *cells, n = row[-len(table[0][2:]) :]
        key = dataset, row[-len(table[0][1:])]
        found[key] = dict(zip(columns, cells, strict=True))
        assert int(n) == seeds[key]
    expected = {k: {c: mean_sd(values[*k, c]) if values[*k, c] else "–" for c in columns} for k in seeds}
    assert found == expected
