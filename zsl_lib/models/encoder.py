"""The inference model of a conditional variational auto-encoder (paper 1, §3.3; Sohn et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.models.generator import SLOPE, Generator, linear


class Encoder(nn.Module):
    """q_φ(z | x, c) = N(μ, diag e^v): one hidden layer on x and c, then μ and v, linear.

    Slope and start are the generator's (weights N(0, 0.02²), biases 0), so q starts close to N(0, I).

    Parameters
    ----------
    semantic_dim, latent_dim, feature_dim: K, d and D.
    hidden: width of the hidden layer.
    generator: source of the initial weights.
    """

    def __init__(
        self,
        semantic_dim: int,
        latent_dim: int,
        feature_dim: int,
        hidden: int = 4096,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.inner = linear(feature_dim + semantic_dim, hidden, generator)
        self.outer = linear(hidden, 2 * latent_dim, generator)

    def forward(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """μ and v = log σ² ``[n, d]`` for x ``[n, D]``, c ``[n, K]``; unobserved entries of x count as 0."""
        if mask is not None:
            x = torch.where(mask, x, 0.0)
        hidden = F.leaky_relu(self.inner(torch.cat([x, c], 1)), SLOPE)
        mean, log_var = self.outer(hidden).chunk(2, dim=1)
        return mean, log_var


class Autoencoder(Generator):
    """The generator of paper 1 with an encoder beside it; as a generator it is the same function.

    From the same source of randomness its generator starts with the weights of :class:`Generator`.

    Parameters
    ----------
    encoder_hidden: width of the encoder's hidden layer; the others as for :class:`Generator`.
    """

    def __init__(
        self,
        semantic_dim: int,
        latent_dim: int,
        feature_dim: int,
        hidden: int = 4096,
        encoder_hidden: int = 4096,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        dims = semantic_dim, latent_dim, feature_dim
        super().__init__(*dims, hidden, generator=generator)
        self.encoder = Encoder(*dims, encoder_hidden, generator=generator)

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p(z | c), ``[n, d]``: those of N(0, I), whatever the class."""
        zero = c.new_zeros(len(c), self.latent_dim)
        return zero, zero


class ClassAutoencoder(Autoencoder):
    """An :class:`Autoencoder` whose prior depends on the class (VZSL, Wang et al. 2018).

    p_ψ(z | c) = N(μ(c), diag e^v(c)), where μ and v are linear in c with a bias and start near 0, so the
    prior starts close to N(0, I).
    """

    def __init__(
        self,
        semantic_dim: int,
        latent_dim: int,
        feature_dim: int,
        hidden: int = 4096,
        encoder_hidden: int = 4096,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(semantic_dim, latent_dim, feature_dim, hidden, encoder_hidden, generator=generator)
        self.class_prior = linear(semantic_dim, 2 * latent_dim, generator)

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p_ψ(z | c), ``[n, d]``."""
        mean, log_var = self.class_prior(c).chunk(2, dim=1)
        return mean, log_var
