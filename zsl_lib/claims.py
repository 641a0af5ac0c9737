"""Claims about methods, judged by differences at the same seed: what the pages of claims share.

*A is better than B* becomes a table of gaps, one row a comparison (a data set, an attack, a rival): the mean
over seeds of A minus B with Student's interval. A claim holds where every interval lies above 0. Intervals on
neither side are no evidence for the opposite: that is an answer of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from zsl_lib import record
from zsl_lib.errors import DataError

ANSWERS = ("yes", "partly", "not shown", "no", "not measured yet", "not testable here")
SEEDS = 5
"""As many are wanted behind an interval; fewer are said."""
FEWEST = 3
"""With fewer there is no verdict: Student's interval of two values is wider than any accuracy."""
BY_CHANCE = 0.05
"""The share of intervals on one side that is no evidence: of many at 95 %, so many miss."""

TITLES = {
    "atzsl": "ATZSL",
    "atzsl_16": "ATZSL, ρ ≤ 16",
    "atzsl_own": "ATZSL, own row",
    "atzsl_several": "ATZSL, several",
    "atzsl_one": "ATZSL, one",
    "baseline": "Baseline",
    "baseline2": "Baseline2",
    "baseline3": "Baseline3",
    "baseline3_tempered": "Baseline3, tempered",
    "more_epochs": "more epochs",
    "noise": "noise",
    "dropout": "dropout",
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
"""Methods of ``results/robustness.py`` and ``poisoning.py`` in print, in the order of tables. Others have
their own name."""


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
    keys = list(by)
    cells = [*keys, "method", "seed"]
    if runs.duplicated(cells).any():
        name = dict(runs.loc[runs.duplicated(cells), cells].iloc[0])
        raise DataError(f"differences: {name}", found="two runs of one seed", expected="one")
    wide = runs.set_index(cells)[metric].unstack("method")
    if of not in wide:
        return pd.DataFrame(columns=[*keys, "method", "mean", "low", "high", "pairs"])
    gaps = wide.drop(columns=of).rsub(wide[of], axis=0).melt(ignore_index=False)
    found = intervals(gaps.set_index("method", append=True)["value"], [*keys, "method"], level)
    return runs[[*keys, "method"]].drop_duplicates().merge(found)  # in the order of the runs


def intervals(values: pd.Series, by: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """Mean and Student's interval of what is there, in each group of the levels ``by`` of the index.

    Columns: ``by``, ``mean``, ``low``, ``high``, ``pairs`` (their number); no interval (NaN) of one value.
    """
    groups = values.dropna().groupby(level=list(by), sort=False)
    found = groups.agg(mean="mean", sd="std", pairs="count").reset_index()
    half = record.half_width(found["sd"], found["pairs"], level)
    found = found.assign(low=found["mean"] - half, high=found["mean"] + half)
    return found[[*by, "mean", "low", "high", "pairs"]]


def verdict(gaps: pd.DataFrame, above: float = 0.0) -> str:
    """``yes`` if all intervals lie above the number, ``partly`` if more than ``BY_CHANCE`` do.

    Else ``no`` if more than ``BY_CHANCE`` lie below it, and ``not shown`` if neither is so. Intervals of
    ``FEWEST`` pairs or more count.
    """
    judged = _judged(gaps)
    return _answer(judged["low"] > above, judged["high"] < above)


def alike(gaps: pd.DataFrame, within: float) -> str:
    """The same for *A and B differ by less than this*: ``no`` counts intervals that lie beyond it."""
    judged = _judged(gaps)
    inside = (judged["low"] > -within) & (judged["high"] < within)
    return _answer(inside, (judged["low"] > within) | (judged["high"] < -within))


def _answer(for_it: pd.Series, against: pd.Series) -> str:
    if for_it.empty:
        return "not measured yet"
    if for_it.mean() > BY_CHANCE:
        return "yes" if for_it.all() else "partly"
    return "no" if against.mean() > BY_CHANCE else "not shown"


def strongest(gaps: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """In each group of ``by`` the rival with the smallest gap."""
    return gaps.loc[gaps.groupby(list(by), sort=False)["mean"].idxmin()] if len(gaps) else gaps


def told(gap: pd.Series) -> str:
    """``"+4.7 [2.0, 7.4]"``; without the interval where there is none."""
    interval = "" if pd.isna(gap["low"]) else f" [{gap['low']:.1f}, {gap['high']:.1f}]"
    return f"{gap['mean']:+.1f}{interval}"


def in_words(gaps: pd.DataFrame, above: float = 0.0) -> str:
    """Per data set: the difference with its interval, or the range of many and how many are above."""
    words = []
    for name, part in gaps.groupby("dataset", sort=False):
        judged = _judged(part)
        text = told(part.iloc[0])
        if len(part) > 1:
            text = f"{part['mean'].min():+.1f} to {part['mean'].max():+.1f}"
        if len(part) > 1 and len(judged):
            text += f", {(judged['low'] > above).sum()} of {len(judged)} intervals above {above:g}"
            below = (judged["high"] < above).sum()
            text += f", {below} below" if below else ""
        words.append(f"{name}: {text}{_few(part['pairs'])}")
    return "; ".join(words) or "no records"


def _judged(gaps: pd.DataFrame) -> pd.DataFrame:
    """``low`` and ``high`` of the intervals that rest on enough pairs."""
    return gaps.loc[gaps["pairs"] >= FEWEST, ["low", "high"]].dropna()


def _few(pairs: pd.Series) -> str:
    """The number of seeds, where it is smaller than wanted."""
    least, most = int(pairs.min()), int(pairs.max())
    if least >= SEEDS:
        return ""
    range_ = f"{least}" if least == most else f"{least} to {most}"
    return f" ({range_} seed{'s' if most > 1 else ''})"


def passed(runs: pd.DataFrame, questions: Mapping[str, str], datasets: Sequence[str]) -> pd.DataFrame:
    """How many runs passed each check, and which methods' did not: a row a question, a column a data set.

    questions: by the name of a column of ``runs``, which is 1 where a run passed, 0 where it did not, and NaN
    or absent where that could not be decided.
    """
    rows = []
    for column, question in questions.items():
        row = {"check": question}
        for name in datasets:
            part = runs[runs["dataset"] == name]
            asked = part.get(column, pd.Series(dtype=float)).reindex(part.index)
            failed, total = Counter(part.loc[asked == 0, "method"]), Counter(part["method"])
            words = "; ".join(f"{TITLES.get(m, m)} {n} of {total[m]}" for m, n in failed.items())
            unsure = f", {asked.isna().sum()} undecided" if asked.isna().any() else ""
            row[name] = f"{(asked == 1).sum()} of {len(part)}{unsure}" + (f"; not {words}" if words else "")
        rows.append(row)
    return pd.DataFrame(rows)


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

    def judge(
        self,
        where: str,
        says: str,
        gaps: pd.DataFrame | Mapping[str, pd.DataFrame],
        command: str,
        above: float = 0.0,
        more: str = "",
    ) -> None:
        """One claim, which holds if the gaps, or those of each measure, lie above a number.

        ``more`` is said after what was measured.
        """
        parts = gaps if isinstance(gaps, Mapping) else {"": gaps}
        words = ". ".join(f"{name}{': ' if name else ''}{in_words(g, above)}" for name, g in parts.items())
        self.add(where, says, words + more, verdict(pd.concat(parts.values()), above), command)

    def markdown(self, about: str = "") -> str:
        """A list, one item a claim whose place begins with ``about``, for ``IPython.display.Markdown``."""
        lines = []
        for row in (row for row in self.rows if row["where"].startswith(about)):
            command = f" `{row['command']}`" if row["command"] else ""
            answer = f"**{row['holds'].capitalize()}.** {row['where']}: *{row['says']}.*"
            lines.append(f"- {answer} Here: {row['measured']}.{command}")
        return "\n".join(lines)

    def counts(self) -> pd.Series:
        """How many claims got each of ``ANSWERS``."""
        found = pd.Series([row["holds"] for row in self.rows], dtype=object)
        return found.value_counts().reindex(ANSWERS, fill_value=0)
