r"""DAP: a probability for each attribute, multiplied (Lampert, Nickisch and Harmeling, PAMI 2014; CVPR 2009).

Attributes are binary: :math:`a^c_m` is 1 where class c has more of attribute m than the mean of the seen
classes. Each has a classifier of its own, here a logistic regression, so that with targets
:math:`t_{im} = a^{y_i}_m` and logits :math:`\ell_m(x) = w_m^\top x + b_m`

.. math:: \min_{W, b} \sum_{i, m} \log(1 + e^{\ell_m(x_i)}) - t_{im} \ell_m(x_i)
          + \frac\lambda2 \sum_m \|w_m\|^2

Attributes are taken for independent given the image, and a class for certain of its attributes:

.. math:: p(c \mid x) \propto \prod_m \frac{p(a^c_m \mid x)}{p(a^c_m)}

with :math:`p(a_m)` the mean over seen classes, or 1/2, which the paper finds to do as well. The score of a
class is the logarithm of the right-hand side.

The M problems are solved as one by L-BFGS. The Hessian of each is at most :math:`X^\top X / 4 + \lambda I`
(Böhning 1992), with X centred; in its eigenvectors, scaled by its eigenvalues, curvatures are at most 1 and
some tens of iterations do. O(n D² + D³) once and O(n D M) an iteration; scores are O(N D M + N M C).

λ is validation's choice, over powers of ten. Differences from the paper:

1. Logistic regressions give probabilities themselves; the paper calibrates support vector machines.
2. An attribute that all seen classes share, or all lack, has nothing to learn from: its factor is 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import logsigmoid

from zsl_lib.embedding.base import CompatibilityModel
from zsl_lib.errors import DataError, check_range

Array = NDArray[np.float64]


class DAP(CompatibilityModel):
    """The attribute classifiers; ``scores`` are :math:`\\sum_m \\log p(a^c_m | x) - \\log p(a^c_m)`.

    Parameters
    ----------
    lam: λ, above 0.
    prior: ``"seen"``, the mean over seen classes, or ``"half"``, 1/2 for each attribute.

    After :meth:`fit`: ``W`` ``[D, M]`` and ``b`` ``[M]``, float64, the ``threshold`` of each of the K
    attributes, those that ``vary`` (bool ``[K]``, M of them), and the ``mean`` of these ``[M]``.
    """

    NAME, SPACE = "DAP", "semantics"
    GRID: ClassVar = {"lam": [1.0, 10.0, 100.0, 1000.0], "prior": ["seen", "half"]}

    def __init__(self, lam: float = 10.0, prior: str = "seen") -> None:
        self.lam, self.prior = lam, prior
        check_range(self, 0, "lam", above=True)
        if prior not in ("seen", "half"):
            raise DataError("DAP.prior", found=prior, expected="seen or half")

    def attributes(self, s: Tensor) -> Tensor:
        """Semantics ``[C, K]`` as 0 and 1, of the attributes that vary: float64 ``[C, M]``."""
        return (s > self.threshold)[:, self.vary].double()

    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        self.threshold = s.mean(0)
        above = s > self.threshold
        self.vary = above.any(0) & ~above.all(0)
        known = self.attributes(s)
        self.mean = known.mean(0) if self.prior == "seen" else torch.full_like(known[0], 0.5)
        if not self.vary.any():
            hint = "over seen classes"
            raise DataError("DAP: semantics", found="no attribute that varies", expected="one", hint=hint)
        w, b = logistic(x.double().numpy(), known[y].numpy(), self.lam)
        self.W, self.b = torch.from_numpy(w), torch.from_numpy(b)

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        a, logits = self.attributes(s), x.double() @ self.W + self.b
        log_p = (logits @ a.T) + logsigmoid(-logits).sum(1, keepdim=True)
        return log_p - (a * self.mean.log() + (1 - a) * (1 - self.mean).log()).sum(1)


def logistic(x: Array, t: Array, lam: float, tol: float = 1e-3) -> tuple[Array, Array]:
    """W ``[D, M]`` and b ``[M]`` that minimise the module's objective for targets t ``[n, M]`` of 0 and 1.

    tol: largest slope left, in the scaled variables; the default leaves W an error of about 0.1 per mille.

    Raises
    ------
    ArithmeticError: no convergence.
    """
    values, vectors = eigh((x - x.mean(0)).T @ (x - x.mean(0)))
    scale = (np.maximum(values, 0) / 4 + lam) ** -0.5
    u = np.c_[(x - x.mean(0)) @ vectors * scale, np.full(len(x), 2 * len(x) ** -0.5)]
    penalty, ut = np.r_[lam * scale**2, 0.0][:, None], u.T @ t

    def objective(v: Array) -> tuple[float, Array]:
        v = v.reshape(-1, t.shape[1])
        logits = u @ v
        p = expit(logits)
        loss = (np.maximum(logits, 0) - np.log(np.maximum(p, 1 - p))).sum()  # log(1 + e^logits), a log each
        value = loss - (v * ut).sum() + (penalty * v**2).sum() / 2
        return value, (u.T @ p - ut + penalty * v).ravel()

    start = np.zeros(u.shape[1] * t.shape[1])
    options: Any = {"maxiter": 2000, "maxfun": 4000, "ftol": 0, "gtol": tol}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        raise ArithmeticError(
            f"DAP: {found.message} after {found.nit} iterations; try a larger lam than {lam}"
        )
    v = found.x.reshape(-1, t.shape[1])
    w = vectors @ (scale[:, None] * v[:-1])
    return w, 2 * len(x) ** -0.5 * v[-1] - x.mean(0) @ w
