r"""What DeViSE, SJE, ALE and LATEM share: a (piecewise) bilinear score that ranks the right class first.

The score is :math:`F(x, c) = \max_i \bar x^\top W_i \bar c`, with a single map for the first three. Here
:math:`\bar x` is x less the mean of the training features, made of length 1, and :math:`\bar c` is c made of
length 1. An example x of class y has a *violation* for each class,

.. math:: v_c = \max(0, \Delta(y, c) + F(x, c) - F(x, y)), \qquad
          \Delta(y, y) = 0, \quad \Delta(y, c) = m \text{ for } c \ne y,

and a method says how they make one number. Its mean is minimised by SGD on mini-batches. A single map starts
at W = 0. From there only the step relative to the margin matters: with ``margin`` and ``lr`` times a, and
``weight_decay`` divided by a, the same steps give W times a.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zsl_lib.embedding.base import GradientModel
from zsl_lib.errors import check_range


class Maps(nn.Module):
    """The score F, with ``W`` ``[maps, D, K]`` and the ``mean`` ``[D]`` of the training features."""

    mean: Tensor

    def __init__(self, mean: Tensor, W: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.W = nn.Parameter(W)

    def each(self, x: Tensor, s: Tensor) -> Tensor:
        """What every map says, ``[maps, n, C]``."""
        return normalize(x - self.mean) @ self.W @ normalize(s).T

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Scores ``[n, C]`` of x ``[n, D]`` and semantics ``[C, K]``."""
        return self.each(x, s).amax(0)


def violations(scores: Tensor, y: Tensor, margin: float) -> Tensor:
    """By how much each class is scored too high, ``[n, C]``: 0 for the right ones y ``[n]``."""
    right = y[:, None]
    return (margin + scores - scores.gather(1, right)).clamp(min=0).scatter(1, right, 0.0)


@dataclass(kw_only=True, eq=False)
class RankingModel(GradientModel):
    """A method is :meth:`_combine`.

    Parameters
    ----------
    margin: m, above 0, in the unit of scores.
    lr, weight_decay: of SGD.

    The others are those of :class:`GradientModel`.
    """

    margin: float = 1.0
    lr: float = 1.0
    epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "margin", above=True)

    @abstractmethod
    def _combine(self, v: Tensor) -> Tensor:
        """One loss an example, ``[n]``, from its violations ``[n, S]``."""

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        return Maps(x.mean(0), torch.zeros(1, x.shape[1], s.shape[1]))

    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        return self.net(x, s)

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return self._combine(violations(self._compare(x, s), y, self.margin)).mean()

    def _optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, weight_decay=self.weight_decay)
