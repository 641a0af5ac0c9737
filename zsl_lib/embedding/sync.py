r"""SynC: classifiers of new classes synthesised from those of phantom ones (Changpinyo et al., CVPR 2016).

The classifier of class c is a combination of R phantom classifiers v_r, weighted by how near the
semantics s_c are to the phantom's b_r,

.. math:: w_c = \sum_r \omega_{cr} v_r, \qquad
    \omega_{cr} \propto \exp(-\|s_c - b_r\|^2 / \sigma^2), \quad \sum_r \omega_{cr} = 1 .

As in the authors' experiments, phantoms are at the S seen classes, b_r = s_r. Their classifiers minimise the
one-versus-other loss, with :math:`y_{ic}` of ±1,

.. math:: \frac1n \sum_i \sum_c \max(0, 1 - y_{ic} w_c^\top x_i)^2 + \frac\lambda2 \sum_c \|w_c\|^2 .

This is convex in V ``[S, D]``, but badly conditioned, as the weights Ω are. With
:math:`\Omega = P\,\mathrm{diag}(d) Q^\top` and V = Q diag(d)⁻¹ A, the classifiers are W = P A, and
:math:`\|W\|^2 = \|A\|^2`: as well conditioned as S linear SVMs, and the same W where Ω is invertible.
Directions in which it is singular but for rounding are left out. L-BFGS (SciPy) finds A; an iteration takes
O(n S D + S² D), and there is no n × n matrix.

Defaults are validation's choice on hangul and CUB.

Differences from the paper:

1. σ counts in root mean squared distances between seen classes, so that it means the same for attributes
   and for sentence embeddings.
2. Of its two losses, the one-versus-other loss; its structured one (Crammer and Singer's with margins that
   grow with the distance of classes) is not here.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from zsl_lib.embedding.base import CompatibilityModel
from zsl_lib.errors import DataError, check_range


class SYNC(CompatibilityModel):
    """The phantom classifiers V; ``scores`` are :math:`w_c^\\top x`.

    Parameters
    ----------
    lam: λ, weight of the squared weights, above 0.
    sigma: σ in root mean squared distances between seen classes, above 0.
    tol: largest part of the gradient, as a share of that at 0, at which L-BFGS stops, above 0.
    max_iter: iterations after which it stops anyway, at least 1.

    After :meth:`fit`: ``V`` ``[S, D]``, float64, and ``iterations``.
    """

    NAME, SPACE = "SYNC", "bilinear"
    GRID: ClassVar = {"lam": [0.01, 0.1, 1.0], "sigma": [1.0, 1.4, 2.0, 4.0, 8.0]}
    V: Tensor
    iterations: int

    def __init__(
        self, lam: float = 0.1, sigma: float = 4.0, *, tol: float = 1e-4, max_iter: int = 500
    ) -> None:
        self.lam, self.sigma, self.tol, self.max_iter = lam, sigma, tol, max_iter
        check_range(self, 0, "lam", "sigma", "tol", above=True)
        check_range(self, 1, "max_iter", whole=True)

    def weights(self, s: Tensor) -> Tensor:
        """ω ``[C, S]`` of classes with semantics ``[C, K]``; rows sum to 1."""
        return (-torch.cdist(s.double(), self._seen).square() / self._width).softmax(1)

    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        self._seen = s.double()
        self._width = self.sigma**2 * torch.pdist(self._seen).square().mean()
        if not self._width > 0:
            raise DataError("SYNC: seen semantics", found="all the same", expected="different ones")
        p, d, q = torch.linalg.svd(self.weights(s))
        rank = int((d > 1e-10 * d[0]).sum())
        a = self._minimise(x.double(), y, p[:, :rank])
        self.V = q[:rank].T @ (a / d[:rank, None])

    def _minimise(self, x: Tensor, y: Tensor, p: Tensor) -> Tensor:
        """A ``[rank, D]``."""
        sign = torch.full((len(x), len(p)), -1.0, dtype=x.dtype)
        sign[torch.arange(len(x)), y] = 1.0

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = _objective(torch.from_numpy(flat).view(p.shape[1], -1), x, sign, p, self.lam)
            return float(value), gradient.flatten().numpy()

        start = np.zeros(p.shape[1] * x.shape[1])
        stop = self.tol * float(np.abs(objective(start)[1]).max())
        found = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "gtol": stop, "ftol": 0.0},
        )
        self.iterations = int(found.nit)
        return torch.from_numpy(found.x).view(p.shape[1], -1)

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        return x.double() @ (self.weights(s) @ self.V).T


def _objective(a: Tensor, x: Tensor, sign: Tensor, p: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """The printed loss at W = P A, and its gradient in A."""
    hinge = (1 - sign * (x @ (p @ a).T)).clamp(min=0)
    value = hinge.square().sum() / len(x) + lam / 2 * a.square().sum()
    return value, -2 / len(x) * p.T @ ((sign * hinge).T @ x) + lam * a
