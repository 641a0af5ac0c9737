r"""LATEM: latent embeddings, a piecewise linear compatibility (Xian et al., CVPR 2016).

The score is that of the best of H maps :math:`W_i \in R^{D \times K}`, chosen for each image and class anew:
which one is the latent variable. Minimises over all of them the mean over examples (x, y) of

.. math:: \sum_{c \ne y} \max(0, 1 + F(x, c) - F(x, c_y)), \qquad F(x, c) = \max_i \bar x^\top W_i \bar c

with centred features and features and semantics of length 1 (:mod:`zsl_lib.embedding.ranking`), by SGD on
mini-batches: each violation moves the best map of the wrong class and the best map of the right one. The
objective is not convex. A batch of B costs O(HBK(D + S)), S being the number of seen classes; a score
O(H(DK + KC)). With one map it is DeViSE with margin 1.

The margin 1 is the paper's. Rate, epochs, number of maps and their spread at the start were chosen on the
validation splits of hangul and CUB100. There the fewer maps the better: each seen class ends up with one of
them for (nearly) all its images, so that a map is fitted to few classes.

Differences from the paper:

1. All wrong classes count in each step; there one is drawn at random.
2. The number of maps is fixed and searched on validation, the first of the paper's two ways; the other
   starts with many and prunes, as it learns, those that are rarely the best.
3. Mini-batches, not single examples. The maps start as independent normal numbers of standard deviation
   0.01: they must differ, or they stay the same for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zsl_lib.embedding.ranking import Maps, RankingModel
from zsl_lib.errors import check_range

SPREAD = 0.01
"""Standard deviation of the maps' entries at the start."""


@dataclass(kw_only=True, eq=False)
class LATEM(RankingModel):
    """The sum of all violations of the best maps; ``maps`` is H, see :class:`RankingModel` for the others.

    After :meth:`fit`: ``net.W`` ``[maps, D, K]``; ``net.each(x, s)`` ``[maps, n, C]`` is what each says.
    """

    NAME, SPACE = "LATEM", "bilinear"
    GRID: ClassVar = {"maps": [2, 4, 8], "lr": [0.1, 0.3, 1.0]}

    epochs: int = 20
    maps: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 1, "maps", whole=True)

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        W = SPREAD * torch.randn(self.maps, x.shape[1], s.shape[1], generator=rng)
        return Maps(x.mean(0), W)

    def _combine(self, v: Tensor) -> Tensor:
        return v.sum(1)
