"""Which features are observed: masks that hide some, for learning from incomplete features (paper 1, §4.2).

A mask is bool ``[n, D]``, True where a feature is observed. Each kind says on what hiding depends: on nothing
(:func:`random`, :func:`blocks`), or on the hidden value itself (:func:`by_value`). In the terms of Rubin
(1976) the first two are missing completely at random and the last is not at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from scipy.stats import rankdata
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError


def random(features: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Each entry of ``features [n, D]`` is hidden with probability ``ratio``, whatever it holds (§5.6)."""
    _check("random", features, ratio)
    return torch.rand(features.shape, generator=generator) >= ratio


def blocks(
    features: Tensor, ratio: float | Tensor, generator: torch.Generator, *, parts: int | Tensor = 8
) -> Tensor:
    """Whole parts are hidden together, as when a bird's tail is not in the picture (§4.2).

    Parameters
    ----------
    ratio: probability with which a part is hidden; a tensor has one for each part.
    parts: the number of parts, contiguous and as equal as can be; or the part of each dimension, from 0,
        int64 ``[D]``.

    Raises
    ------
    DataError: a ratio outside [0, 1), fewer than 1 or more than D parts, or another number of ratios.
    """
    part = _parts(features, parts)
    count = int(part.max()) + 1
    rates = torch.as_tensor(ratio, dtype=torch.float64)
    for rate in rates.flatten().tolist():
        _check("blocks", features, rate)
    if rates.ndim and rates.shape != (count,):
        raise DataError(
            "blocks: ratio", found=f"shape {tuple(rates.shape)}", expected=f"({count},), one a part"
        )
    present = torch.rand(len(features), count, generator=generator) >= rates
    return present[:, part]


def by_value(features: Tensor, ratio: float, generator: torch.Generator, *, slope: float = 4.0) -> Tensor:
    """Hiding depends on the value: large ones are hidden more often, or small ones where ``slope`` < 0.

    An entry is hidden with probability sigmoid(a + slope · u): u is its rank within its dimension, from −1 to
    1 (ties share theirs), and a, one a dimension, makes the mean of the probabilities ``ratio``.
    """
    _check("by_value", features, ratio)
    ranks = torch.from_numpy(rankdata(features.numpy(), axis=0)) - 0.5
    logits = slope * (2 * ranks / len(features) - 1)
    chance = (logits + _offset(logits, ratio)).sigmoid()
    return torch.rand(features.shape, generator=generator, dtype=chance.dtype) >= chance


KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "random": random,
    "blocks": blocks,
    "large": by_value,
    "small": partial(by_value, slope=-4.0),
}
"""Name → mask of ``(features, ratio, generator)``; *large* and *small* say which values hide more often."""


def draw(kind: str, features: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """A mask of that kind of :data:`KINDS`, with its defaults."""
    if kind not in KINDS:
        raise DataError("masks.draw: kind", found=repr(kind), expected=f"one of {', '.join(KINDS)}")
    return KINDS[kind](features, ratio, generator)


def hide(dataset: ZSLDataset, mask: Tensor, rows: Tensor | None = None) -> ZSLDataset:
    """The data set with ``mask [n, D]`` on the examples ``rows [n]``: those of ``trainval`` by default.

    What was hidden before stays hidden, other examples stay as they are, and the hidden values stay in
    ``features``, where no learner looks. Call ``scaled()`` after it, so that the scaler sees observed values
    only, and ``tuning_split()`` before it, if the validation images are to stay complete.

    Raises
    ------
    DataError: no features, or a mask that is not bool of the rows' shape.
    """
    if dataset.features is None:
        raise DataError(f"{dataset.name}: features", found="none", expected="features to hide")
    index = dataset.trainval if rows is None else rows
    shape = len(index), dataset.features.shape[1]
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        found = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise DataError("hide: mask", found=found, expected=f"torch.bool of shape {shape}")
    full = (
        torch.ones_like(dataset.features, dtype=torch.bool) if dataset.mask is None else dataset.mask.clone()
    )
    full[index] &= mask
    return replace(dataset, mask=full)


def _check(where: str, features: Tensor, ratio: float) -> None:
    if features.ndim != 2:
        raise DataError(f"{where}: features", found=f"{features.ndim}-d tensor", expected="[n, D]")
    if not 0 <= ratio < 1:
        raise DataError(f"{where}: ratio", found=ratio, expected="a share in [0, 1)")


def _parts(features: Tensor, parts: int | Tensor) -> Tensor:
    """The part of each dimension, int64 ``[D]``."""
    dims = features.shape[-1]
    if isinstance(parts, int):
        if not 1 <= parts <= dims:
            raise DataError("blocks: parts", found=parts, expected=f"1 to {dims}, the number of dimensions")
        return torch.arange(dims) * parts // dims
    if parts.dtype != torch.int64 or parts.shape != (dims,) or int(parts.min()) < 0:
        found = f"{parts.dtype} of shape {tuple(parts.shape)}"
        raise DataError("blocks: parts", found=found, expected=f"torch.int64 from 0, of shape ({dims},)")
    return parts


def _offset(logits: Tensor, ratio: float) -> Tensor:
    """a ``[D]`` with mean sigmoid(logits + a) = ratio in each column, by bisection."""
    if ratio == 0:
        return logits.new_full(logits.shape[1:], -torch.inf)
    low, high = logits.new_full(logits.shape[1:], -50.0), logits.new_full(logits.shape[1:], 50.0)
    for _ in range(40):
        middle = (low + high) / 2
        over = (logits + middle).sigmoid().mean(0) > ratio
        low, high = low.where(over, middle), middle.where(over, high)
    return (low + high) / 2
