"""The benchmark's metrics in per cent: T1, AU, AS, H and Flat-hit@k; hubness, which explains some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.stats import skew
from sklearn.base import clone
from torch import Tensor

from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError


class Recogniser(Protocol):
    """Anything that scores images against class descriptions."""

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Scores ``[N, C]`` of inputs ``[N, ...]`` for candidate classes ``[C, K]``; higher is likelier."""
        ...


class Accuracies(NamedTuple):
    """T1: unseen images among unseen classes. AU, AS: unseen, seen images among all classes. H: their
    harmonic mean. All are per-class averages in per cent."""

    T1: float
    AU: float
    AS: float
    H: float


def per_class_accuracy(labels: Tensor, predictions: Tensor) -> float:
    """Mean over classes of the share of each class's examples predicted right, in per cent.

    The mean is over the classes that occur in ``labels``: a class without test examples does not count,
    and each class counts alike, however many examples it has. Equals scikit-learn's balanced accuracy.
    """
    if len(labels) == 0 or labels.shape != predictions.shape:
        found = f"{tuple(labels.shape)} labels and {tuple(predictions.shape)} predictions"
        raise DataError("per_class_accuracy", found=found, expected="equally many, at least one")
    _, index = labels.unique(return_inverse=True)
    right = torch.bincount(index, weights=(labels == predictions).double())
    return float((right / torch.bincount(index)).mean()) * 100


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), and 0 if both are 0 (paper 1, §5.3)."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def predict(recogniser: Recogniser, x: Tensor, semantics: Tensor, classes: Tensor) -> Tensor:
    """The best-scoring of ``classes`` for each row of x, int64 ``[N]``; ties go to the first."""
    scores = recogniser.scores(x, semantics[classes])
    if tuple(scores.shape) != (len(x), len(classes)):
        raise DataError("scores", found=tuple(scores.shape), expected=(len(x), len(classes)))
    return classes[scores.cpu().argmax(1)]


def evaluate(recogniser: Recogniser, dataset: ZSLDataset) -> Accuracies:
    """Zero-shot and generalised zero-shot accuracy of a fitted recogniser on the test sets.

    T1: ``test_unseen`` among the unseen classes. AU and AS: ``test_unseen`` and ``test_seen`` among all
    classes that are seen or unseen (Xian et al.'s protocol).
    """
    everything = dataset.candidates
    unseen_x, unseen_y = dataset.x(dataset.test_unseen), dataset.labels[dataset.test_unseen]
    seen_x, seen_y = dataset.x(dataset.test_seen), dataset.labels[dataset.test_seen]
    t1 = per_class_accuracy(unseen_y, predict(recogniser, unseen_x, dataset.semantics, dataset.unseen))
    both = predict(recogniser, torch.cat([unseen_x, seen_x]), dataset.semantics, everything)
    au = per_class_accuracy(unseen_y, both[: len(unseen_y)])
    as_ = per_class_accuracy(seen_y, both[len(unseen_y) :])
    return Accuracies(t1, au, as_, harmonic_mean(au, as_))


def h_by_epoch(recogniser: SyntheticRecogniser, dataset: ZSLDataset) -> list[float]:
    """H on the test sets after each epoch of the recogniser's softmax, in per cent.

    Its maximum is what the released code of paper 1 reports: an epoch chosen on test images. The last is
    :func:`evaluate`'s H. The one is for showing how far it is above the other.

    Raises
    ------
    DataError: the recogniser's GZSL classifier is not a SoftmaxClassifier.
    """
    if not isinstance(recogniser.gzsl, SoftmaxClassifier):
        kind = type(recogniser.gzsl).__name__
        raise DataError("h_by_epoch: gzsl", found=kind, expected="a SoftmaxClassifier")
    everything = dataset.candidates
    features, labels = recogniser.training_set(dataset.semantics[everything])
    tests = [(dataset.x(i).numpy(), dataset.labels[i]) for i in (dataset.test_unseen, dataset.test_seen)]
    found = []

    def look(classifier: SoftmaxClassifier) -> None:
        said = [everything[torch.from_numpy(np.asarray(classifier.predict(x)))] for x, _ in tests]
        both = (per_class_accuracy(y, s) for (_, y), s in zip(tests, said, strict=True))
        found.append(harmonic_mean(*both))

    watched = clone(recogniser.gzsl).set_params(after_epoch=look)
    watched.fit(features.numpy(), labels.numpy())
    return found


def flat_hit(scores: Tensor, labels: Tensor, k: int = 1, *, per_class: bool = False) -> float:
    """Flat-hit@k: how often the true class is among the k best-scored, in per cent. See :func:`flat_hits`."""
    return flat_hits(scores, labels, [k], per_class=per_class)[0]


def flat_hits(scores: Tensor, labels: Tensor, ks: Sequence[int], *, per_class: bool = False) -> list[float]:
    """Flat-hit@k for each of ``ks``, by one pass over the scores.

    The mean is over images, as in the literature on ImageNet-21K (Frome et al., NeurIPS 2013), whose classes
    differ a thousandfold in their numbers of images; ``per_class`` gives each the same weight, as T1 does.

    A tie counts by chance: where the true class shares its score with others and only some of these fit among
    the k best, it is that share of a hit. So constant scores give 100 k / C, not 0 or 100.

    Parameters
    ----------
    scores: ``[N, C]``, higher is likelier; the columns are the candidates. Mask a candidate with -inf.
    labels: int64 ``[N]``, the true class's column.

    Raises
    ------
    DataError: no image, shapes or labels that do not fit, a NaN, or a k not in 1 … C.
    """
    n, c = scores.shape if scores.ndim == 2 else (0, 0)
    if n == 0 or labels.shape != (n,):
        found = f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)}"
        raise DataError("flat_hit", found=found, expected="[N, C] and [N], N above 0")
    for k in ks:
        if not 1 <= k <= c:
            raise DataError("flat_hit: k", found=k, expected=f"1 to {c}, the number of candidates")
    if labels.min() < 0 or labels.max() >= c:
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise DataError("flat_hit: labels", found=found, expected=f"0..{c - 1}, columns of the scores")
    if scores.isnan().any():
        raise DataError("flat_hit: scores", found="NaN", expected="numbers, or -inf")
    own = scores.gather(1, labels[:, None])
    better, equal = (scores > own).sum(1), (scores == own).sum(1)  # the true class is among the equal ones
    hits = torch.stack([((k - better) / equal).clamp(0, 1).double() for k in ks], 1)
    hits[own.flatten() == -torch.inf] = 0
    if not per_class:
        return (hits.mean(0) * 100).tolist()
    _, index, images = labels.unique(return_inverse=True, return_counts=True)
    sums = hits.new_zeros(len(images), len(ks)).index_add_(0, index, hits)
    return ((sums / images[:, None]).mean(0) * 100).tolist()


def hubness(scores: Tensor, k: int = 1) -> float:
    """Skewness of how often each class is among the k best of an image (Radovanović et al., JMLR 2010).

    scores: ``[N, C]``. A few classes that are everybody's neighbours (hubs) make it large; 0 if all classes
    are named alike often.

    Raises
    ------
    DataError: k is not in 1 … C.
    """
    if not 1 <= k <= scores.shape[1]:
        raise DataError("hubness: k", found=k, expected=f"1 to {scores.shape[1]}, the number of classes")
    named = torch.bincount(scores.topk(k, dim=1).indices.flatten(), minlength=scores.shape[1])
    return float(skew(named.numpy())) if named.unique().numel() > 1 else 0.0
