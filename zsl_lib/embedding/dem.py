r"""DEM: semantics are mapped into the space of features (Zhang, Xiang and Gong, CVPR 2017).

A network with one hidden layer and a ReLU after each layer, :math:`f(s) = [W_2 [W_1 s + b_1]_+ + b_2]_+`,
is to hit the feature of each image from the description of its class (the paper's Eq. 1):

.. math:: \frac1n \sum_i \|x_i - f(s_{y_i})\|^2 + \lambda (\|W_1\|_F^2 + \|W_2\|_F^2)

An image belongs to the class whose f(s) is nearest. Least squares shrinks what it maps. Here this draws
the *classes* together, which hurts nobody's ranking much; in the reverse direction it draws images to the
middle, where a few classes become everybody's neighbour, the hubs (Shigeto et al., ECML PKDD 2015).

Adam on mini-batches; an epoch takes O(n/B · S · (K + D) · H + n D) for S classes, batches of B and H hidden
units: a class of a batch is mapped once, not once an image. Scores are :math:`x^\top f(s) - \|f(s)\|^2 / 2`,
which rank as the distance does: O((N D + (K + D) H) C).

Batches of 64; λ, learning rate and epochs are validation's choice.

Differences from the paper:

1. Layers have biases.
2. Features are given; the image network is not trained along, and only one source of semantics is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zsl_lib.embedding.base import GradientModel
from zsl_lib.errors import check_range
from zsl_lib.models.generator import linear


@dataclass(kw_only=True, eq=False)
class DEM(GradientModel):
    """The network f; ``scores`` are :math:`-\\|x - f(c)\\|^2 / 2`, but for a constant of each image.

    Parameters
    ----------
    lam: λ, weight of the squared weights, of 0 or more.
    hidden: H, units of the hidden layer.
    lr, epochs, batch_size, weight_decay, seed, device: see :class:`GradientModel`.
    """

    NAME, SPACE = "DEM", "features"
    GRID: ClassVar = {"lam": [3e-4, 1e-3, 3e-3], "epochs": [10, 20, 40]}

    epochs: int = 20
    lam: float = 1e-3
    hidden: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "lam")
        check_range(self, 1, "hidden", whole=True)

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        inner = linear(s.shape[1], self.hidden, rng, std=s.shape[1] ** -0.5)
        outer = linear(self.hidden, x.shape[1], rng, std=self.hidden**-0.5)
        return nn.Sequential(inner, nn.ReLU(), outer, nn.ReLU())

    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        prototypes = self.net(s)
        return x @ prototypes.T - prototypes.square().sum(1) / 2

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        error = (x - self.net(s)[y]).square().sum(1).mean()
        weights = [p for p in self.net.parameters() if p.ndim == 2]
        return error + self.lam * sum(w.square().sum() for w in weights)
