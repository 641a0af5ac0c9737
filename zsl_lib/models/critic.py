"""The critic of a Wasserstein GAN on features (Xian et al. 2018, §3.1), and its gradient penalty."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.models.generator import SLOPE, linear


class Critic(nn.Module):
    """D(x, c) = w₂ᵀ leaky(a) + b₂ with a = W_x x + W_c c + b₁: one hidden layer and a number without bounds.

    Slope and start are the generator's (weights N(0, 0.02²), biases 0), as in f-CLSWGAN's released code.

    Parameters
    ----------
    feature_dim, semantic_dim: D and K; with K = 0 the critic does not see c.
    hidden: width of the hidden layer.
    classes: size of an auxiliary classifier on the same hidden layer; 0: none.
    generator: source of the initial weights.
    """

    def __init__(
        self,
        feature_dim: int,
        semantic_dim: int,
        hidden: int = 4096,
        classes: int = 0,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.inner = linear(feature_dim, hidden, generator)
        # a parameter by itself, so that no gradient of W_x has to be padded to the width of both
        self.semantic = nn.Parameter(0.02 * torch.randn(hidden, semantic_dim, generator=generator))
        self.outer = linear(hidden, 1, generator)
        self.auxiliary = linear(hidden, classes, generator) if classes else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """D(x, c) ``[n]`` of features ``[n, D]`` and semantics ``[n, K]``."""
        return self.score(self.activate(x, self.condition(c)))

    def condition(self, c: Tensor) -> Tensor:
        """W_c c ``[n, hidden]``: the same for real, synthetic and interpolated features of a class."""
        return F.linear(c[:, : self.semantic.shape[1]], self.semantic)

    def activate(self, x: Tensor, from_c: Tensor) -> Tensor:
        """a ``[n, hidden]``: what goes into the LeakyReLU."""
        return self.inner(x) + from_c

    def score(self, a: Tensor) -> Tensor:
        """D ``[n]`` from a, in the precision of the weights also under autocast: D is a sum of many terms."""
        with torch.autocast(a.device.type, enabled=False):
            return self.outer(F.leaky_relu(a, SLOPE).to(self.outer.weight.dtype)).squeeze(1)

    def classify(self, a: Tensor) -> Tensor:
        """Class scores ``[n, classes]`` of the auxiliary classifier, from a."""
        assert self.auxiliary is not None
        return self.auxiliary(F.leaky_relu(a, SLOPE))

    def slope(self, a: Tensor) -> Tensor:
        """∇_x D ``[n, D]`` where the hidden layer is at a: (w₂ ∘ leaky′(a)) W_x.

        Exact, and so is its gradient in the weights: leaky′ is constant almost everywhere.
        """
        w2 = self.outer.weight
        return torch.where(a.detach() > 0, w2, SLOPE * w2) @ self.inner.weight


def penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """(‖∇_x D(x̂, c)‖ − 1)² at x̂ = α x + (1 − α) x̃, ``[n]`` (Gulrajani et al. 2017, Eq. 3).

    ``real`` and ``fake`` are the hidden layer's a at x and x̃, ``[n, hidden]``. a is affine in x, so at x̂ it
    is α a(x) + (1 − α) a(x̃), and no third product with W_x is needed. ``mix``: α ``[n, 1]``.
    """
    a = mix * real + (1 - mix) * fake
    norm = torch.linalg.vector_norm(critic.slope(a), dim=1, dtype=critic.outer.weight.dtype)
    return (norm - 1).square()
