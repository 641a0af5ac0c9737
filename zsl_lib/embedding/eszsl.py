r"""ESZSL: a bilinear compatibility in closed form (Romera-Paredes and Torr, ICML 2015).

Minimises over :math:`V \in R^{D \times K}`

.. math:: \|X V S^\top - Y\|_F^2 + \gamma \|V S^\top\|_F^2 + \lambda \|X V\|_F^2 + \gamma\lambda \|V\|_F^2

with features X ``[n, D]``, semantics of the seen classes S ``[C, K]`` and targets Y ``[n, C]`` of ±1. The
minimum is :math:`V = (X^\top X + \gamma I)^{-1} X^\top Y S (S^\top S + \lambda I)^{-1}`: two solves,
O(nD² + D³ + K³), no n × n matrix.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.linalg import solve
from torch import Tensor

from zsl_lib.embedding.moments import MomentModel, Moments
from zsl_lib.errors import check_range


class ESZSL(MomentModel):
    """The bilinear map V; ``scores`` are :math:`x^\\top V c`.

    Parameters
    ----------
    gamma, lam: the two ridge weights, above 0. The authors chose them from powers of ten on validation.

    After :meth:`fit`: ``V`` ``[D, K]``, float64.
    """

    NAME, SPACE = "ESZSL", "bilinear"
    GRID: ClassVar = {"gamma": [10.0**k for k in range(-2, 5)], "lam": [10.0**k for k in range(-4, 3)]}
    V: Tensor

    def __init__(self, gamma: float = 1.0, lam: float = 1.0) -> None:
        self.gamma, self.lam = gamma, lam
        check_range(self, 0, "gamma", "lam", above=True)

    def _solve(self, moments: Moments, s: Tensor) -> None:
        assert moments.gram is not None
        total, S = moments.sums.sum(0), s.numpy()
        xty = (2 * moments.sums - total).T.numpy()  # XᵀY, Y being 2 · (is the class) - 1
        left = solve(moments.gram.numpy() + self.gamma * np.eye(len(total)), xty @ S, assume_a="pos")
        v = solve(S.T @ S + self.lam * np.eye(S.shape[1]), left.T, assume_a="pos").T
        self.V = torch.from_numpy(v)

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        return x.double() @ self.V @ s.double().T
