r"""ALE: attribute label embedding (Akata et al., CVPR 2013 and PAMI 2016).

Minimises over :math:`W \in R^{D \times K}` the mean over examples (x, y) of

.. math:: \frac{\beta_r}{r} \sum_{c \ne y} v_c, \qquad
          v_c = \max(0, 1 + \bar x^\top W \bar c - \bar x^\top W \bar c_y), \quad
          r = |\{c : v_c > 0\}|, \quad \beta_r = \sum_{i=1}^{r} \frac{1}{i}

with centred features and features and semantics of length 1 (:mod:`zsl_lib.embedding.ranking`): the mean
violation times a weight that grows with the rank r of the right class, but ever slower, so that the top of
the ranking counts most. 0 if r = 0. By SGD on mini-batches; the weight is constant where the objective has a
gradient. It falls by a step as r grows, so the objective is neither convex nor continuous. A batch of B costs
O(BK(D + S)), S being the number of seen classes; a score O(DK + KC).

The margin 1 is the paper's. Rate and epochs were chosen on the validation splits of hangul and CUB100.

Differences from the paper:

1. All wrong classes count, and the rank is exact; there classes are drawn until one violates the margin,
   the number of draws estimates the rank, and that one class is the step (as in WSABIE).
2. Mini-batches, not single examples; W starts at 0, not at random.
3. One kind of semantics; the class embeddings are not learned along, which the paper does where there are
   examples of every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zsl_lib.embedding.ranking import RankingModel


@dataclass(kw_only=True, eq=False)
class ALE(RankingModel):
    """The sum of all violations times β_r / r; see :class:`RankingModel` for the parameters.

    After :meth:`fit`: ``net.W`` ``[1, D, K]``.
    """

    NAME, SPACE = "ALE", "bilinear"
    GRID: ClassVar = {"lr": [0.1, 0.3, 1.0, 3.0, 10.0]}

    def _combine(self, v: Tensor) -> Tensor:
        ranks = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
        weights = torch.cat([v.new_zeros(1), (1 / ranks).cumsum(0) / ranks])  # β_r / r, from r = 0
        return weights[(v > 0).sum(1)] * v.sum(1)
