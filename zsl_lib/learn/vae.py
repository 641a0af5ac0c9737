"""A conditional variational auto-encoder (Kingma & Welling 2014, Sohn et al. 2015) with paper 1's generator.

§3.3 of the paper compares its own algorithm with it. An encoder q_φ(z | x, c) stands where alternating
back-propagation has Langevin dynamics, and θ and φ climb a lower bound of log p_θ(x | c): the ELBO, or the
importance-weighted bound (IWAE) of Burda et al. 2016. :class:`VZSL` is the variational method of §5's tables.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.learner import FeatureLearner, Training
from zsl_lib.models.encoder import Autoencoder, ClassAutoencoder
from zsl_lib.models.generator import log_likelihood


class Variational(Protocol):
    """What the bounds need: a generator g(c, z), an encoder and a prior, both diagonal normals.

    ``encoder(x, c, mask)`` and ``prior(c)`` return means and log-variances ``[n, d]``.
    """

    def __call__(self, c: Tensor, z: Tensor) -> Tensor: ...

    def encoder(self, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]: ...

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]: ...


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mean, diag e^log_var), ``[..., n]`` for z ``[..., n, d]``."""
    square = (z - mean).square() / log_var.exp()
    return -0.5 * (square + log_var + math.log(2 * math.pi)).sum(-1)


def kl_normal(mean: Tensor, log_var: Tensor, to_mean: Tensor, to_log_var: Tensor) -> Tensor:
    """KL(N(mean, diag e^log_var) ‖ N(to_mean, diag e^to_log_var)) in nats, ``[n]``."""
    ratio = (log_var - to_log_var).exp() + (mean - to_mean).square() / to_log_var.exp()
    return 0.5 * (ratio - 1 + to_log_var - log_var).sum(-1)


class Bounds(NamedTuple):
    """Lower bounds of log p_θ(x | c) by k draws of z from q_φ(z | x, c), in nats.

    log_likelihood: log p_θ(x | c, z) of each draw, ``[k, n]``.
    log_weights: log p_θ(x, z | c) − log q_φ(z | x, c) of each, ``[k, n]``.
    kl: KL(q_φ(z | x, c) ‖ p(z | c)), exactly, ``[n]``.
    posterior: mean and log-variance of q_φ(z | x, c), ``[n, d]`` each.
    """

    log_likelihood: Tensor
    log_weights: Tensor
    kl: Tensor
    posterior: tuple[Tensor, Tensor]

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound E_q log p_θ(x | c, z) − KL, its mean over the draws, ``[n]``."""
        return self.log_likelihood.mean(0) - self.kl

    @property
    def iwae(self) -> Tensor:
        """The log of the mean weight, ``[n]`` (Burda et al. 2016, Eq. 8): in expectation the ELBO for k = 1,
        and rising with k to log p_θ(x | c)."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))


def bounds(
    net: Variational,
    x: Tensor,
    c: Tensor,
    sigma: float,
    mask: Tensor | None = None,
    *,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Bounds:
    """Both bounds of n examples, with gradients in θ and φ through the draws z = μ + σ_q ∘ ε.

    x, c: ``[n, D]`` and ``[n, K]``. sigma: σ of Eq. 1. mask: True where x is observed. samples: k.
    """
    mean, log_var = net.encoder(x, c, mask)
    prior = net.prior(c)
    shape = samples, *mean.shape
    noise = torch.randn(shape, generator=generator, device=x.device, dtype=mean.dtype)
    z = mean + (log_var / 2).exp() * noise
    means = net(c.repeat(samples, 1), z.flatten(0, 1)).unflatten(0, shape[:2])
    fit = log_likelihood(x, means, sigma, mask)
    weights = fit + log_normal(z, *prior) - log_normal(z, mean, log_var)
    return Bounds(fit, weights, kl_normal(mean, log_var, *prior), (mean, log_var))


@dataclass(frozen=True)
class CVAEConfig:
    """Hyper-parameters; the defaults of those that ABP has too are :class:`~zsl_lib.learn.abp.ABPConfig`'s.

    encoder_hidden: width of the encoder. importance_samples: k; 1 maximises the ELBO, more the bound of
    Burda et al. 2016.

    Raises
    ------
    DataError: a value out of its range.
    """

    latent_dim: int = 10
    hidden: int = 4096
    encoder_hidden: int = 4096
    sigma: float = 0.3
    importance_samples: int = 1
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    epochs: int = 50

    def __post_init__(self) -> None:
        sizes = "latent_dim", "hidden", "encoder_hidden", "importance_samples", "batch_size"
        check_range(self, 1, *sizes, whole=True)
        check_range(self, 0, "epochs", whole=True)
        check_range(self, 0, "lr", "weight_decay")
        check_range(self, 0, "sigma", above=True)


class CVAE(FeatureLearner):
    """The generator of paper 1 learned with an encoder. See :class:`FeatureLearner`.

    Parameters
    ----------
    network: makes another network, with ``encoder`` and ``prior`` as in :class:`Variational`: with a prior
        that depends on the class, for instance.

    Attributes
    ----------
    net: the generator, an :class:`~zsl_lib.models.encoder.Autoencoder` with its ``encoder``.
    history: one dict an epoch, see :meth:`_epoch`.
    """

    Config = CVAEConfig
    architecture: ClassVar[type[Autoencoder]] = Autoencoder
    config: CVAEConfig

    def learn_bound(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """An Adam step on θ and φ. Returns the bound and KL(q ‖ p(z)) before it, ``[n]`` each."""
        k, net = self.config.importance_samples, cast(Variational, self.net)
        found = bounds(net, x, c, self.config.sigma, mask, samples=k, generator=self._rng)
        bound = self._objective(found)
        self._adam.zero_grad(set_to_none=True)
        (-bound.mean()).backward()
        self._adam.step()
        return bound.detach(), found.kl.detach()

    def _objective(self, found: Bounds) -> Tensor:
        """What an Adam step climbs, ``[n]``."""
        return found.elbo if self.config.importance_samples == 1 else found.iwae

    @torch.no_grad()
    def encode(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q_φ(z | x, c), ``[n, d]``, for features and semantics on ``device``."""
        return cast(Variational, self.net).encoder(x, c, mask)

    def _epoch(self, data: Training) -> dict[str, float]:
        """One pass over the training examples, in a fresh random order.

        Returns loss (mean negative bound, normalised, in nats), kl (mean KL(q ‖ p(z))) and seconds.
        """
        start, n = time.perf_counter(), len(data.x)
        sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        order = torch.randperm(n, generator=self._rng, device=self.device)
        for index in order.split(self.config.batch_size):
            bound, kl = self.learn_bound(*data.batch(index))
            sums += torch.stack([-bound.sum(), kl.sum()]).double()
        loss, kl_mean = (sums / n).tolist()
        seconds = time.perf_counter() - start
        return {"epoch": len(self.history) + 1, "loss": loss, "kl": kl_mean, "seconds": seconds}

    def _begin(self, data: Training, rng: torch.Generator) -> None:
        if not hasattr(self.net, "encoder") or not hasattr(self.net, "prior"):
            raise DataError("CVAE: network", found=type(self.net).__name__, expected="an encoder and a prior")

    def _paper_network(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module:
        widths = self.config.hidden, self.config.encoder_hidden
        return self.architecture(semantic_dim, latent_dim, feature_dim, *widths, generator=rng)


def kl_to_classes(posterior: tuple[Tensor, Tensor], priors: tuple[Tensor, Tensor]) -> Tensor:
    """KL(q_i ‖ p_c) ``[n, C]`` of n posteriors ``[n, d]`` to the priors of C classes ``[C, d]``."""
    (mean, log_var), (to_mean, to_log_var) = posterior, priors
    return kl_normal(mean[:, None], log_var[:, None], to_mean, to_log_var)


@dataclass(frozen=True)
class VZSLConfig(CVAEConfig):
    """:class:`CVAEConfig`, and the weight λ of VZSL's margin, from 0 to 1."""

    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin <= 1:
            raise DataError("VZSLConfig.margin", found=self.margin, expected="a number from 0 to 1")


class VZSL(CVAE):
    """The class-conditioned auto-encoder of Wang et al. 2018 ("Zero-shot learning via class-conditioned deep
    generative models"), as a generator of features.

    The prior p_ψ(z | c) depends on the class, and an example's posterior is pushed away from other seen
    classes' priors: the objective is

        E_q log p_θ(x | c, z) − KL(q ‖ p_ψ(z | c_y)) − λ log Σ_c exp(−KL(q ‖ p_ψ(z | c))),

    the last term their margin. With λ = 1 the last two terms are the log-probability of class y under a
    softmax of −KL, a classifier of seen classes; above 1 the objective is unbounded.
    Paper 1 prints no equation for its own version; the parameters that it counts are those of an encoder and
    a generator that see c too, which is what is learned here.
    """

    Config = VZSLConfig
    architecture = ClassAutoencoder
    config: VZSLConfig

    def _objective(self, found: Bounds) -> Tensor:
        priors = cast(Variational, self.net).prior(self._seen)
        margin = -kl_to_classes(found.posterior, priors).neg().logsumexp(1)
        return super()._objective(found) + self.config.margin * margin

    def _begin(self, data: Training, rng: torch.Generator) -> None:
        super()._begin(data, rng)
        self._seen = data.semantics[data.labels.unique()]
