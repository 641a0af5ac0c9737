r"""CMT: features are mapped to semantics, and a detector says what is new (Socher et al., NIPS 2013).

A network with one hidden layer, :math:`f(x) = W_2 \tanh(W_1 (x - \bar x) + b_1) + b_2`, is to hit the
description of each image's class (the paper's Eq. 1):

.. math:: \frac1n \sum_i \|s_{y_i} - f(x_i)\|^2

The nearest description names the class. Where seen classes compete too, they win nearly always, since f
was fitted to hit them. Therefore each seen class y gets an isotropic Gaussian :math:`N(s_y, \sigma_y^2 I)`,
with :math:`\sigma_y^2` from the mapped images of y, and the novelty of an image is

.. math:: \nu(x) = \min_y \; \frac{\|f(x) - s_y\|^2}{2 \sigma_y^2} + K \log \sigma_y

Only seen classes compete for an image if ν is at most the threshold, a quantile of ν over training images,
and only unseen ones if it is above.

Adam on mini-batches: O(n (D + K) H) an epoch for H hidden units. Scores are minus distances, O(N (D + K) H
+ N C K), and what may not compete is put below all that may.

Learning rate, epochs and weight decay are validation's choice. Paper 1's rows of CMT are the benchmark's
without the detector: ``keep=1``.

Differences from the paper:

1. Features are the data set's, centred on ``trainval``, not learned from pixels without labels.
2. One threshold for all classes, on the log density, in place of one for each class. The paper's second
   detector, local outlier probabilities, and its mixture over both cases are left out.
3. Seen classes are told apart by their descriptions too; the paper has a softmax on features for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zsl_lib.embedding.base import GradientModel
from zsl_lib.errors import DataError, check_range
from zsl_lib.models.generator import linear


@dataclass(kw_only=True, eq=False)
class CMT(GradientModel):
    """The network f and its detector; ``scores`` are :math:`-\\|f(x) - c\\|`, below the others' if ruled out.

    A candidate is seen if its semantics are, exactly, those of a class learned from.

    Parameters
    ----------
    keep: share of the training images that the detector takes for seen, in [0, 1]; 1 switches it off.
    hidden: H, units of the hidden layer.
    lr, epochs, batch_size, weight_decay, seed, device: see :class:`GradientModel`.

    After :meth:`fit`: ``seen`` ``[S, K]``, ``variance`` ``[S]`` of the Gaussians, and the ``threshold``.
    """

    NAME, SPACE = "CMT", "semantics"
    GRID: ClassVar = {"weight_decay": [1e-3, 3e-3, 1e-2], "keep": [0.95, 0.9, 0.8]}

    epochs: int = 10
    weight_decay: float = 3e-3
    keep: float = 0.95
    hidden: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "keep")
        check_range(self, 1, "hidden", whole=True)
        if self.keep > 1:
            raise DataError("CMT.keep", found=self.keep, expected="a share, at most 1")

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        self.mean = x.mean(0).to(self.device)
        inner = linear(x.shape[1], self.hidden, rng, std=x.shape[1] ** -0.5)
        outer = linear(self.hidden, s.shape[1], rng)
        outer.bias.data.copy_(s.mean(0))
        return nn.Sequential(inner, nn.Tanh(), outer)

    def _map(self, x: Tensor) -> Tensor:
        return self.net(x - self.mean)

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return (self._map(x) - s[y]).square().sum(1).mean()

    @torch.no_grad()
    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        with torch.enable_grad():
            super()._fit(x, y, s)
        x, y, self.seen = (part.to(self.device) for part in (x, y, s))
        squares = (self._map(x) - self.seen[y]).square().mean(1)
        variance = torch.zeros(len(s), device=x.device).index_add_(0, y, squares) / torch.bincount(y)
        self.variance = variance.clamp(min=1e-9)  # a class whose images are all hit has a density, too
        self.threshold = torch.quantile(self.novelty(self._map(x)), self.keep)

    def novelty(self, mapped: Tensor) -> Tensor:
        """ν ``[n]`` of mapped images ``[n, K]``: minus the largest log density, but for a constant."""
        squares = torch.cdist(mapped, self.seen).square()
        entropy = mapped.shape[1] * self.variance.log() / 2
        return (squares / (2 * self.variance) + entropy).amin(1)

    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        mapped = self._map(x)
        scores = -torch.cdist(mapped, s)
        is_seen = (s[:, None] == self.seen).all(-1).any(1)
        if self.keep == 1 or is_seen.all() or not is_seen.any():
            return scores
        ruled_out = is_seen == (self.novelty(mapped) > self.threshold)[:, None]
        span = scores.amax(1, keepdim=True) - scores.amin(1, keepdim=True)
        return scores - ruled_out * (1 + span)
