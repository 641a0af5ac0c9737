r"""GFZSL: each class a Gaussian that its description predicts (Verma and Rai, ECML PKDD 2017).

A class c is :math:`N(\mu_c, \mathrm{diag}(\sigma_c^2))`. Of seen classes, these are estimated from images;
of any class they are functions of its semantics, :math:`\mu_c = f_\mu(s_c)` and
:math:`\log \sigma_c^2 = f_\sigma(s_c)`, each a ridge regression with kernel k, learned from the S seen
classes. Coefficients A ``[S, D]`` of targets M ``[S, D]``, with :math:`K_{cc'} = k(s_c, s_{c'})`, minimise

.. math:: \|M - K A\|_F^2 + \lambda\, \mathrm{tr}(A^\top K A), \qquad A = (K + \lambda I)^{-1} M .

An image goes to the class under which its log-likelihood is highest. The kernel is linear, k(a, b) = aᵀb, or
RBF, exp(-‖a - b‖² / h) with h the mean squared distance of two seen classes; the linear one is divided by
the mean of ‖s‖², so that λ means the same for each.

O(nD + S³ + S²D) to fit, O(N D C) to score. Only sums by class are needed of the images, and neither an
n × n nor a D × D matrix.

Defaults are validation's choice on hangul and CUB. A large ``lam_var``, so nearly the same variances for
all classes, was best on both.

Differences from the paper:

1. Both regressions are about the average of seen classes, f(s) = mean + …: a class of which its semantics
   say nothing is an average one. In the paper it has mean 0 and variance 1, whatever the unit of features;
   that costs 1 to 14 points of T1 on validation.
2. The prior of a class's variance is the pooled one, worth ``prior`` images: classes of some 40 images have
   features that are constant by chance. Means have no prior.
3. Of its variants, the inductive one: unlabelled test images are not learned from.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zsl_lib.embedding.moments import MomentModel, Moments
from zsl_lib.errors import DataError, check_range


class GFZSL(MomentModel):
    """The two regressions; ``scores`` are log-likelihoods but for the constant :math:`-(D/2) \\log 2\\pi`.

    Parameters
    ----------
    lam, lam_var: λ for means and for log-variances, above 0.
    kernel: ``"rbf"`` or ``"linear"``.
    prior: images' worth of the pooled variance in that of each class, above 0.

    After :meth:`fit`: :meth:`gaussians` of any classes.
    """

    NAME, SPACE, GRAM = "GFZSL", "features", False
    GRID: ClassVar = {
        "kernel": ["linear", "rbf"],
        "lam": [1e-4, 1e-3, 1e-2, 0.1, 1.0],
        "lam_var": [1.0, 100.0],
    }

    def __init__(
        self, lam: float = 0.01, lam_var: float = 100.0, kernel: str = "rbf", prior: float = 10.0
    ) -> None:
        self.lam, self.lam_var, self.kernel, self.prior = lam, lam_var, kernel, prior
        check_range(self, 0, "lam", "lam_var", "prior", above=True)
        if kernel not in self.GRID["kernel"]:
            raise DataError("GFZSL.kernel", found=kernel, expected=" or ".join(self.GRID["kernel"]))

    def gaussians(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances ``[C, D]`` of classes with semantics ``[C, K]``."""
        similar = self._kernel(s.double(), self._s)
        mean, log_var = (average + similar @ a for average, a in self._regressions)
        return mean, log_var

    def _solve(self, moments: Moments, s: Tensor) -> None:
        size = torch.pdist(s).square() if self.kernel == "rbf" else s.square().sum(1)
        self._s, self._scale = s, size.mean()
        if not self._scale > 0:
            raise DataError("GFZSL: seen semantics", found="all the same", expected="different ones")
        similar = self._kernel(s, s)
        targets = zip((self.lam, self.lam_var), _estimates(moments, self.prior), strict=True)
        self._regressions = [(m.mean(0), _ridge(similar, m - m.mean(0), lam)) for lam, m in targets]

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        if self.kernel == "linear":
            return a @ b.T / self._scale
        return (-torch.cdist(a, b).square() / self._scale).exp()

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        x, (mean, log_var) = x.double(), self.gaussians(s)
        precision = (-log_var).exp()
        distance = (
            x.square() @ precision.T - 2 * x @ (mean * precision).T + (mean.square() * precision).sum(1)
        )
        return -(distance + log_var.sum(1)) / 2


def _ridge(similar: Tensor, targets: Tensor, lam: float) -> Tensor:
    regular = similar + lam * torch.eye(len(similar), dtype=similar.dtype)
    return torch.cholesky_solve(targets, torch.linalg.cholesky(regular))


def _estimates(moments: Moments, prior: float) -> tuple[Tensor, Tensor]:
    """Each class's mean and the logarithm of its variance ``[S, D]``, which the pooled one moderates.

    Features that vary in no class count as a thousandth as variable as the others on average.
    """
    n = moments.counts[:, None]
    mean = moments.sums / n
    squares = (moments.squares - n * mean.square()).clamp(min=0)
    pooled = squares.sum(0) / n.sum()
    pooled = (pooled + 1e-3 * pooled.mean()).clamp(min=1e-12)
    return mean, ((squares + prior * pooled) / (n + prior)).log()
