"""One frozen, validated container for every data set of the book."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zsl_lib.errors import DataError
from zsl_lib.files import write_npy

INDEX_SETS = ("trainval", "test_seen", "test_unseen", "train", "val")
BLOCK = 2**20
"""Entries looked at at a time: a block's memory must not depend on how wide a row is.

Small, since what is freed of large blocks stays with the process."""


class Images(Protocol):
    """Images by index: ``images[idx]`` is uint8 ``[n, C, H, W]``; a plain tensor is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ZSLDataset:
    """A zero-shot recognition problem with the benchmark's index sets.

    N examples of C classes; each class has a K-dimensional description (its *semantics*: attributes or
    a text embedding). Classes of ``trainval`` are *seen*, those of ``test_unseen`` are *unseen*.

    Attributes
    ----------
    name: what :func:`zsl_lib.data.load` was asked for, e.g. ``"CUB"``.
    labels: int64 ``[N]``, row of ``semantics`` for each example.
    semantics: float32 ``[C, K]``, one row a class.
    class_names: C names.
    trainval, test_seen, test_unseen: int64 indices into the examples; disjoint.
    train, val: int64 indices of the published tuning split; may be empty. :meth:`tuning_split` makes
        them safe to use.
    features: float32 ``[N, D]`` or None.
    images: uint8 ``[N, C, H, W]`` (or float32 in [0, 1]), indexable by a tensor, or None.
    mask: bool ``[N, D]``, True where a feature is observed, or None (all observed). Features under a
        False are ignored, whatever they hold.
    attribute_names: K names, or empty.
    points: float64 ``[C]``, or None where there is no such scale (text): how many points of a scale of 0 to
        100, "in how many of 100 cases has the class this attribute", one unit of each row of ``semantics``
        is. Rows that were brought to length 1 have different ones.
    instances: facts about each example (length N each) that no learner may use as input, such as the
        typeface of a letter.
    digests: SHA-256 of the files that the data and the split were read from.

    Raises
    ------
    DataError: on construction, for any inconsistency; the message names the field.
    """

    name: str
    labels: Tensor
    semantics: Tensor
    class_names: tuple[str, ...]
    trainval: Tensor
    test_seen: Tensor
    test_unseen: Tensor
    train: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    val: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    features: Tensor | None = None
    images: Images | None = None
    mask: Tensor | None = None
    attribute_names: tuple[str, ...] = ()
    points: Tensor | None = None
    instances: Mapping[str, np.ndarray] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_examples(self)
        _check_semantics(self)
        _check_index_sets(self)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        dims = "" if self.features is None else f", D={self.features.shape[1]}"
        return (
            f"ZSLDataset({self.name}: N={len(self)}{dims}, K={self.semantics.shape[1]}, "
            f"{len(self.seen)} seen + {len(self.unseen)} unseen classes, trainval={len(self.trainval)}, "
            f"test_seen={len(self.test_seen)}, test_unseen={len(self.test_unseen)})"
        )

    @property
    def seen(self) -> Tensor:
        """Seen classes, int64, ascending: those with training examples."""
        return self.labels[self.trainval].unique()

    @property
    def unseen(self) -> Tensor:
        """Unseen classes, int64, ascending: those of ``test_unseen``."""
        return self.labels[self.test_unseen].unique()

    @property
    def candidates(self) -> Tensor:
        """Classes of the generalised task, int64, ascending: seen and unseen ones."""
        return torch.cat([self.seen, self.unseen]).sort().values

    def x(self, index: Tensor) -> Tensor:
        """Features ``[n, D]`` of the examples at ``index`` (the images if there are no features).

        Features that the mask hides are 0, as in the data that paper 1 takes from Zhu et al. (§4.2).
        """
        if self.features is not None:
            x = self.features[index]
            return x if self.mask is None else x.masked_fill(~self.mask[index], 0.0)
        assert self.images is not None  # by construction
        return self.images[index]

    def scaled(self, file: str | Path | None = None) -> ZSLDataset:
        """Min–max scaled features, and semantics of one length.

        Each feature dimension of ``trainval`` spans [0, 1].

        Paper 1's released code does so; the paper does not say.

        The scaler sees observed values of ``trainval`` only; test features may leave [0, 1]. A constant
        dimension becomes 0 on ``trainval``; masked entries become 0.

        Rows of ``semantics`` that differ in length are brought to length 1, as the benchmark's attributes
        are. Sentence embeddings differ, and are some twenty times longer; paper 1 is silent on them.

        ``file``: a new .npy that the features are written to block by block and are mapped into memory from,
        if they are too many to be held.

        Raises
        ------
        DataError: no features, or the file is there: it may be the one that these features are mapped from.
        """
        if self.features is None:
            raise DataError(f"{self.name}: features", found="none", expected="features to scale")
        if file is not None and Path(file).exists():
            raise DataError(str(file), found="a file", expected="a new one", hint="remove it if you can")
        low, span = self.observed_range()

        def scale(x: Tensor, rows: slice) -> Tensor:
            x = (x[rows] - low).div_(span)  # in float32: AWA2 has 76 million entries
            return x if self.mask is None else x.masked_fill_(~self.mask[rows], 0)

        if file is None:
            features = scale(self.features, slice(None))
        else:
            blocks = (scale(self.features, rows) for rows in _slices(self.features))
            features = write_npy(Path(file), tuple(self.features.shape), blocks)
        semantics, points = _of_one_length(self.semantics), self.points
        if points is not None and semantics is not self.semantics:
            points = points * self.semantics.double().norm(dim=1)
        return replace(self, features=features, semantics=semantics, points=points)

    def observed_range(self) -> tuple[Tensor, Tensor]:
        """Minimum and span of each dimension of trainval's observed values, ``[D]`` each.

        A span below 1e-15 counts as constant and is 1; a dimension that trainval never observes becomes 0.
        """
        assert self.features is not None  # by the caller
        low = torch.full((self.features.shape[1],), torch.inf)
        high = -low
        for i in self.trainval.sort().values.split(_rows(self.features)):  # they may lie on disk, in order
            x, hidden = self.features[i], torch.tensor(False) if self.mask is None else ~self.mask[i]
            low = low.minimum(x.masked_fill(hidden, torch.inf).amin(0))
            high = high.maximum(x.masked_fill(hidden, -torch.inf).amax(0))
        never, span = low > high, high - low
        span[span < 1e-15] = 1
        return low.masked_fill(never, 0), span.masked_fill(never, torch.inf)

    def tuning_split(self, *, holdout: float = 0.2, seed: int = 0) -> ZSLDataset:
        """The same problem one level down, for tuning: nothing of a test set is in it.

        ``trainval`` becomes ``train``, ``test_unseen`` becomes ``val``; both are first intersected with
        ``trainval``, because the published ``train_loc`` and ``val_loc`` of several benchmarks contain
        test images. ``test_seen`` becomes the remaining ``trainval`` images of train's classes where
        each of these classes has some, otherwise a seeded share ``holdout`` of train, class by class.
        """
        train, val = (_intersect(part, self.trainval) for part in (self.train, self.val))
        for key, part in (("train", train), ("val", val)):
            if len(part) == 0:
                hint = "this data set publishes no tuning split"
                raise DataError(
                    f"{self.name}: {key}", found="no index inside trainval", expected="some", hint=hint
                )
        val = val[~torch.isin(self.labels[val], self.labels[train])]
        if len(val) == 0:
            raise DataError(
                f"{self.name}: val", found="no class that train lacks", expected="classes of its own"
            )
        rest = _difference(self.trainval, torch.cat([train, val]))
        rest = rest[torch.isin(self.labels[rest], self.labels[train])]
        if len(self.labels[rest].unique()) < len(self.labels[train].unique()):
            train, rest = _stratified_holdout(train, self.labels, holdout, seed)
        empty = train[:0]
        return replace(
            self,
            name=f"{self.name}-tuning",
            trainval=train,
            test_seen=rest,
            test_unseen=val,
            train=empty,
            val=empty,
        )

    def with_seen(self, classes: Tensor) -> ZSLDataset:
        """The same unseen classes, and of the seen ones only ``classes`` (paper 1, §5.5, Fig. 5).

        There is no tuning split in it.

        Raises
        ------
        DataError: no class, or one that is not seen.
        """
        strangers = _difference(classes, self.seen)
        if len(classes) == 0 or len(strangers):
            found = f"{len(classes)} classes, {len(strangers)} of them not seen"
            raise DataError(f"{self.name}: with_seen", found=found, expected="some of the seen classes")
        kept = {key: getattr(self, key) for key in ("trainval", "test_seen")}
        kept = {key: index[torch.isin(self.labels[index], classes)] for key, index in kept.items()}
        empty = self.trainval[:0]
        return replace(self, **kept, train=empty, val=empty)


def _rows(features: Tensor) -> int:
    """How many rows of the features make a block."""
    return max(1, BLOCK // max(1, features.shape[1]))


def _slices(features: Tensor) -> Iterator[slice]:
    """All rows, a block at a time."""
    rows = _rows(features)
    return (slice(i, i + rows) for i in range(0, len(features), rows))


def _of_one_length(semantics: Tensor) -> Tensor:
    """Rows of length 1, but for rows that are 0; unchanged if all lengths agree to a thousandth."""
    lengths = semantics.norm(dim=1, keepdim=True)
    if lengths.max() - lengths.min() <= 1e-3 * lengths.max():
        return semantics
    return semantics / lengths.where(lengths > 0, 1.0)


def _intersect(a: Tensor, b: Tensor) -> Tensor:
    return a[torch.isin(a, b)]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return a[~torch.isin(a, b)]


def _stratified_holdout(index: Tensor, labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split ``index`` so that ``share`` of each class (at least one example, not all) is held out."""
    rng = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for c in labels[index].unique():
        members = index[labels[index] == c]
        members = members[torch.randperm(len(members), generator=rng)]
        n = min(max(1, round(share * len(members))), len(members) - 1)
        held.append(members[:n])
        kept.append(members[n:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def _check_examples(d: ZSLDataset) -> None:
    n = len(d.labels)
    _expect(d, "labels", d.labels.ndim == 1 and n > 0, tuple(d.labels.shape), "[N] with N > 0")
    _expect(d, "labels", d.labels.dtype == torch.int64, d.labels.dtype, torch.int64)
    has_input = d.features is not None or d.images is not None
    _expect(d, "features", has_input, "neither features nor images", "at least one")
    if d.features is not None:
        _expect(d, "features", d.features.ndim == 2, f"{d.features.ndim}-d array", "[N, D]")
        _expect(d, "features", len(d.features) == n, f"{len(d.features)} rows", f"{n}, one a label")
        _expect(d, "features", d.features.dtype == torch.float32, d.features.dtype, torch.float32)
        mask = None if d.mask is None else _checked_mask(d, d.mask, d.features)
        bad = _not_finite(d.features, mask)
        _expect(d, "features", bad == 0, f"{bad} NaN or infinite values", "finite values")
    if d.images is not None:
        _expect(d, "images", len(d.images) == n, f"{len(d.images)} images", f"{n}, one a label")
    for key, values in d.instances.items():
        _expect(d, f"instances[{key!r}]", len(values) == n, f"length {len(values)}", f"length {n}")


def _not_finite(features: Tensor, mask: Tensor | None) -> int:
    """Observed entries that are NaN or infinite, counted by blocks of rows: the features may lie on disk."""
    bad = 0
    for rows in _slices(features):
        block = ~features[rows].isfinite()
        bad += int((block if mask is None else block & mask[rows]).sum())
    return bad


def _checked_mask(d: ZSLDataset, mask: Tensor, features: Tensor) -> Tensor:
    _expect(d, "mask", mask.dtype == torch.bool, mask.dtype, torch.bool)
    shapes = tuple(mask.shape), tuple(features.shape)
    _expect(d, "mask", shapes[0] == shapes[1], f"shape {shapes[0]}", f"the features' {shapes[1]}")
    return mask


def _check_semantics(d: ZSLDataset) -> None:
    s, names = d.semantics, d.class_names
    _expect(d, "semantics", s.ndim == 2, f"{s.ndim}-d array", "[C, K]")
    _expect(d, "semantics", s.dtype == torch.float32, s.dtype, torch.float32)
    bad = int((~s.isfinite()).sum())
    _expect(d, "semantics", bad == 0, f"{bad} NaN or infinite values", "finite values")
    _expect(d, "class_names", len(names) == len(s), f"{len(names)} names", f"{len(s)}, one a class")
    if d.points is not None:
        shape = tuple(d.points.shape)
        _expect(d, "points", d.points.dtype == torch.float64, d.points.dtype, torch.float64)
        _expect(d, "points", shape == (len(s),), f"shape {shape}", f"[{len(s)}], one a class")
        usable = bool((d.points.isfinite() & (d.points > 0)).all())
        _expect(d, "points", usable, "0, negative, NaN or infinite ones", "numbers above 0")
    low, high = int(d.labels.min()), int(d.labels.max())
    in_range = low >= 0 and high < len(s)
    _expect(d, "labels", in_range, f"labels {low}..{high}", f"0..{len(s) - 1}, the rows of semantics")
    if d.attribute_names:
        k = s.shape[1]
        _expect(d, "attribute_names", len(d.attribute_names) == k, f"{len(d.attribute_names)} names", k)


def _check_index_sets(d: ZSLDataset) -> None:
    for key in INDEX_SETS:
        index = getattr(d, key)
        _expect(d, key, index.ndim == 1, f"{index.ndim}-d array", "[n]")
        _expect(d, key, index.dtype == torch.int64, index.dtype, torch.int64)
        if len(index) == 0:
            _expect(d, key, key in ("train", "val"), "no index", "at least one")
            continue
        low, high = int(index.min()), int(index.max())
        _expect(d, key, low >= 0 and high < len(d), f"indices {low}..{high}", f"0..{len(d) - 1}")
        repeated = len(index) - len(index.unique())
        _expect(d, key, repeated == 0, f"{repeated} repeated indices", "each index once")
    for a, b in (("trainval", "test_seen"), ("trainval", "test_unseen"), ("test_seen", "test_unseen")):
        shared = len(_intersect(getattr(d, a), getattr(d, b)))
        _expect(d, f"{a} and {b}", shared == 0, f"{shared} shared indices", "disjoint sets")
    both = _intersect(d.seen, d.unseen)
    names = [d.class_names[c] for c in both[:3]]
    _expect(d, "test_unseen", len(both) == 0, f"{len(both)} seen classes ({names})", "unseen classes only")
    strangers = _difference(d.labels[d.test_seen].unique(), d.seen)
    names = [d.class_names[c] for c in strangers[:3]]
    found = f"{len(strangers)} classes without training examples ({names})"
    _expect(d, "test_seen", len(strangers) == 0, found, "seen classes only")


def _expect(d: ZSLDataset, key: str, holds: bool, found: object, expected: object) -> None:
    if not holds:
        raise DataError(f"{d.name}: {key}", found=found, expected=expected)
