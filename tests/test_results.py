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

from zsl_lib.embedding import available, is_random
from zsl_lib.learn.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
METRICS = ("T1", "AU", "AS", "H")
TABLES = [
    ("90_results", 0, "recognition"),
    ("92_paper1_claims", 0, "generative"),
    ("92_paper1_claims", 1, "compatibility"),
]
"""Notebook, which of its tables of accuracies over seeds, experiment."""
TITLES = {
    "recognition": {"abp": "abp", "eszsl": "eszsl"},
    "generative": {name: method.title for name, method in METHODS.items()},
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
        texts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[html.unescape(text).strip() for text in row] for row in texts])
    return found


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
    return {
        key: f"{statistics.mean(v):.1f}" + (f" ± {statistics.stdev(v):.1f}" if len(v) > 1 else "")
        for key, v in values.items()
    }


@pytest.mark.parametrize(("notebook", "which", "experiment"), TABLES)
def test_the_table_of_accuracies_follows_from_the_records(notebook, which, experiment):
    titles = TITLES[experiment]
    expected = {
        (d, titles[m], k): text for (d, m, k), text in from_records(experiment).items() if m in titles
    }
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
