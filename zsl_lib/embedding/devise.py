r"""DeViSE: a deep visual-semantic embedding (Frome et al., NIPS 2013).

Minimises over :math:`W \in R^{D \times K}` the mean over examples (x, y) of the sum of all violations

.. math:: \sum_{c \ne y} \max(0, m - \bar x^\top W \bar c_y + \bar x^\top W \bar c)

with centred features and features and semantics of length 1 (:mod:`zsl_lib.embedding.ranking`), by SGD on
mini-batches. A batch of B costs O(BK(D + S)), S being the number of seen classes; a score O(DK + KC).

The margin 0.1 is the paper's; with W = 0 at the start only lr / margin matters, so that it is not searched.
The rate was chosen on the validation splits of hangul and CUB100.

Differences from the paper:

1. The features stay as they are; there the network is then trained through the loss too, by Adagrad.
2. All wrong classes count in each step; there, for speed, the sum over classes in random order ends after
   the first that violates the margin.
3. W starts at 0, not at random.
4. The semantics are the data set's, not word vectors of a skip-gram model.
5. The class is the one of highest score; there the nearest by a tree over unit-length word vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zsl_lib.embedding.ranking import RankingModel


@dataclass(kw_only=True, eq=False)
class DeViSE(RankingModel):
    """The sum of all violations; see :class:`RankingModel` for the parameters.

    After :meth:`fit`: ``net.W`` ``[1, D, K]``.
    """

    NAME, SPACE = "DeViSE", "bilinear"
    GRID: ClassVar = {"lr": [0.003, 0.01, 0.03, 0.1, 0.3]}

    margin: float = 0.1
    lr: float = 0.1

    def _combine(self, v: Tensor) -> Tensor:
        return v.sum(1)
