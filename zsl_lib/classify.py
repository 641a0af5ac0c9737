"""From synthetic features to predictions: k-NN and softmax (paper 1, §4.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError


class FeatureModel(Protocol):
    """A generative model of features given semantics, such as :class:`zsl_lib.learn.ABP`."""

    def fit(self, dataset: ZSLDataset) -> Any: ...

    def sample(self, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor: ...


def knn(k: int = 20) -> KNeighborsClassifier:
    """k nearest neighbours by cosine similarity, votes counted alike (paper 1, §4.1: k = 20)."""
    return KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute")


class LinearSoftmax:
    """Weights ``[C, D]``, from N(0, 0.02²), and biases ``[C]``, from 0, of a softmax that learns by Adam.

    generator: on the CPU, so that the start is the same on every device.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        lr: float,
        beta1: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        weight = torch.randn(classes, dim, generator=generator).mul_(0.02)
        self.weight = weight.to(device).requires_grad_()
        self.bias = torch.zeros(classes, device=device, requires_grad=True)
        self._adam = torch.optim.Adam([self.weight, self.bias], lr=lr, betas=(beta1, 0.999), fused=True)

    def step(self, x: Tensor, target: Tensor) -> None:
        """One step down the cross-entropy of a batch ``[n, D]`` whose classes are ``target [n]``."""
        loss = F.cross_entropy(F.linear(x, self.weight, self.bias), target)
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """A linear softmax trained with Adam, as generative zero-shot papers use it for GZSL.

    Parameters
    ----------
    epochs, batch_size, lr, beta1: of f-CLSWGAN and of paper 1's released code, but for selection: the
        last epoch is used, never the best on test.
    seed: of the initial weights and of the order of batches.
    device: ``"auto"``, ``"cpu"``, ``"cuda"``.
    after_epoch: called with the classifier after each epoch, e.g. to watch it.

    After :meth:`fit`: ``classes_`` (labels, ascending), ``weight_`` ``[C, D]`` and ``bias_`` ``[C]``.
    """

    def __init__(
        self,
        epochs: int = 25,
        batch_size: int = 300,
        lr: float = 1e-3,
        beta1: float = 0.5,
        seed: int = 0,
        device: str = "auto",
        after_epoch: Callable[[SoftmaxClassifier], Any] | None = None,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.beta1 = beta1
        self.seed = seed
        self.device = device
        self.after_epoch = after_epoch

    def fit(self, X: NDArray[np.floating], y: NDArray[np.integer]) -> SoftmaxClassifier:
        """Minimise the cross-entropy of features ``[n, D]`` with integer labels ``[n]``."""
        device, rng = pick_device(self.device), torch.Generator().manual_seed(self.seed)
        self.classes_, index = np.unique(np.asarray(y), return_inverse=True)
        x = torch.as_tensor(np.asarray(X), dtype=torch.float32, device=device)
        target = torch.from_numpy(index).to(device)
        size = len(self.classes_), x.shape[1]
        layer = LinearSoftmax(*size, lr=self.lr, beta1=self.beta1, generator=rng, device=device)
        self.weight_, self.bias_ = layer.weight, layer.bias
        for _ in range(self.epochs):
            for batch in torch.randperm(len(x), generator=rng).to(device).split(self.batch_size):
                layer.step(x[batch], target[batch])
            if self.after_epoch is not None:
                self.after_epoch(self)
        self.weight_, self.bias_ = self.weight_.detach(), self.bias_.detach()
        return self

    def predict_proba(self, X: NDArray[np.floating]) -> NDArray[np.float32]:
        """Class probabilities ``[n, C]``, columns as in ``classes_``."""
        check_is_fitted(self)
        x = torch.as_tensor(np.asarray(X), dtype=torch.float32, device=self.weight_.device)
        return F.linear(x, self.weight_, self.bias_).detach().softmax(1).cpu().numpy()

    def predict(self, X: NDArray[np.floating]) -> NDArray[np.integer]:
        """The likeliest label of each row."""
        return self.classes_[self.predict_proba(X).argmax(1)]


class SyntheticRecogniser:
    """Zero-shot recognition by a feature generator and an ordinary classifier (paper 1, §4.1).

    A candidate class that has real training features is represented by these; any other is represented
    by ``samples`` synthetic ones. So ZSL trains on synthetic features only and GZSL on real seen and
    synthetic unseen ones, each with its own classifier.

    Parameters
    ----------
    model: the generator of features.
    samples: synthetic features a class (released code: 300 on CUB and SUN, 1,500 on AwA; in paper 1's
        Fig. 4, more than 300 change nothing).
    zsl, gzsl: scikit-learn classifiers for the two settings; 20-NN and softmax by default.
    seed: of the synthetic features.
    """

    def __init__(
        self, model: FeatureModel, *, samples: int = 300, zsl: Any = None, gzsl: Any = None, seed: int = 0
    ) -> None:
        self.model, self.samples, self.seed = model, samples, seed
        self.zsl = knn() if zsl is None else zsl
        self.gzsl = SoftmaxClassifier(seed=seed) if gzsl is None else gzsl

    def fit(self, dataset: ZSLDataset, **options: Any) -> SyntheticRecogniser:
        """Fit the model (``options`` go to it) and keep the real seen features."""
        self.model.fit(dataset, **options)
        return self.remember(dataset)

    def remember(self, dataset: ZSLDataset) -> SyntheticRecogniser:
        """Keep the real seen features, for a model that is fitted elsewhere."""
        labels = dataset.labels[dataset.trainval]
        features = dataset.x(dataset.trainval)
        self._real = {row_key(dataset.semantics[c]): features[labels == c] for c in dataset.seen}
        return self

    def training_set(self, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[n, D]`` and labels ``[n]`` (rows of ``semantics``) that the classifier learns from."""
        real = {i: self._real[row_key(row)] for i, row in enumerate(semantics) if row_key(row) in self._real}
        missing = [i for i in range(len(semantics)) if i not in real]
        missing.sort(key=lambda i: row_key(semantics[i]))  # the candidates' order decides no sample
        if missing:
            rng = torch.Generator().manual_seed(self.seed)
            made = self.model.sample(semantics[missing], self.samples, rng)
            real |= dict(zip(missing, made, strict=True))
        order = sorted(real)
        labels = torch.cat([torch.full((len(real[i]),), i) for i in order])
        return torch.cat([real[i] for i in order]), labels

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Class probabilities ``[N, C]`` of features ``[N, D]`` for the candidate semantics ``[C, K]``."""
        return torch.from_numpy(self._classifier(semantics).predict_proba(x.numpy())).float()

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """x ↦ the softmax's logits ``[n, C]`` for descriptions ``[C, K]``, differentiable in features x.

        Its softmax is :meth:`scores`. The classifier is fitted here, once.

        Raises
        ------
        DataError: as :meth:`scores`, or the classifier is no SoftmaxClassifier: neighbours have no gradient.
        """
        classifier = self._classifier(semantics)
        if not isinstance(classifier, SoftmaxClassifier):
            hint = "SyntheticRecogniser(model, zsl=SoftmaxClassifier())"
            found = type(classifier).__name__
            raise DataError(
                "SyntheticRecogniser.score_function", found=found, expected="a softmax", hint=hint
            )
        return partial(F.linear, weight=classifier.weight_, bias=classifier.bias_)

    def _classifier(self, semantics: Tensor) -> Any:
        """The setting's classifier, fitted; its columns are the rows of ``semantics``."""
        if not hasattr(self, "_real"):
            raise DataError(
                "SyntheticRecogniser.scores", found="no data", expected="fit() or remember() before"
            )
        features, labels = self.training_set(semantics)
        generalised = any(row_key(row) in self._real for row in semantics)
        return clone(self.gzsl if generalised else self.zsl).fit(features.numpy(), labels.numpy())


def row_key(row: Tensor) -> bytes:
    return row.float().numpy().tobytes()
