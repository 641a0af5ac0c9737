r"""LDF: given attributes and latent ones, learned together (Li, Zhang, Zhang and Huang, CVPR 2018).

An image with features θ(x) has K attributes of the user's choice, :math:`u(x) = W_{ua}^\top \theta(x)`, and
as many latent ones, :math:`v(x) = W_{la}^\top \theta(x)`. The first are to name its class, the second to be
alike within classes and different between them:

.. math:: \frac1n \sum_i -\log \frac{\exp u(x_i)^\top s_{y_i}}{\sum_c \exp u(x_i)^\top s_c}
          + \frac1{|T|} \sum_{(i, j, k) \in T} \big[ m + \|v(x_i) - v(x_j)\|^2 - \|v(x_i) - v(x_k)\|^2 \big]_+

with T the triplets of a mini-batch in which i and j are of one class and k of another. A seen class has the
latent prototype :math:`p_c`, the mean of v over its images. What has no seen class's semantics, exactly, has
:math:`p = \sum_c \beta_c p_c`, where β describes it by the seen classes,

.. math:: \beta = \arg\min \|s - \sum_c \beta_c s_c\|^2 + \lambda \|\beta\|^2

The score is the sum of both compatibilities, :math:`u(x)^\top s + v(x)^\top p`.

Adam on mini-batches of B: O(n D K + n B K + n B² / S) an epoch, the last for triplets; prototypes
O(S³ + S² C), scores O(N K (D + C)). The margin is 1, the rest is validation's choice (at a rate of 1e-3
T1 differs by points from seed to seed). Differences from the paper:

1. One scale: the zoom network ZNet, which finds a region to look at again, is left out.
2. θ is the identity, but for data with images only: a network trained along. All triplets of a batch count.
3. Triplets leave the origin of v open, on which inner products depend: it is the mean over images here.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.embedding.base import GradientModel
from zsl_lib.errors import DataError, check_range
from zsl_lib.models.backbone import SmallResNet, hangul_backbone
from zsl_lib.models.generator import linear


@dataclass(kw_only=True, eq=False)
class LDF(GradientModel):
    """W_ua, W_la and, for images, θ; ``scores`` are :math:`u(x)^\\top c + v(x)^\\top p`.

    Parameters
    ----------
    margin: m, in squared units of v; of 0 or more.
    lam: λ, above 0.
    backbone: θ for a data set of images alone; a copy is trained. None: :func:`hangul_backbone`.
    lr, epochs, batch_size, weight_decay, seed, device: see :class:`GradientModel`.

    After :meth:`fit`: ``seen`` ``[S, K]`` and ``prototypes`` ``[S, K]``.
    """

    NAME, SPACE = "LDF", "latent"
    GRID: ClassVar = {"weight_decay": [1e-4, 1e-3, 1e-2], "lam": [0.01, 0.1, 1.0]}

    lr: float = 3e-4
    epochs: int = 40
    weight_decay: float = 1e-3
    margin: float = 1.0
    lam: float = 0.1
    backbone: SmallResNet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "margin")
        check_range(self, 0, "lam", above=True)

    def _check_input(self, x: Tensor, where: str) -> None:
        if self.backbone and x.ndim == 2:
            raise DataError(where, found="features", expected="none (None), but images, for a backbone")

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        self.theta = deepcopy(self.backbone or hangul_backbone()) if x.ndim == 4 else None
        width = self.theta.features(x[:1]).shape[1] if self.theta else x.shape[1]
        self.heads = linear(width, 2 * s.shape[1], rng)
        return nn.ModuleList([self.heads, *([self.theta] if self.theta else [])])

    def _attributes(self, x: Tensor) -> tuple[Tensor, ...]:
        """u and v ``[n, K]`` of features or images."""
        return self.heads(self.theta.features(x) if self.theta else x).chunk(2, dim=1)

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        u, v = self._attributes(x)
        return F.cross_entropy(u @ s.T, y) + triplet(v, y, self.margin)

    @torch.no_grad()
    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        with torch.enable_grad():
            super()._fit(x, y, s)
        self.seen, y = s.to(self.device), y.to(self.device)
        v = torch.cat([self._attributes(part.to(self.device))[1] for part in x.split(512)])
        self.heads.bias[s.shape[1] :] -= v.mean(0)
        sums = torch.zeros_like(self.seen).index_add_(0, y, v - v.mean(0))
        self.prototypes = sums / torch.bincount(y)[:, None]

    def _latent(self, s: Tensor) -> Tensor:
        """Latent prototypes ``[C, K]`` of classes with semantics ``[C, K]``."""
        gram = self.seen @ self.seen.T + self.lam * torch.eye(len(self.seen), device=s.device)
        beta = torch.linalg.solve(gram, self.seen @ s.T).T
        same = (s[:, None] == self.seen).all(-1)
        known = self.prototypes[same.int().argmax(1)]
        return torch.where(same.any(1, keepdim=True), known, beta @ self.prototypes)

    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        parts = [self._attributes(part) for part in x.split(512)]
        return torch.cat([u @ s.T + v @ self._latent(s).T for u, v in parts])


def triplet(v: Tensor, y: Tensor, margin: float) -> Tensor:
    """The mean hinge over all triplets of a batch ``[n, K]`` with classes ``[n]``; 0 if there is none."""
    lengths = v.square().sum(1)
    squares = lengths[:, None] + lengths - 2 * v @ v.T
    same = y[:, None] == y
    i, j = (same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)).nonzero(as_tuple=True)
    hinge = (margin + squares[i, j][:, None] - squares[i]).clamp(min=0)
    return (hinge * ~same[i]).sum() / (~same[i]).sum().clamp(min=1)
