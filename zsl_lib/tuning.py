"""Choosing hyper-parameters, on validation classes and images only."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from joblib import Parallel, delayed
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.metrics import evaluate

METRICS = ["T1", "AU", "AS", "H"]
Measure = Callable[[Any, ZSLDataset], dict[str, float]]


class Learner(Protocol):
    """A recogniser that is not fitted yet."""

    def fit(self, dataset: ZSLDataset) -> Any: ...

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor: ...


def search(
    make: Callable[..., Learner],
    grid: Mapping[str, Sequence[Any]],
    dataset: ZSLDataset,
    metric: str = "T1",
    *,
    measure: Measure | None = None,
    jobs: int = 1,
    log: Path | None = None,
) -> pd.DataFrame:
    """Fit ``make(**setting)`` for every setting of the grid on ``dataset.tuning_split().scaled()``.

    The scaling is the tuning split's own, so validation images have no part in it, whether or not
    ``dataset`` was scaled before. Images without features are not scaled.

    Parameters
    ----------
    metric: T1, AU, AS, H, or ``"score"``, the mean of T1 and H.
    measure: what to measure instead: a fitted recogniser and the split ↦ numbers, ``metric`` one of them.
    jobs: settings at a time, in processes of their own.
    log: a file that takes a line of JSON a setting, as soon as it is done; what it holds is not done again.

    Returns
    -------
    One row a setting, best first by ``metric`` (in per cent; ties keep the grid's order). A setting that
    diverges (ArithmeticError) has NaN for its accuracies and comes last.

    Raises
    ------
    DataError: another metric; the log holds something else than settings of this grid.
    """
    if measure is None and metric not in (*METRICS, "score"):
        raise DataError("search: metric", found=repr(metric), expected=f"one of {', '.join(METRICS)}, score")
    tuning = dataset.tuning_split()
    tuning = tuning if tuning.features is None else tuning.scaled()
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    known = _read(log, settings) if log else {}
    todo = [setting for setting in settings if _key(setting) not in known]
    for row in Parallel(jobs, return_as="generator")(
        delayed(_try)(make, one, tuning, measure or accuracies) for one in todo
    ):
        known[_key({name: row[name] for name in grid})] = row
        if log:
            _append(log, row)
    rows = pd.DataFrame([known[_key(setting)] for setting in settings])
    if measure is None:
        rows["score"] = score(rows)
    if metric not in rows:
        expected = f"one of {', '.join(rows.columns.drop(list(grid)))}"
        raise DataError("search: metric", found=repr(metric), expected=expected)
    return rows.sort_values(metric, ascending=False, kind="stable", ignore_index=True)


def score(rows: pd.DataFrame) -> pd.Series:
    """What settings are chosen by where one has to serve both tasks: the mean of T1 and H."""
    return (rows["T1"] + rows["H"]) / 2


def accuracies(recogniser: Any, dataset: ZSLDataset) -> dict[str, float]:
    """T1, AU, AS and H."""
    return evaluate(recogniser, dataset)._asdict()


def _try(
    make: Callable[..., Learner], setting: dict[str, Any], tuning: ZSLDataset, measure: Measure
) -> dict[str, Any]:
    recogniser = make(**setting)
    try:
        recogniser.fit(tuning)
    except ArithmeticError:
        return setting | (dict.fromkeys(METRICS, math.nan) if measure is accuracies else {})
    return setting | measure(recogniser, tuning)


def _key(setting: Mapping[str, Any]) -> str:
    return json.dumps(dict(setting), sort_keys=True)


def _append(log: Path, row: Mapping[str, Any]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row)) + "\n")


def _read(log: Path, settings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of the log by setting; a last line that was cut off by a crash is taken away from the file."""
    if not log.exists():
        return {}
    text = log.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        atomic_write(log, lambda file: file.write(whole.encode()))
    expected = {_key(setting) for setting in settings}
    rows = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            key = _key({name: row[name] for name in settings[0]})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{log}, line {number}", found=line[:60], expected="a setting tried") from error
        if key not in expected:
            hint = "the grid has changed; remove the file to start anew"
            raise DataError(f"{log}, line {number}", found=key, expected="a setting of the grid", hint=hint)
        rows[key] = row
    return rows
