r"""What a closed form needs of the training set: sums over images, from blocks of rows.

Of n images with D features in S classes, ESZSL, SAE and GFZSL need only

.. math:: n_c, \quad \sum_{i: y_i = c} x_i, \quad \sum_{i: y_i = c} x_i^2, \quad X^\top X,

O(n D²) operations and O(S D + D²) numbers in float64, whatever n is. Images may come in blocks from a file
that is larger than memory; a search over settings sums once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from zsl_lib.embedding.base import CompatibilityModel
from zsl_lib.errors import DataError

PIECE = 512  # rows; of 2,048 features, 8 MB in float64


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the images of S classes, all float64.

    Attributes
    ----------
    counts: ``[S]``, images of each class, at least one.
    sums, squares: ``[S, D]``, sums of their features, and of these squared.
    gram: :math:`X^\\top X` ``[D, D]``, or None where nobody asked for it.
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor
    gram: Tensor | None


def blocks(x: Any, y: Any, rows: int = 4096) -> Iterator[tuple[Any, Any]]:
    """Features ``[n, D]`` and classes ``[n]``, a tensor, an array or a memmap, in blocks of ``rows``."""
    for start in range(0, len(x), rows):
        yield x[start : start + rows], y[start : start + rows]


def collect(parts: Iterable[tuple[Any, Any]], classes: int, *, gram: bool = True) -> Moments:
    """Sum over blocks of features ``[b, D]`` and classes ``[b]`` in 0 … ``classes`` - 1.

    A block is copied to float64 in pieces that the processor's cache holds.

    Raises
    ------
    DataError: no block, shapes that do not agree, a class out of range or without an image, or a feature
        that is not finite.
    """
    found: Moments | None = None
    for number, part in enumerate(parts):
        x, y = map(_tensor, part)
        _check_block(f"block {number}", x, y, classes, found)
        if found is None:
            found = _zeros(classes, x.shape[1], gram)
        for rows, labels in zip(x.split(PIECE), y.long().split(PIECE), strict=True):
            _add(found, rows.double().contiguous(), labels)
    if found is None:
        raise DataError("blocks", found="none", expected="at least one")
    return _complete(found)


def _tensor(values: Any) -> Tensor:
    """Shared or, of what is not a tensor, copied: a file open for reading cannot be shared."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _zeros(classes: int, dim: int, gram: bool) -> Moments:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    return Moments(
        zeros(classes), zeros(classes, dim), zeros(classes, dim), zeros(dim, dim) if gram else None
    )


def _add(total: Moments, x: Tensor, y: Tensor) -> None:
    """Of the symmetric XᵀX only the lower half, in place: half the work, and no copy."""
    total.counts.index_add_(0, y, torch.ones(len(y), dtype=torch.float64))
    total.sums.index_add_(0, y, x)
    total.squares.index_add_(0, y, x.square())
    if total.gram is not None and len(x):
        dsyrk(1.0, x.numpy().T, beta=1.0, c=total.gram.numpy().T, overwrite_c=True)


def _complete(total: Moments) -> Moments:
    if not total.counts.all():
        empty = int((total.counts == 0).nonzero()[0])
        raise DataError("blocks", found=f"no image of class {empty}", expected="at least one a class")
    if total.gram is not None:
        total.gram.add_(total.gram.tril(-1).T)
    return total


def _check_block(where: str, x: Tensor, y: Tensor, classes: int, before: Moments | None) -> None:
    width = "D" if before is None else before.sums.shape[1]
    if x.ndim != 2 or y.shape != x.shape[:1] or (before is not None and x.shape[1] != width):
        found = f"{list(x.shape)} and {list(y.shape)}"
        raise DataError(where, found=found, expected=f"features [n, {width}] and classes [n]")
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= classes):
        found = f"classes {int(y.min())} to {int(y.max())}"
        raise DataError(where, found=found, expected=f"0 to {classes - 1}, rows of the semantics")
    if not x.sum(dtype=torch.float64).isfinite():  # a pass, where asking each takes five
        raise DataError(where, found="features that are not finite", expected="finite features")


class MomentModel(CompatibilityModel):
    """A compatibility model whose solution is a function of :class:`Moments`: :meth:`_solve` says which."""

    GRAM: ClassVar[bool] = True
    """Whether :math:`X^\\top X` is needed."""

    def fit_blocks(self, parts: Iterable[tuple[Any, Any]], semantics: Tensor) -> Self:
        """Learn from blocks of features ``[b, D]`` and classes ``[b]``, rows of ``semantics`` ``[S, K]``.

        Raises
        ------
        DataError: see :func:`collect` and :meth:`fit_moments`.
        """
        return self.fit_moments(collect(parts, len(semantics), gram=self.GRAM), semantics)

    def fit_moments(self, moments: Moments, semantics: Tensor) -> Self:
        """Learn from sums over the images of S classes and their semantics ``[S, K]``.

        Raises
        ------
        DataError: the two have different numbers of classes, or ``gram`` is needed and missing.
        """
        where = f"{type(self).__name__}.fit_moments"
        if semantics.ndim != 2 or len(semantics) != len(moments.counts):
            expected = f"[{len(moments.counts)}, K]"
            raise DataError(f"{where}: semantics", found=list(semantics.shape), expected=expected)
        if self.GRAM and moments.gram is None:
            raise DataError(f"{where}: gram", found=None, expected="[D, D]", hint="collect(..., gram=True)")
        self._solve(moments, semantics.double())
        self._shapes = moments.sums.shape[1:], semantics.shape[1:]
        return self

    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        self._solve(collect(blocks(x, y), len(s), gram=self.GRAM), s.double())

    @abstractmethod
    def _solve(self, moments: Moments, s: Tensor) -> None:
        """Learn from sums over the images of the seen classes and their semantics ``[S, K]``, float64."""
