r"""SAE: one linear map to semantics and, transposed, back (Kodirov, Xiang and Gong, CVPR 2017).

Minimises over :math:`W \in R^{K \times D}`, with features X ``[n, D]`` and the semantics S ``[n, K]`` of each
image's class (the paper's Eq. 5, its matrices transposed),

.. math:: \|X - S W\|_F^2 + \lambda \|X W^\top - S\|_F^2 .

The gradient is zero where :math:`S^\top S\, W + \lambda W X^\top X = (1 + \lambda) S^\top X`, a Sylvester
equation. Its two coefficients are symmetric, so it is solved by their eigenvectors: with
:math:`S^\top S = P\,\mathrm{diag}(a) P^\top` and :math:`X^\top X = Q\,\mathrm{diag}(b) Q^\top`,

.. math:: W = (1 + \lambda)\, P \left[ (P^\top S^\top X Q)_{kd} \,/\, (a_k + \lambda b_d) \right] Q^\top .

That is O(nD² + D³ + K³) and no n × n matrix, a quarter of the time of the general Bartels–Stewart solver at
D = 1,280. Unlike that, it has an answer if both coefficients are singular: the W of least norm.

Image and class are compared by their cosine, either in the space of features, x with :math:`W^\top c`, or in
that of semantics, W x with c; the paper reports both, and here the search chooses. Defaults are validation's
choice too: the best λ depends on how features and semantics are scaled (the paper's are 0.2 for CUB and
500,000 for AwA).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zsl_lib.embedding.moments import MomentModel, Moments
from zsl_lib.errors import DataError, check_range


class SAE(MomentModel):
    """The map W; ``scores`` are cosines.

    Parameters
    ----------
    lam: λ, weight of the encoder's error against the decoder's, above 0.
    compare_in: ``"features"`` or ``"semantics"``, the space in which image and class are compared.

    After :meth:`fit`: ``W`` ``[K, D]``, float64.
    """

    NAME, SPACE = "SAE", "features"
    GRID: ClassVar = {"lam": [10.0**k for k in range(-3, 3)], "compare_in": ["features", "semantics"]}
    W: Tensor

    def __init__(self, lam: float = 0.1, compare_in: str = "features") -> None:
        self.lam, self.compare_in = lam, compare_in
        check_range(self, 0, "lam", above=True)
        if compare_in not in self.GRID["compare_in"]:
            expected = " or ".join(self.GRID["compare_in"])
            raise DataError("SAE.compare_in", found=compare_in, expected=expected)

    def _solve(self, moments: Moments, s: Tensor) -> None:
        assert moments.gram is not None
        a, p = torch.linalg.eigh(s.T @ (moments.counts[:, None] * s))
        b, q = torch.linalg.eigh(moments.gram)
        target = (1 + self.lam) * (p.T @ s.T @ moments.sums @ q)
        rates = a[:, None] + self.lam * b
        self.W = p @ torch.where(_above_zero(a)[:, None] & _above_zero(b), target / rates, 0.0) @ q.T

    def _scores(self, x: Tensor, s: Tensor) -> Tensor:
        x, s = x.double(), s.double()
        if self.compare_in == "features":
            return normalize(x, dim=1) @ normalize(s @ self.W, dim=1).T
        return normalize(x @ self.W.T, dim=1) @ normalize(s, dim=1).T


def _above_zero(eigenvalues: Tensor) -> Tensor:
    """Which are not 0 but for rounding: in the directions of the others, the target is 0 too."""
    return eigenvalues > len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
