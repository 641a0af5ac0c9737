r"""ESZSL: a bilinear compatibility in closed form (Romera-Paredes and Torr, ICML 2015).

Minimises over :math:`V \in R^{D \times K}`

.. math:: \|X V S^\top - Y\|_F^2 + \gamma \|V S^\top\|_F^2 + \lambda \|X V\|_F^2 + \gamma\lambda \|V\|_F^2

with features X ``[n, D]``, semantics of the seen classes S ``[C, K]`` and targets Y ``[n, C]`` of ±1. The
minimum is :math:`V = (X^\top X + \gamma I)^{-1} X^\top Y S (S^\top S + \lambda I)^{-1}`: two solves,
O(nD² + D³ + K³), no N × N matrix.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solve
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset


class ESZSL:
    """The bilinear map V; ``scores`` are :math:`x^\\top V c`.

    Parameters
    ----------
    gamma, lam: the two ridge weights, chosen on :meth:`ZSLDataset.tuning_split` from powers of ten.
    """

    V: Tensor

    def __init__(self, gamma: float = 1.0, lam: float = 1.0) -> None:
        self.gamma, self.lam = gamma, lam

    def fit(self, dataset: ZSLDataset) -> ESZSL:
        """Solve for V on ``dataset.trainval``, in float64."""
        x = dataset.x(dataset.trainval).double().numpy()
        s = dataset.semantics[dataset.seen].double().numpy()
        y = 2.0 * (dataset.labels[dataset.trainval][:, None] == dataset.seen).double().numpy() - 1
        left = solve(x.T @ x + self.gamma * np.eye(x.shape[1]), x.T @ y @ s, assume_a="pos")
        v = solve(s.T @ s + self.lam * np.eye(s.shape[1]), left.T, assume_a="pos").T
        self.V = torch.from_numpy(v)
        return self

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Compatibilities ``[N, C]`` of features ``[N, D]`` and semantics ``[C, K]``."""
        return x.double() @ self.V @ semantics.double().T
