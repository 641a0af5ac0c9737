"""Choosing hyper-parameters, on validation classes and images only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.metrics import evaluate


class Learner(Protocol):
    """A recogniser that is not fitted yet."""

    def fit(self, dataset: ZSLDataset) -> Any: ...

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor: ...


def search(
    make: Callable[..., Learner], grid: Mapping[str, Sequence[Any]], dataset: ZSLDataset, metric: str = "T1"
) -> pd.DataFrame:
    """Fit ``make(**setting)`` for every setting of the grid on ``dataset.tuning_split().scaled()``.

    The scaling is the tuning split's own, so validation images have no part in it, whether or not
    ``dataset`` was scaled before.

    Returns
    -------
    One row a setting, best first by ``metric`` (T1, AU, AS or H, in per cent; ties keep the grid's order).
    """
    tuning = dataset.tuning_split().scaled()
    rows = []
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        recogniser = make(**setting)
        recogniser.fit(tuning)
        rows.append(setting | evaluate(recogniser, tuning)._asdict())
    return pd.DataFrame(rows).sort_values(metric, ascending=False, kind="stable", ignore_index=True)
