r"""SJE: structured joint embedding (Akata et al., CVPR 2015).

A structured SVM. Minimises over :math:`W \in R^{D \times K}` the mean over examples (x, y) of the largest
violation

.. math:: \max_c \left( \Delta(y, c) + \bar x^\top W \bar c - \bar x^\top W \bar c_y \right),
          \qquad \Delta(y, c) = [c \ne y]

with centred features and features and semantics of length 1 (:mod:`zsl_lib.embedding.ranking`), by SGD on
mini-batches. It is never negative, as c = y gives 0. A batch of B costs O(BK(D + S)), S being the number of
seen classes; a score O(DK + KC). With one-hot semantics it is Crammer and Singer's multi-class SVM.

The margin 1 is the paper's. Rate and epochs were chosen on the validation splits of hangul and CUB100.

Differences from the paper:

1. One kind of semantics at a time; there several are joined, each with a map and a weight of its own.
2. Mini-batches, not single examples; W starts at 0, not at random.
3. Where several classes are the most violating, as all are at W = 0, the step is the mean of their
   subgradients, itself a subgradient: the order of classes does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zsl_lib.embedding.ranking import RankingModel


@dataclass(kw_only=True, eq=False)
class SJE(RankingModel):
    """The largest violation; see :class:`RankingModel` for the parameters.

    After :meth:`fit`: ``net.W`` ``[1, D, K]``.
    """

    NAME, SPACE = "SJE", "bilinear"
    GRID: ClassVar = {"lr": [0.1, 0.3, 1.0, 3.0, 10.0]}

    def _combine(self, v: Tensor) -> Tensor:
        return v.amax(1)
