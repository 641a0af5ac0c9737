"""What every compatibility model has in common: score(x, c), learned from examples of the seen classes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError, check_range

Space = Literal["semantics", "features", "bilinear", "latent"]


class CompatibilityModel(ABC):
    """A recogniser that compares an image with a class description directly.

    A subclass, in a file of its own named as the method, says how it learns (:meth:`_fit`) and how it
    compares (:meth:`_scores`). Being there puts it into :func:`zsl_lib.embedding.available`, and so into
    tests, tables and the chapter. Its hyper-parameters are keyword arguments with defaults; a method with
    randomness has ``seed`` among them.
    """

    NAME: ClassVar[str]
    """As its authors write it, e.g. ``"DeViSE"``."""
    SPACE: ClassVar[Space]
    """Where the two meet: images are mapped to semantics, semantics to features, both are joined by a
    bilinear form (or several), or both are mapped to a third, latent space."""
    GRID: ClassVar[Mapping[str, Sequence[Any]]]
    """Hyper-parameters and the values that a search tries."""

    def fit(self, dataset: ZSLDataset) -> Self:
        """Learn from ``dataset.trainval``.

        Raises
        ------
        DataError: features are incomplete (``dataset.mask``), or there are only images and the method
            needs features.
        ArithmeticError: the objective is not finite any more.
        """
        if dataset.mask is not None:
            hint = "zsl_lib.impute.fill completes them"
            raise DataError(
                f"{dataset.name}: mask", found="hidden features", expected="complete ones", hint=hint
            )
        x = dataset.x(dataset.trainval)
        self._check_input(x, f"{dataset.name}: features")
        y = torch.searchsorted(dataset.seen, dataset.labels[dataset.trainval])
        self._fit(x, y, dataset.semantics[dataset.seen])
        self._shapes = x.shape[1:], dataset.semantics.shape[1:]
        return self

    @torch.no_grad()
    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Compatibilities ``[N, C]`` of features ``[N, D]`` and semantics ``[C, K]``; higher is likelier.

        Raises
        ------
        DataError: before :meth:`fit`, or D or K is not that of the data learned from.
        """
        return self.score_function(semantics)(x)

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """x ↦ :meth:`scores` for descriptions ``[C, K]``, differentiable in x: what an attack needs."""

        def scores(x: Tensor) -> Tensor:
            self._check_shapes(x, semantics)
            return self._scores(x, semantics)

        return scores

    def _check_shapes(self, x: Tensor, semantics: Tensor) -> None:
        if not hasattr(self, "_shapes"):
            raise DataError(f"{type(self).__name__}.scores", found="no data", expected="fit() before")
        for what, given, known in zip(("x", "semantics"), (x, semantics), self._shapes, strict=True):
            if given.shape[1:] != known:
                found, expected = (
                    "[n, " + ", ".join(map(str, shape)) + "]" for shape in (given.shape[1:], known)
                )
                raise DataError(f"{type(self).__name__}.scores: {what}", found=found, expected=expected)

    @abstractmethod
    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        """Learn from features ``[n, D]``, classes ``[n]`` (rows of s) and semantics ``[S, K]``."""

    @abstractmethod
    def _scores(self, x: Tensor, s: Tensor) -> Tensor: ...

    def _check_input(self, x: Tensor, where: str) -> None:
        if x.ndim != 2:
            raise DataError(where, found="images only", expected="features [n, D]")


@dataclass(kw_only=True, eq=False)
class GradientModel(CompatibilityModel):
    """A compatibility model that learns by steps on mini-batches.

    A method that is a ``@dataclass(kw_only=True, eq=False)`` itself adds its settings as fields, gives
    these its own defaults and checks its own in ``__post_init__``.

    Parameters
    ----------
    lr, epochs, batch_size, weight_decay: of Adam, or of what :meth:`_optimiser` makes.
    seed: of initial weights and of the order of examples.
    device: ``"auto"``, ``"cpu"``, ``"cuda"``.

    After :meth:`fit`: ``net`` and ``history``, the mean loss of each epoch.
    """

    lr: float = 1e-3
    epochs: int = 50
    batch_size: int = 64
    weight_decay: float = 0.0
    seed: int = 0
    device: str | torch.device = "auto"
    net: nn.Module = field(init=False, repr=False)
    history: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = pick_device(str(self.device))
        check_range(self, 0, "lr", above=True)
        check_range(self, 0, "weight_decay")
        check_range(self, 1, "epochs", "batch_size", whole=True)

    @abstractmethod
    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        """The network for features ``[n, D]`` and seen semantics ``[S, K]``, with weights from ``rng``."""

    @abstractmethod
    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        """Compatibilities ``[n, C]``, differentiable."""

    @abstractmethod
    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        """The mean loss of a batch ``[n, D]`` with classes ``[n]``, rows of the seen semantics ``[S, K]``."""

    def _optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        rng = torch.Generator().manual_seed(self.seed)
        self.net = self._network(x, s, rng).to(self.device).train()
        x, y, s = (part.to(self.device) for part in (x, y, s))
        optimiser, self.history = self._optimiser(self.net.parameters()), []
        for epoch in range(self.epochs):
            total = torch.zeros((), device=self.device)
            for batch in torch.randperm(len(x), generator=rng).to(self.device).split(self.batch_size):
                loss = self._loss(x[batch], y[batch], s)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(batch)
            self.history.append(float(total) / len(x))
            if not math.isfinite(self.history[-1]):
                where = f"{type(self).__name__}, epoch {epoch + 1}"
                raise ArithmeticError(f"{where}: loss {self.history[-1]}; try a smaller lr than {self.lr}")
        self.net.eval()

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        return self._compare(x.to(self.device), s.to(self.device)).cpu()
