"""Recognition among many classes: features come block by block and are never all in memory.

At ImageNet's 21,000 classes, 300 synthetic features a class take 50 GB. Here a generator draws them again
whenever they are needed:

- :class:`NearestNeighbours`: exact k-NN by cosine, one product of queries and a block after the other.
- :class:`StreamedSoftmax`: a softmax whose batches are drawn afresh.
- :class:`Prototypes`: the nearest mean, the cheap baseline.
- :class:`ApproximateNeighbours`: k-NN by an index of FAISS, for queries that come again and again.

``StreamedRecogniser(model)`` stands where ``SyntheticRecogniser(model)`` does, with the same defaults.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.classify import FeatureModel, LinearSoftmax, row_key
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError, check_range

ENTRIES = 2**24  # of a block of scores; 64 MB in float32
NONE = -1  # in place of a row or a class, where there is none


class Stream:
    """What a classifier of C candidates learns from, ``block`` features at a time: real ones of the classes
    that have them, ``samples`` synthetic ones of every other.

    Each pass gives the same features. The seed decides them, and the block, which is the model's batch.

    Parameters
    ----------
    semantics: candidates ``[C, K]``.
    real: candidate → indices of its training examples in ``dataset``.

    Attributes
    ----------
    counts: int64 ``[C]``, features of each candidate.
    """

    def __init__(
        self,
        model: FeatureModel,
        semantics: Tensor,
        *,
        real: dict[int, Tensor],
        dataset: ZSLDataset,
        samples: int,
        block: int,
        seed: int,
    ) -> None:
        self.model, self.semantics, self.dataset = model, semantics, dataset
        self.samples, self.block, self.seed = samples, block, seed
        self.counts = torch.full((len(semantics),), samples)
        for i, index in real.items():
            self.counts[i] = len(index)
        made = _by_key(semantics)  # the candidates' order decides no sample
        order = sorted(real)
        self._made = made[~torch.isin(made, torch.tensor(order, dtype=torch.int64))]
        self._real = torch.cat([real[i] for i in order]) if order else self._made[:0]
        self._is_real = torch.ones(len(semantics), dtype=torch.bool).index_fill_(0, self._made, False)
        self._order = torch.cat([torch.tensor(order, dtype=torch.int64), self._made])
        self._ends = self.counts[self._order].cumsum(0)
        self._starts = torch.empty_like(self._ends)
        self._starts[self._order] = self._ends - self.counts[self._order]

    @property
    def rows(self) -> int:
        """Features of a pass."""
        return int(self._ends[-1])

    @property
    def has_real(self) -> bool:
        """Whether a candidate has training examples, as in the generalised setting."""
        return len(self._real) > 0

    @property
    def width(self) -> int:
        """D."""
        assert self.dataset.features is not None  # by the recogniser
        return self.dataset.features.shape[1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features ``[n, D]`` and their candidates ``[n]``; n is at most ``block`` or one class's samples."""
        start = 0
        for index in _parts(self._real, self.block):
            rows = torch.arange(start, start := start + len(index))
            yield self.dataset.x(index), self.labels(rows)
        rng = torch.Generator().manual_seed(self.seed)
        for classes in _parts(self._made, max(1, self.block // self.samples)):
            x = self.model.sample(self.semantics[classes], self.samples, rng)
            yield x.flatten(0, 1), classes.repeat_interleave(self.samples)

    def labels(self, rows: Tensor) -> Tensor:
        """The candidate of each row, counted from 0 in the order of a pass; :data:`NONE` stays what it is."""
        place = torch.searchsorted(self._ends, rows.clamp_min(0), right=True)
        return self._order[place].where(rows != NONE, NONE)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n features ``[n, D]`` in random order and their candidates ``[n]``, drawn with replacement.

        A candidate comes in proportion to its ``counts``; a synthetic feature is a new one each time.
        """
        label = torch.multinomial(self.counts.double(), n, replacement=True, generator=generator)
        share = torch.rand(n, generator=generator, dtype=torch.float64)
        x = torch.empty(n, self.width)
        for part in _parts(self._is_real[label].nonzero().flatten(), self.block):
            among = (share[part] * self.counts[label[part]]).long()  # all of a class alike likely
            x[part] = self.dataset.x(self._real[self._starts[label[part]] + among])
        for part in _parts((~self._is_real[label]).nonzero().flatten(), self.block):
            x[part] = self.model.sample(self.semantics[label[part]], 1, generator).flatten(0, 1)
        return x, label


class StreamClassifier(Protocol):
    """A classifier of a stream's candidates."""

    def fit(self, stream: Stream) -> Self: ...

    def scores(self, x: Tensor) -> Tensor:
        """Scores ``[N, C]`` of features ``[N, D]``, on the CPU."""
        ...

    def top(self, x: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
        """The n best scores ``[N, n]`` and their candidates ``[N, n]``, best first, without all scores."""
        ...


class _Scored:
    """A classifier that scores all candidates, some queries at a time."""

    _classes: int

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """``[n, C]`` of ``[n, D]``."""

    def scores(self, x: Tensor) -> Tensor:
        return torch.cat([self._score(part).cpu() for part in x.split(_queries(self._classes))])

    def top(self, x: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
        _check_top(self, n, self._classes, "classes")
        found = [self._score(part).topk(n) for part in x.split(_queries(self._classes))]
        values, classes = zip(*found, strict=True)
        return torch.cat(values).cpu(), torch.cat(classes).cpu()


@dataclass
class Prototypes(_Scored):
    """The cosine with the mean feature of each candidate. It keeps ``[C, D]``; one pass."""

    device: str = "auto"

    def fit(self, stream: Stream) -> Self:
        device = pick_device(self.device)
        self._classes = len(stream.counts)
        sums = torch.zeros(self._classes, stream.width, device=device)
        for x, y in stream:
            sums.index_add_(0, y.to(device), x.to(device))
        self.means_ = F.normalize(sums)  # a sum and a mean have one direction
        return self

    def _score(self, x: Tensor) -> Tensor:
        return F.normalize(x.to(self.means_.device)) @ self.means_.T


@dataclass
class StreamedSoftmax(_Scored):
    """:class:`~zsl_lib.classify.SoftmaxClassifier` on batches of fresh features.

    Its parameters mean the same: an epoch is as many features as a pass of the stream has, each drawn on its
    own. So no synthetic feature is seen twice, and a batch holds any classes: whole classes in turn would
    pull the weights to one after the other. It keeps four times ``[C, D]``: weights, gradient and Adam's
    moments.
    """

    epochs: int = 25
    batch_size: int = 300
    lr: float = 1e-3
    beta1: float = 0.5
    seed: int = 0
    device: str = "auto"

    def steps(self, stream: Stream) -> int:
        """How many batches make up the epochs."""
        return self.epochs * math.ceil(stream.rows / self.batch_size)

    def fit(self, stream: Stream, steps: int | None = None) -> Self:
        """Learn in so many steps; :meth:`steps` by default."""
        device, rng = pick_device(self.device), torch.Generator().manual_seed(self.seed)
        self._classes = len(stream.counts)
        todo = self.steps(stream) if steps is None else steps
        size = self._classes, stream.width
        layer = LinearSoftmax(*size, lr=self.lr, beta1=self.beta1, generator=rng, device=device)
        ahead = max(1, stream.block // self.batch_size)
        while todo > 0:
            x, y = stream.draw(min(ahead, todo) * self.batch_size, rng)
            for batch in zip(
                x.to(device).split(self.batch_size), y.to(device).split(self.batch_size), strict=True
            ):
                layer.step(*batch)
            todo -= ahead
        self.weight_, self.bias_ = layer.weight.detach(), layer.bias.detach()
        return self

    def _score(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight_.device), self.weight_, self.bias_).softmax(1)


class _Neighbours:
    """Votes of the k most similar features, all alike; a tie of votes goes to the first candidate."""

    k: int
    _stream: Stream

    @abstractmethod
    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine ``[N, k]`` with the k most similar features, and their rows in the stream ``[N, k]``."""

    def scores(self, x: Tensor) -> Tensor:
        """Shares of the k votes ``[N, C]``."""
        labels = self._stream.labels(self.neighbours(x)[1])
        voted = labels != NONE
        votes = torch.zeros(len(x), len(self._stream.counts))
        return votes.scatter_add_(1, labels.where(voted, 0), voted.float() / self.k)

    def top(self, x: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
        """As for every classifier; :data:`NONE` with score 0 where fewer than n candidates have a vote."""
        _check_top(self, n, self.k, "neighbours")
        labels, classes = self._stream.labels(self.neighbours(x)[1]), len(self._stream.counts)
        found = [_rank(part, classes, n) for part in labels.split(_queries(self.k**2))]
        votes, named = zip(*found, strict=True)
        return torch.cat(votes) / self.k, torch.cat(named)


@dataclass
class NearestNeighbours(_Neighbours):
    """Exact k-NN by cosine similarity (paper 1, §4.1: k = 20), as :func:`~zsl_lib.classify.knn`.

    It keeps k neighbours a query; each call of scores is a pass of the stream, so ask for all queries at
    once. Of features that are alike similar, any may be the k-th, as in scikit-learn.
    """

    k: int = 20
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range(self, 1, "k", whole=True)

    def fit(self, stream: Stream) -> Self:
        """Keep the stream.

        Raises
        ------
        DataError: it has fewer than k features.
        """
        _check_rows(self, self.k, stream)
        self._stream = stream
        return self

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        queries = F.normalize(x.to(pick_device(self.device)))
        near = queries.new_full((len(x), self.k), -torch.inf)
        rows = torch.full_like(near, NONE, dtype=torch.int64)
        start = 0
        for block, _ in self._stream:
            block = F.normalize(block.to(queries.device))
            some = _queries(len(block))
            for q, best, which in zip(queries.split(some), near.split(some), rows.split(some), strict=True):
                _keep_best(best, which, q @ block.T, start)
            start += len(block)
        return near.cpu(), rows.cpu()


@dataclass
class ApproximateNeighbours(_Neighbours):
    """k-NN by an index of FAISS (``pip install 'zsl-book[scale]'``), on the CPU.

    It is built in one pass, keeps all features in the index's own form, and is asked as often as one likes.

    Parameters
    ----------
    factory: FAISS's name of the index. None is ``IVFn,SQ8``: n = √rows cells, a byte an entry.
    probes: cells that are searched.
    seed: of the features that the cells are learned from, 40 a cell.
    """

    k: int = 20
    factory: str | None = None
    probes: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 1, "k", "probes", whole=True)

    def fit(self, stream: Stream) -> Self:
        """Build the index.

        Raises
        ------
        DataError: the stream has fewer than k features. ImportError: there is no FAISS.
        """
        _check_rows(self, self.k, stream)
        faiss, self._stream = _faiss(), stream
        cells = max(1, round(stream.rows**0.5))
        x, _ = stream.draw(40 * cells, torch.Generator().manual_seed(self.seed))
        name = f"IVF{cells},SQ8" if self.factory is None else self.factory
        self._index = faiss.index_factory(stream.width, name, faiss.METRIC_INNER_PRODUCT)
        self._index.train(_unit(x))
        for block, _ in stream:
            self._index.add(_unit(block))
        return self

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the exact ones; :data:`NONE` where the searched cells hold fewer than k."""
        if hasattr(self._index, "nprobe"):
            self._index.nprobe = self.probes
        near, rows = self._index.search(_unit(x), self.k)
        return torch.from_numpy(near), torch.from_numpy(rows)


class StreamedRecogniser:
    """:class:`~zsl_lib.classify.SyntheticRecogniser` for many classes: nothing is kept but the model, the
    training examples' numbers and what the classifiers say they keep.

    Parameters
    ----------
    model, samples, seed: as there.
    zsl, gzsl: classifiers for the two settings; :class:`NearestNeighbours` and :class:`StreamedSoftmax` by
        default.
    block: features at a time; more than the samples of a class only.
    """

    def __init__(
        self,
        model: FeatureModel,
        *,
        samples: int = 300,
        zsl: StreamClassifier | None = None,
        gzsl: StreamClassifier | None = None,
        block: int = 2048,
        seed: int = 0,
    ) -> None:
        self.model, self.samples, self.block, self.seed = model, samples, block, seed
        self.zsl = NearestNeighbours() if zsl is None else zsl
        self.gzsl = StreamedSoftmax(seed=seed) if gzsl is None else gzsl
        check_range(self, 1, "samples", "block", whole=True)

    def fit(self, dataset: ZSLDataset, **options: Any) -> StreamedRecogniser:
        """Fit the model (``options`` go to it) and note which training examples a class has."""
        self.model.fit(dataset, **options)
        return self.remember(dataset)

    def remember(self, dataset: ZSLDataset) -> StreamedRecogniser:
        """Note the training examples of each class, for a model that is fitted elsewhere.

        Raises
        ------
        DataError: the data set has no features.
        """
        if dataset.features is None:
            raise DataError(f"{dataset.name}: features", found="none", expected="features to recognise by")
        self._dataset = dataset
        labels, order = dataset.labels[dataset.trainval].sort(stable=True)
        classes, counts = labels.unique_consecutive(return_counts=True)
        parts = dataset.trainval[order].split(counts.tolist())
        self._real = {row_key(dataset.semantics[c]): part for c, part in zip(classes, parts, strict=True)}
        return self

    def stream(self, semantics: Tensor) -> Stream:
        """What a classifier of the candidates ``[C, K]`` learns from."""
        if not hasattr(self, "_real"):
            expected = "fit() or remember() before"
            raise DataError("StreamedRecogniser.stream", found="no data", expected=expected)
        keys = map(row_key, semantics)
        real = {i: self._real[key] for i, key in enumerate(keys) if key in self._real}
        size = {"samples": self.samples, "block": self.block, "seed": self.seed}
        return Stream(self.model, semantics, real=real, dataset=self._dataset, **size)

    def classifier(self, semantics: Tensor) -> StreamClassifier:
        """The setting's classifier, fitted to the candidates ``[C, K]``; ask it as often as you like."""
        stream = self.stream(semantics)
        return copy(self.gzsl if stream.has_real else self.zsl).fit(stream)

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Scores ``[N, C]`` of features ``[N, D]`` for the candidate semantics ``[C, K]``."""
        return self.classifier(semantics).scores(x)

    def top(self, x: Tensor, semantics: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
        """The n best scores ``[N, n]`` and their rows of ``semantics``, without a score of every class."""
        return self.classifier(semantics).top(x, n)


def _by_key(semantics: Tensor) -> Tensor:
    """The rows' numbers in the order of their keys, without a key of every row in memory."""
    rows = np.ascontiguousarray(semantics.float().numpy())
    return torch.from_numpy(rows.view(f"S{rows.itemsize * rows.shape[1]}").ravel().argsort(kind="stable"))


def _parts(index: Tensor, size: int) -> tuple[Tensor, ...]:
    """Parts of ``size``; torch splits nothing into one empty part."""
    return index.split(size) if len(index) else ()


def _queries(width: int) -> int:
    """How many queries at a time, if each takes so many entries."""
    return max(1, ENTRIES // width)


def _keep_best(best: Tensor, which: Tensor, similar: Tensor, start: int) -> None:
    """Bring the k best so far ``[n, k]`` up to date, in place, with rows ``start`` … of a pass ``[n, b]``."""
    k = best.shape[1]
    new, index = similar.topk(min(k, similar.shape[1]))
    both, rows = torch.cat([best, new], 1), torch.cat([which, index + start], 1)
    best[:], kept = both.topk(k)
    which[:] = rows.gather(1, kept)


def _rank(labels: Tensor, classes: int, n: int) -> tuple[Tensor, Tensor]:
    """The n candidates with most votes ``[N, n]`` of ``labels [N, k]``, and how many each has."""
    same = labels[:, :, None] == labels[:, None, :]
    first = ~same.tril(-1).any(2) & (labels != NONE)
    key = same.sum(2) * classes + (classes - 1 - labels)  # whole numbers, so that a tie has one order
    key = key.where(first, 0).topk(n).values
    votes = key // classes
    return votes, (classes - 1 - key % classes).where(votes > 0, NONE)


def _unit(x: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of length 1 for FAISS, whose inner product is then the cosine."""
    return np.ascontiguousarray(F.normalize(x).numpy(), dtype=np.float32)


def _faiss() -> Any:
    """FAISS, with torch's number of threads."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError(f"faiss: {error}; pip install 'zsl-book[scale]'") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def _check_rows(classifier: object, k: int, stream: Stream) -> None:
    if stream.rows < k:
        where = f"{type(classifier).__name__}.fit"
        raise DataError(where, found=f"{stream.rows} features", expected=f"k = {k} or more")


def _check_top(classifier: object, n: int, most: int, kind: str) -> None:
    if not 1 <= n <= most:
        where = f"{type(classifier).__name__}.top: n"
        raise DataError(where, found=n, expected=f"1 to {most}, the number of {kind}")
