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

from zsl_lib.learn.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
METRICS = ("T1", "AU", "AS", "H")
TABLES = {"90_results": "recognition", "92_paper1_claims": "generative"}
TITLES = {name: method.title for name, method in METHODS.items()}


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


def accuracies(notebook: str) -> dict[tuple[str, str, str], str]:
    """(data set, method, metric) → text, of the first table of accuracies over seeds."""
    (table,) = [t for t in tables(notebook) if {*METRICS, "seeds"} <= set(t[0])][:1]
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


@pytest.mark.parametrize("notebook", TABLES)
def test_the_table_of_accuracies_follows_from_the_records(notebook):
    expected = from_records(TABLES[notebook])
    if notebook == "92_paper1_claims":
        expected = {(d, TITLES[m], k): text for (d, m, k), text in expected.items() if m in TITLES}
    assert accuracies(notebook) == expected


def test_five_seeds_or_no_randomness_stand_behind_each_row_of_claims():
    seeds = defaultdict(set)
    for path in (ROOT / "results" / "generative").glob("*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        seeds[run["dataset"], run["method"]].add(run["seed"])
    assert seeds
    assert all(len(found) >= 5 for found in seeds.values()), seeds
