"""A generated world whose density and posterior are known in closed form.

.. math::  x = A c + W z + b + ε,   z ∼ N(0, I),   ε ∼ N(0, σ² I)

with c the class's semantics. This is the generator of paper 1, Eq. 1, with a linear network, so what
Langevin dynamics and alternating back-propagation find can be compared with what is true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The world x = A c + W z + b + ε.

    W: ``[D, d]``. A: ``[D, K]``. b: ``[D]``. sigma: standard deviation σ > 0 of ε, in units of x.
    All of one dtype, which is that of every result; take float64 for checks.
    """

    W: Tensor
    A: Tensor
    b: Tensor
    sigma: float

    def __post_init__(self) -> None:
        d = self.W.shape[0]
        shapes_agree = self.W.ndim == self.A.ndim == 2 and self.A.shape[0] == d and self.b.shape == (d,)
        if not shapes_agree:
            found = f"W {tuple(self.W.shape)}, A {tuple(self.A.shape)}, b {tuple(self.b.shape)}"
            raise DataError("LinearGaussian", found=found, expected="W [D, d], A [D, K], b [D]")
        if not self.sigma > 0:
            raise DataError("LinearGaussian: sigma", found=self.sigma, expected="a positive number")

    def mean(self, c: Tensor) -> Tensor:
        """E[x | c] = A c + b, ``[N, D]`` for ``c [N, K]``."""
        return c @ self.A.T + self.b

    def covariance(self) -> Tensor:
        """Cov[x | c] = W Wᵀ + σ² I, ``[D, D]``, the same for each class."""
        return self.W @ self.W.T + self.sigma**2 * torch.eye(len(self.b), dtype=self.b.dtype)

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """log p(x | c) in nats, ``[N]``, with z integrated out."""
        chol = torch.linalg.cholesky(self.covariance())
        white = torch.linalg.solve_triangular(chol, (x - self.mean(c)).T, upper=False)
        log_det = 2 * chol.diagonal().log().sum()
        return -0.5 * ((white**2).sum(0) + log_det + len(self.b) * math.log(2 * math.pi))

    def log_joint(self, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """log p(x, z | c) in nats, ``[N]``: its gradient in z is what Langevin dynamics follows."""
        residual = x - self.mean(c) - z @ self.W.T
        log_x = -0.5 * (residual**2).sum(1) / self.sigma**2
        log_x = log_x - 0.5 * len(self.b) * math.log(2 * math.pi * self.sigma**2)
        return log_x - 0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)

    def posterior(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """p(z | x, c) = N(mean, cov): ``mean [N, d]`` and ``cov [d, d]``, the same for each x.

        cov = (I + WᵀW/σ²)⁻¹,  mean = cov Wᵀ (x − A c − b)/σ².
        """
        precision = torch.eye(self.W.shape[1], dtype=self.W.dtype) + self.W.T @ self.W / self.sigma**2
        cov = torch.linalg.inv(precision)
        return (x - self.mean(c)) @ self.W @ cov / self.sigma**2, cov

    def sample(self, c: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One ``(x [N, D], z [N, d])`` a row of ``c [N, K]``."""
        n, dtype = len(c), self.b.dtype
        z = torch.randn(n, self.W.shape[1], generator=generator, dtype=dtype)
        noise = torch.randn(n, len(self.b), generator=generator, dtype=dtype)
        return self.mean(c) + z @ self.W.T + self.sigma * noise, z

    def dataset(
        self,
        seen: int = 12,
        unseen: int = 6,
        *,
        per_class: int = 40,
        generator: torch.Generator,
        name: str = "toy",
    ) -> ZSLDataset:
        """Classes with semantics uniform in [0, 1], ``per_class`` examples each.

        The last ``unseen`` classes are unseen. Of a seen class's examples a fifth is ``test_seen``; the
        last third of the seen classes is ``val``, the others are ``train``. ``instances["z"]`` holds the
        latents ``[N, d]``. Features and semantics are float32 whatever the world's dtype.
        """
        if min(seen, unseen) < 2 or per_class < 5:
            found = f"{seen} seen, {unseen} unseen, {per_class} a class"
            raise DataError("LinearGaussian.dataset", found=found, expected="at least 2, 2 and 5")
        k, held = self.A.shape[1], per_class // 5
        semantics = torch.rand(seen + unseen, k, generator=generator, dtype=self.b.dtype)
        labels = torch.arange(seen + unseen).repeat_interleave(per_class)
        x, z = self.sample(semantics[labels], generator)
        order = torch.arange(len(labels)) % per_class
        is_seen, cut = labels < seen, seen - max(1, seen // 3)
        trainval = is_seen & (order >= held)
        return ZSLDataset(
            name=name,
            features=x.float(),
            labels=labels,
            semantics=semantics.float(),
            class_names=tuple(f"class {i + 1}" for i in range(seen + unseen)),
            points=torch.full((len(semantics),), 100.0, dtype=torch.float64),
            instances={"z": z.numpy()},
            trainval=_where(trainval),
            test_seen=_where(is_seen & (order < held)),
            test_unseen=_where(~is_seen),
            train=_where(trainval & (labels < cut)),
            val=_where(trainval & (labels >= cut)),
        )


def _where(chosen: Tensor) -> Tensor:
    return chosen.nonzero().flatten()


def linear_gaussian(
    dim: int = 16,
    latent: int = 4,
    attributes: int = 8,
    *,
    sigma: float = 0.3,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> LinearGaussian:
    """A random world: entries of W and A are N(0, 1/d) and N(0, 1), those of b N(0, 1).

    ``dim`` D, ``latent`` d, ``attributes`` K: all positive; ``sigma`` σ > 0 in units of x.
    """
    if min(dim, latent, attributes) < 1:
        found = f"dim {dim}, latent {latent}, attributes {attributes}"
        raise DataError("linear_gaussian", found=found, expected="positive numbers")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    w, a = normal(dim, latent) / math.sqrt(latent), normal(dim, attributes)
    return LinearGaussian(w, a, normal(dim), sigma)


def load(*, images: bool = False, semantics: str = "att", seed: int = 0) -> ZSLDataset:
    """The default toy: 12 seen and 6 unseen classes, 40 examples each, D = 16, d = 4, K = 8, σ = 0.3."""
    if images:
        raise DataError("toy: images", found="images=True", expected="images=False", hint="toy has none")
    if semantics != "att":
        raise DataError("toy: semantics", found=repr(semantics), expected="'att', all it has")
    generator = torch.Generator().manual_seed(seed)
    return linear_gaussian(generator=generator).dataset(generator=generator)
