"""Filling in what is missing, so that a method for complete data can be used: the alternatives to a mask.

Paper 1 (§4.2) leaves unobserved entries out of the likelihood. Everything else needs a value for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from sklearn.impute import KNNImputer, SimpleImputer
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP
from zsl_lib.models.generator import conditioned

DONORS = 500
"""Neighbours of :func:`knn` come from so many training examples, evenly spaced: its time grows with them."""


def fill(dataset: ZSLDataset, method: str) -> ZSLDataset:
    """The data set without a mask: unobserved features are replaced, observed ones stay.

    ``method`` is a key of :data:`METHODS`. What is learned to this end, such as a mean, is learned from
    ``trainval``; a dimension that is never observed there becomes 0.

    Raises
    ------
    DataError: no such method, or no features.
    """
    if method not in METHODS:
        raise DataError("fill: method", found=repr(method), expected=f"one of {', '.join(METHODS)}")
    if dataset.features is None:
        raise DataError(f"{dataset.name}: features", found="none", expected="features to complete")
    if dataset.mask is None:
        return dataset
    filled = METHODS[method](dataset)
    return replace(dataset, features=dataset.features.where(dataset.mask, filled), mask=None)


def zero(dataset: ZSLDataset) -> Tensor:
    """0 everywhere, ``[N, D]``: the paper's data, as a method without a mask gets them."""
    return torch.zeros_like(_features(dataset))


def mean(dataset: ZSLDataset) -> Tensor:
    """The mean of each dimension's observed values in ``trainval``, ``[N, D]`` (scikit-learn)."""
    values = _with_nan(dataset)
    imputer = SimpleImputer(keep_empty_features=True).fit(values[dataset.trainval].numpy())
    return torch.from_numpy(imputer.transform(values.numpy())).float()


def class_mean(dataset: ZSLDataset) -> Tensor:
    """The mean within the class of each training example, ``[N, D]``; the whole mean where it shows none.

    Test examples, whose class nobody knows, get :func:`mean`.
    """
    filled, index = mean(dataset), dataset.trainval
    values, labels = _with_nan(dataset)[index], dataset.labels[index]
    for c in dataset.seen:
        rows = labels == c
        means = values[rows].nanmean(0)
        filled[index[rows]] = means.where(means.isfinite(), filled[index[rows]])
    return filled


def knn(dataset: ZSLDataset) -> Tensor:
    """Means over the 5 nearest training examples that show the dimension, ``[N, D]`` (scikit-learn).

    Distances are over the dimensions that both show; neighbours come from :data:`DONORS` examples.
    """
    values, index = _with_nan(dataset), dataset.trainval
    donors = index[:: max(1, len(index) // DONORS)][:DONORS]
    imputer = KNNImputer(n_neighbors=5, keep_empty_features=True).fit(values[donors].numpy())
    incomplete = values.isnan().any(1)
    filled = values.clone()
    filled[incomplete] = torch.from_numpy(imputer.transform(values[incomplete].numpy())).float()
    return filled


METHODS: dict[str, Callable[[ZSLDataset], Tensor]] = {
    "zero": zero,
    "mean": mean,
    "class_mean": class_mean,
    "knn": knn,
}
"""Name → a complete ``[N, D]`` for a data set; :func:`fill` takes from it what is unobserved."""


@torch.no_grad()
def expected(model: ABP, dataset: ZSLDataset, *, visits: int = 5) -> Tensor:
    """E[g_θ(c, z) | observed features] of the training examples, ``[n, D]``: what ABP itself would fill in.

    A mean over ``visits`` of l Langevin steps each (Eq. 6, with the mask), going on from the latents of
    training, which stay as they are. ``dataset`` is the one that the model was fitted on.
    """
    if visits < 1:
        raise DataError("expected: visits", found=visits, expected="1 or more")
    index, rng = dataset.trainval, torch.Generator(model.device).manual_seed(model.seed)
    x, c = dataset.x(index).to(model.device), dataset.semantics[dataset.labels[index]].to(model.device)
    mask = None if dataset.mask is None else dataset.mask[index].to(model.device)
    decode, z, total = conditioned(model.net, c), model.z, torch.zeros_like(x)
    for _ in range(visits):
        z, _ = model.infer(z, x, c, mask, rng)
        total += decode(z)
    return (total / visits).cpu()


def _features(dataset: ZSLDataset) -> Tensor:
    assert dataset.features is not None  # by fill
    return dataset.features


def _with_nan(dataset: ZSLDataset) -> Tensor:
    """Features with NaN for the unobserved ones, as scikit-learn wants them."""
    features = _features(dataset)
    return features if dataset.mask is None else features.where(dataset.mask, torch.nan)
