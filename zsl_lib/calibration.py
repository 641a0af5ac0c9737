"""The balance of seen and unseen classes: calibrated stacking and the area under its curve.

Chao, Changpinyo, Gong and Sha (ECCV 2016) subtract a number γ from the scores of seen classes. Each γ gives
another pair of AU and AS; all of them together are a curve, whose area (AUSUC) judges a recogniser apart
from where its scores happen to put the balance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import auc
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.metrics import Recogniser, harmonic_mean


class Calibrated:
    """A fitted recogniser whose scores of seen classes are lowered by ``gamma``.

    Parameters
    ----------
    seen: semantics ``[S, K]`` of the seen classes; a candidate is one of them if its description is.
    gamma: in units of the recogniser's scores; chosen on validation, e.g. by :func:`best`.
    """

    def __init__(self, recogniser: Recogniser, seen: Tensor, gamma: float) -> None:
        self.recogniser, self.seen, self.gamma = recogniser, seen, gamma

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Scores ``[N, C]`` of features ``[N, D]`` for candidates ``[C, K]``."""
        is_seen = (semantics[:, None] == self.seen).all(2).any(1)
        return self.recogniser.scores(x, semantics) - self.gamma * is_seen


def seen_unseen_curve(recogniser: Recogniser, dataset: ZSLDataset) -> pd.DataFrame:
    """AU, AS and H in per cent at every γ where one of them changes.

    A test example is given to the best seen class as long as γ is below the gap between the best score
    among seen and the best among unseen classes, so nothing changes between two gaps.

    Returns
    -------
    Rows by rising γ, from −∞ (all to seen classes): each holds from its ``gamma`` to the next one's, where
    an example with a gap of just γ goes to an unseen class.
    """
    parts = [_gaps(recogniser, dataset, i) for i in (dataset.test_unseen, dataset.test_seen)]
    gammas = np.unique(np.concatenate([gap for gap, _, _ in parts]))
    au, as_ = (_share(*part, gammas) for part in parts)
    rows = {"gamma": np.append(-np.inf, gammas), "AU": au[0], "AS": as_[1]}
    table = pd.DataFrame(rows)
    table["H"] = [harmonic_mean(a, b) for a, b in zip(table["AU"], table["AS"], strict=True)]
    return table


def ausuc(curve: pd.DataFrame) -> float:
    """Area under AS as a function of AU, in per cent of the square in which both are perfect."""
    return float(auc(curve["AU"], curve["AS"])) / 100


def best(curve: pd.DataFrame) -> float:
    """The γ with the highest H: the middle of its step, so that it carries over to other images.

    Take the curve of validation classes. 0 if no γ gives an H above 0.
    """
    if curve["H"].max() == 0:
        return 0.0
    at = int(curve["H"].argmax())
    edges = curve["gamma"].iloc[at : at + 2].to_numpy()
    return float(edges[np.isfinite(edges)].mean())


def _gaps(
    recogniser: Recogniser, dataset: ZSLDataset, index: Tensor
) -> tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.bool_]]:
    """Of each example: the gap of its best scores; its class; right among unseen, among seen ``[2, n]``."""
    candidates, y = dataset.candidates, dataset.labels[index]
    scores = recogniser.scores(dataset.x(index), dataset.semantics[candidates]).cpu().double()
    is_seen = torch.isin(candidates, dataset.seen)
    top = [scores.masked_fill(hidden, -torch.inf).max(1) for hidden in (is_seen, ~is_seen)]
    right = torch.stack([candidates[t.indices] == y for t in top])
    return (top[1].values - top[0].values).numpy(), y.numpy(), right.numpy()


def _share(
    gap: NDArray[np.floating],
    y: NDArray[np.integer],
    right: NDArray[np.bool_],
    gammas: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Per-class accuracy in per cent at −∞ and each γ, by examples given to unseen, to seen classes."""
    _, classes, counts = np.unique(y, return_inverse=True, return_counts=True)
    weight = 100 / (counts[classes] * len(counts))
    at = np.searchsorted(gammas, gap) + 1
    moved = [np.bincount(at, hit * weight, len(gammas) + 1).cumsum() for hit in right]  # to unseen, by γ
    return moved[0], moved[1][-1] - moved[1]
