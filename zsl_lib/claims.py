"""Claims about methods, judged by differences at the same seed: what the pages of claims share.

*A is better than B* becomes a table of gaps, one row a comparison (a data set, an attack, a rival): the mean
over seeds of A minus B with Student's interval. A claim holds where every interval lies above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from zsl_lib import record
from zsl_lib.errors import DataError

ANSWERS = ("yes", "partly", "no", "not measured yet", "not testable here")
SEEDS = 5
"""As many are wanted behind an interval; fewer are said."""

TITLES = {
    "atzsl": "ATZSL",
    "atzsl_16": "ATZSL, ρ ≤ 16",
    "baseline": "Baseline",
    "baseline2": "Baseline2",
    "baseline3": "Baseline3",
    "product_tempered": "Baseline3, tempered",
    "more_epochs": "more epochs",
    "noise": "noise",
    "dem": "DEM",
    "dem_pixels": "DEM, pixels",
    "dem_adv": "DEM-adv",
    "ldf": "LDF",
    "ldf_pixels": "LDF, pixels",
    "ldf_adv": "LDF-adv",
    "fgzsl": "FGZSL",
    "mcgzsl": "MCGZSL",
    "abp": "ABP",
}
"""Methods of ``results/robustness.py`` in print, in the order of tables; others have their own name."""


def in_order(methods: Sequence[str]) -> list[str]:
    """The methods once each, those of ``TITLES`` first and as there."""
    found = set(methods)
    return [name for name in TITLES if name in found] + sorted(found - set(TITLES))


def differences(
    runs: pd.DataFrame, metric: str, *, of: str, by: Sequence[str] = ("dataset",), level: float = 0.95
) -> pd.DataFrame:
    """``of`` minus each other method at the same seed, in each group of ``by``.

    Parameters
    ----------
    runs: one row a group, method and seed, with columns ``by``, ``method``, ``seed`` and ``metric``.
    level: of Student's two-sided interval, which is for one comparison.

    Returns
    -------
    ``by``, ``method``, ``mean``, ``low``, ``high`` and the number of ``pairs``; no interval (NaN) from one
    pair, no row from none.

    Raises
    ------
    DataError: two runs of one method and seed in a group.
    """
    keys, rows = list(by), []
    for key, part in runs.groupby(keys, sort=False):
        if part.duplicated(["method", "seed"]).any():
            raise DataError(f"differences: {key}", found="two runs of one seed", expected="one")
        wide = part.pivot(index="seed", columns="method", values=metric)
        others = [name for name in part["method"].unique() if name != of and of in wide]
        for gap, name in (((wide[of] - wide[name]).dropna(), name) for name in others):
            if len(gap):
                interval = record.mean_interval(gap, level) | {"pairs": len(gap)}
                rows.append(dict(zip(keys, key, strict=True)) | {"method": name} | interval)
    return pd.DataFrame(rows, columns=[*keys, "method", "mean", "low", "high", "pairs"])


def verdict(gaps: pd.DataFrame, above: float = 0.0) -> str:
    """``yes`` if all intervals lie above the number, ``partly`` if some do, ``no`` if none does."""
    judged = gaps["low"].dropna()
    if judged.empty:
        return "not measured yet"
    beyond = judged > above
    return "yes" if beyond.all() else "partly" if beyond.any() else "no"


def in_words(gaps: pd.DataFrame, above: float = 0.0) -> str:
    """Per data set: the difference with its interval, or the range of many and how many are above."""
    words = []
    for name, part in gaps.groupby("dataset", sort=False):
        one = f"{part['mean'].iloc[0]:+.1f}" + _interval(part.iloc[0])
        range_ = f"{part['mean'].min():+.1f} to {part['mean'].max():+.1f}"
        many = f"{range_}, {(part['low'] > above).sum()} of {len(part)} intervals above {above:g}"
        pairs = int(part["pairs"].min())
        few = f" ({pairs} seed{'s' if pairs > 1 else ''})" if pairs < SEEDS else ""
        words.append(f"{name}: {one if len(part) == 1 else many}{few}")
    return "; ".join(words) or "no records"


def _interval(gap: pd.Series) -> str:
    return "" if pd.isna(gap["low"]) else f" [{gap['low']:.1f}, {gap['high']:.1f}]"


@dataclass
class Claims:
    """What a paper claims, each with what was measured, the answer and the command."""

    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, where: str, says: str, measured: str, holds: str, command: str) -> None:
        """One claim; ``holds`` is one of ``ANSWERS``."""
        if holds not in ANSWERS:
            raise DataError(f"claim: {says}", found=holds, expected=f"one of {', '.join(ANSWERS)}")
        row = {"where": where, "says": says, "measured": measured, "holds": holds, "command": command}
        self.rows.append(row)

    def markdown(self) -> str:
        """A list, one item a claim, for ``IPython.display.Markdown``."""
        lines = []
        for row in self.rows:
            command = f" `{row['command']}`" if row["command"] else ""
            answer = f"**{row['holds'].capitalize()}.** {row['where']}: *{row['says']}.*"
            lines.append(f"- {answer} Here: {row['measured']}.{command}")
        return "\n".join(lines)

    def counts(self) -> pd.Series:
        """How many claims got each of ``ANSWERS``."""
        found = pd.Series([row["holds"] for row in self.rows], dtype=object)
        return found.value_counts().reindex(ANSWERS, fill_value=0)
