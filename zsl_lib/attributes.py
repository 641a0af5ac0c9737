r"""How well features predict attributes: probes, their quality on classes, and what a probe says of a row.

A *probe* of attribute j is a logistic regression from features to whether the class has it (paper 2, Fig. 2:
"fine-tuning the last layer"), with the logit :math:`\ell_j(x) = w_j^\top x + b_j`. All images of a class have
the same targets. A probe that knows classes therefore predicts any attribute of *these* classes, one drawn
at random as well (:func:`shuffled` makes such a table); what it says of classes that it has not learned from
is another question, and :func:`predictability` answers for the classes of whatever images it gets.

A measure is an average over classes, and its uncertainty that of another choice of classes: with C classes
there are C values of an attribute, however many images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from zsl_lib.embedding.dap import logistic
from zsl_lib.errors import DataError


def binary(table: Tensor, classes: Tensor) -> Tensor:
    """Which classes have which attributes: more than the mean over ``classes``, as DAP has it.

    bool ``[C, K]`` for a table ``[C, K]`` and int64 ``classes [k]``, usually the seen ones.
    """
    if table.ndim != 2 or not bool(table.isfinite().all()):
        raise DataError("table", found=f"shape {list(table.shape)}", expected="finite values [C, K]")
    if len(classes) == 0:
        raise DataError("classes", found="none", expected="those whose mean is the threshold")
    return table > table[classes].mean(0)


def shuffled(table: Tensor, *groups: Tensor, generator: torch.Generator) -> Tensor:
    """The control: rows of ``[C, K]`` dealt out anew within each group of classes, int64 ``[k]`` each.

    In a group, frequencies of attributes and which go together stay as they are; what an attribute has to do
    with an image is lost. Classes of no group keep their rows.
    """
    made = table.clone()
    for group in groups:
        made[group] = table[group[torch.randperm(len(group), generator=generator)]]
    return made


@dataclass(frozen=True, eq=False)
class Probes:
    """A logistic regression for each of K attributes.

    W: float64 ``[D, K]``. b: ``[K]``. prior: ``[K]``, the share of learned classes that have the attribute;
    0 or 1 if it is :attr:`constant` among them: there is no probe then, and its W and b are NaN.
    """

    W: Tensor
    b: Tensor
    prior: Tensor

    @property
    def constant(self) -> Tensor:
        """Attributes that all classes had, or none, bool ``[K]``."""
        return (self.prior == 0) | (self.prior == 1)

    def logits(self, x: Tensor) -> Tensor:
        r""":math:`\ell(x)`, float64 ``[N, K]``, of features ``[N, D]``; NaN for constant attributes."""
        _check_features(x, len(self.W))
        return x.double() @ self.W + self.b

    def probabilities(self, x: Tensor) -> Tensor:
        """p(attribute | x), ``[N, K]``; NaN for constant attributes."""
        return self.logits(x).sigmoid()

    def evidence(self, x: Tensor) -> Tensor:
        r""":math:`G_j(x) = \ell_j(x) - \log\frac{\pi_j}{1-\pi_j}`, ``[N, K]``: how far x changes the odds.

        π is the prior. DAP's score of a class with attributes a is :math:`a^\top G(x)`, but for a constant of
        the image. 0 for constant attributes: of these x says nothing.
        """
        found = self.logits(x) - self.prior.logit()
        return found.masked_fill(self.constant, 0.0)


def fit_probes(x: Tensor, labels: Tensor, table: Tensor, *, lam: float = 10.0) -> Probes:
    """Probes of all attributes from features ``[n, D]`` of classes ``labels [n]``, rows of ``[C, K]``, bool.

    lam: weight of ‖w‖²/2 beside the sum of the log losses: 1/C of scikit-learn's ``LogisticRegression``.
    The intercept is free. O(n D² + D³) and O(n D K) an iteration, all attributes at once.

    Raises
    ------
    DataError: no features ``[n, D]``, values that are not finite, labels that are no rows of the table, a
        table that is not bool, lam of 0 or less, or no attribute that varies among these classes.
    ArithmeticError: no convergence.
    """
    _check_features(x)
    _check_classes(labels, table, len(x))
    if not 0 < lam < float("inf"):
        raise DataError("lam", found=lam, expected="a number above 0")
    prior = table[labels.unique()].double().mean(0)
    vary = (prior > 0) & (prior < 1)
    if not vary.any():
        raise DataError("table", found="no attribute that varies among the classes of x", expected="one")
    w, b = logistic(x.double().numpy(), table[labels][:, vary].double().numpy(), lam)
    W = torch.full((x.shape[1], len(prior)), torch.nan, dtype=torch.float64)
    bias = torch.full_like(prior, torch.nan)
    W[:, vary], bias[vary] = torch.from_numpy(w), torch.from_numpy(b)
    return Probes(W, bias, prior)


def predictability(
    logits: Tensor,
    labels: Tensor,
    table: Tensor,
    *,
    generator: torch.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """How well logits ``[N, K]`` tell which attributes the classes of images ``labels [N]`` have.

    Classes count alike, whatever their number of images. In per cent, a row an attribute:

    have, classes: how many of the images' classes have it, of how many.
    accuracy: share of images on the right side of p = 1/2. majority: that of the better constant answer.
    balanced: the mean of the accuracies among classes that have it and among those that lack it.
    auc: chance that the logit of an image of a class that has it is above that of one of a class that lacks
        it (ties count half), the two classes drawn first. NaN if no class has it, or all do; as is balanced.
    low, high: bootstrap interval of ``auc`` at ``level``. Classes are drawn with replacement, those with and
        those without the attribute apart; their images stay as they are. NaN with fewer than two of either.

    Attributes without a probe (NaN in each image) have NaN for all that needs one.

    Raises
    ------
    DataError: shapes that do not fit, infinite logits, a column that is NaN in part, a table that is not
        bool, or fewer than two classes.
    """
    if logits.ndim != 2 or logits.shape[1] != table.shape[-1]:
        expected = f"[N, {table.shape[-1]}], a column an attribute of the table"
        raise DataError("logits", found=f"shape {list(logits.shape)}", expected=expected)
    _check_classes(labels, table, len(logits))
    missing = logits.isnan()
    if logits.isinf().any() or bool((missing.any(0) & ~missing.all(0)).any()):
        raise DataError("logits", found="infinity, or NaN for some images", expected="finite columns")
    classes, place = labels.unique(return_inverse=True)
    if len(classes) < 2 or resamples < 1 or not 0 < level < 1:
        found = f"{len(classes)} classes, {resamples} resamples, level {level}"
        expected = "2 classes or more, 1 resample or more, a level between 0 and 1"
        raise DataError("predictability", found=found, expected=expected)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    rows = []
    for logit, has in zip(logits.double().T, table[classes].T, strict=True):
        row = _rates(logit, place, has)
        if 0 < row["have"] < len(classes) and not logit.isnan().any():
            pairs = class_pairs(logit, place, has)
            row["auc"] = 100 * float(pairs.mean())
            if min(pairs.shape) > 1:
                drawn = 100 * _bootstrap(pairs, resamples, generator).quantile(ends)
                row["low"], row["high"] = drawn.tolist()
        rows.append(row)
    columns = ["have", "classes", "accuracy", "majority", "balanced", "auc", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def class_pairs(logit: Tensor, place: Tensor, has: Tensor) -> Tensor:
    """AUC ``[P, Q]`` of each class with the attribute against each without, as shares; ties count half.

    logit ``[N]``; place: int64 ``[N]``, the images' rows of has, bool ``[C]`` with P True and Q False.
    """
    mine = has[place]
    above, below = logit[mine][:, None], logit[~mine][None, :]
    wins = (above > below).double() + 0.5 * (above == below).double()
    upper, lower = (_mean_by_class(place[side], has == kind) for side, kind in ((mine, True), (~mine, False)))
    return upper @ wins @ lower.T


def _mean_by_class(place: Tensor, chosen: Tensor) -> Tensor:
    """Matrix ``[k, n]`` that averages n images within each of the k chosen classes."""
    member = (place[None, :] == chosen.nonzero()).double()
    return member / member.sum(1, keepdim=True)


def _bootstrap(pairs: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Mean of the matrix with rows and columns drawn anew, ``[resamples]``."""
    above, below = (_counts(n, resamples, generator) for n in pairs.shape)
    return ((above @ pairs) * below).sum(1) / pairs.numel()


def _counts(n: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each of n is among n draws with replacement, float64 ``[resamples, n]``."""
    drawn = torch.randint(n, (resamples, n), generator=generator)
    ones = torch.ones_like(drawn, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add(1, drawn, ones)


def _rates(logit: Tensor, place: Tensor, has: Tensor) -> dict[str, float]:
    """Counts and accuracies of one attribute, averaged over classes."""
    have, classes = int(has.sum()), len(has)
    row: dict[str, float] = {"have": have, "classes": classes}
    row["majority"] = 100 * max(have, classes - have) / classes
    if not logit.isnan().any():
        right = ((logit > 0) == has[place]).double()
        each = 100 * torch.bincount(place, weights=right) / torch.bincount(place)
        row["accuracy"] = float(each.mean())
        row["balanced"] = float(np.mean([float(each[has].mean()), float(each[~has].mean())]))
    return row


def _check_features(x: Tensor, width: int | None = None) -> None:
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != (width or x.shape[1]):
        expected = f"features [n, {width or 'D'}], n > 0"
        raise DataError("x", found=f"shape {list(x.shape)}", expected=expected)
    bad = int((~x.isfinite()).sum())
    if bad:
        raise DataError("x", found=f"{bad} NaN or infinite values", expected="finite features")


def _check_classes(labels: Tensor, table: Tensor, n: int) -> None:
    if table.dtype != torch.bool or table.ndim != 2:
        found = f"{table.dtype} {list(table.shape)}"
        raise DataError("table", found=found, expected="torch.bool [C, K]", hint="binary() makes one")
    if labels.dtype != torch.int64 or labels.shape != (n,):
        found = f"{labels.dtype} {list(labels.shape)}"
        raise DataError("labels", found=found, expected=f"torch.int64 [{n}], one an image")
    if n == 0 or labels.min() < 0 or labels.max() >= len(table):
        found = f"{int(labels.min())}..{int(labels.max())}" if n else "none"
        raise DataError("labels", found=found, expected=f"rows of the table, 0..{len(table) - 1}")
