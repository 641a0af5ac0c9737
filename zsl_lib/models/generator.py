"""The conditional generator of paper 1 (ABP, ICCV 2019), Eq. 1, and its complete-data likelihood, Eq. 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.errors import DataError

SLOPE = 0.2
"""Of the hidden layer's LeakyReLU."""


def linear(inputs: int, outputs: int, generator: torch.Generator | None, std: float = 0.02) -> nn.Linear:
    """A layer that starts with weights N(0, std²), by default the released code's, and biases 0."""
    # skip_init: nn.Linear's own initialisation would draw from the global random state
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class Generator(nn.Module):
    """g_θ(c, z): one hidden layer, LeakyReLU, ReLU output (paper 1, §5.1).

    The slope and the start (weights N(0, 0.02²), biases 0) are the released code's; the paper does not
    say.

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
        self.semantic_dim, self.latent_dim = semantic_dim, latent_dim
        self.inner = linear(semantic_dim + latent_dim, hidden, generator)
        self.outer = linear(hidden, feature_dim, generator)

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        """Mean feature g_θ(c, z) ``[n, D]`` of semantics ``[n, K]`` and latents ``[n, d]``."""
        return self.decode(self.condition(c), z)

    def condition(self, c: Tensor) -> Tensor:
        """The hidden layer's share of the semantics, ``[n, hidden]``: constant while z moves."""
        return F.linear(c, self.inner.weight[:, : self.semantic_dim], self.inner.bias)

    def decode(self, from_c: Tensor, z: Tensor) -> Tensor:
        """g_θ from :meth:`condition`'s output and z. ``forward`` is their composition."""
        hidden = from_c + F.linear(z, self.inner.weight[:, self.semantic_dim :])
        return F.relu(self.outer(F.leaky_relu(hidden, SLOPE)))

    def sample(
        self, semantics: Tensor, n: int, *, sigma: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """:func:`ancestral_sample` of this network."""
        return ancestral_sample(self, semantics, n, self.latent_dim, sigma=sigma, generator=generator)


def conditioned(net: nn.Module, c: Tensor, copies: int = 1) -> Callable[[Tensor], Tensor]:
    """z ↦ g_θ(c, z) for constant θ and c, each row of ``c [n, K]`` in ``copies`` successive rows.

    A network with ``condition`` and ``decode``, like :class:`Generator`, computes c's share once; any other
    ``nn.Module`` g(c, z) is called as it is.
    """
    if hasattr(net, "condition"):
        split = cast(Generator, net)
        with torch.no_grad():
            from_c = split.condition(c).repeat_interleave(copies, dim=0)
        return lambda z: split.decode(from_c, z)
    repeated = c.repeat_interleave(copies, dim=0)
    return lambda z: net(repeated, z)


@torch.no_grad()
def ancestral_sample(
    net: nn.Module,
    semantics: Tensor,
    n: int,
    latent_dim: int,
    *,
    sigma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ancestral sampling of Eq. 1: n features a class, ``[C, n, D]``, for semantics ``[C, K]``.

    ``sigma`` is the standard deviation of ε; 0 gives the noise-free g_θ(c, z) of the released code. z comes
    from N(0, I), or from ``net.prior(c)`` where the network has one (means and log-variances ``[n, d]``).

    Raises
    ------
    DataError: n < 1, or a σ that is negative or not finite.
    """
    if n < 1:
        raise DataError("samples a class", found=n, expected="1 or more")
    if not 0 <= sigma < math.inf:
        raise DataError("sigma", found=sigma, expected="a number of 0 or more")
    device, dtype = semantics.device, semantics.dtype
    z = torch.randn(len(semantics) * n, latent_dim, generator=generator, device=device, dtype=dtype)
    if (prior := getattr(net, "prior", None)) is not None:
        mean, log_var = prior(semantics.repeat_interleave(n, dim=0))
        z = mean + (log_var / 2).exp() * z
    x = conditioned(net, semantics, n)(z)
    if sigma > 0:
        x = x + sigma * torch.randn(x.shape, generator=generator, device=device, dtype=dtype)
    return x.unflatten(0, (len(semantics), n))


def log_joint(x: Tensor, mean: Tensor, z: Tensor, sigma: float, mask: Tensor | None = None) -> Tensor:
    """log p_θ(x, z | c) without its constant (Eq. 2), ``[n]``.

    −‖M ∘ (x − g_θ(c, z))‖² / 2σ² − ‖z‖² / 2, with ``mean`` = g_θ(c, z) ``[n, D]`` and the binary mask M
    of §4.2 (``None``: everything observed). Unobserved entries of x count for nothing, whatever they hold.
    The constant is that of :func:`log_likelihood` and :func:`log_prior` together.
    """
    return -_squared_error(x, mean, mask) / (2 * sigma**2) - z.square().sum(-1) / 2


def log_likelihood(x: Tensor, mean: Tensor, sigma: float, mask: Tensor | None = None) -> Tensor:
    """log p_θ(x | c, z) = log N(x; g_θ(c, z), σ² I) of the observed entries, in nats, ``[n]``.

    Normalised: each observed entry brings −log σ√(2π). Arguments as for :func:`log_joint`, and leading
    dimensions of ``mean`` broadcast: ``[m, n, D]`` gives ``[m, n]``.
    """
    observed = x.shape[-1] if mask is None else mask.sum(-1)
    constant = observed * math.log(sigma * math.sqrt(2 * math.pi))
    return -_squared_error(x, mean, mask) / (2 * sigma**2) - constant


def log_prior(z: Tensor) -> Tensor:
    """log p(z) = log N(z; 0, I_d) in nats, normalised: ``[..., d]`` gives ``[...]``."""
    return -z.square().sum(-1) / 2 - z.shape[-1] * math.log(2 * math.pi) / 2


def _squared_error(x: Tensor, mean: Tensor, mask: Tensor | None) -> Tensor:
    residual = x - mean
    if mask is not None:
        residual = torch.where(mask, residual, 0.0)
    return residual.square().sum(-1)
