r"""FGSM: one step of steepest ascent, as long as the ball allows (Goodfellow et al. 2015, Eq. 1 of §4).

.. math:: x' = x + \rho\,\mathrm{sign}\,\nabla_x L(x, y)

It maximises the *linearised* loss over the :math:`\ell_\infty` ball, so it is optimal where the loss is
linear, and only there. For :math:`\ell_2` the sign becomes the unit vector of the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsl_lib.attacks.common import PIXELS, Bounds, Loss, Norm, Scores
from zsl_lib.attacks.pgd import pgd


def fgsm(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    norm: Norm = "linf",
    loss: Loss = "ce",
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attacked images, as x: one gradient. ``generator`` is not used.

    Parameters
    ----------
    scores: images ``[n, ...]`` to scores ``[n, C]``.
    x: images in pixel units, within ``bounds``.
    y: int64 ``[n]``, column of the true class.
    radius: of the ball, in pixels; one number, or one an image ``[n]``.

    Raises
    ------
    DataError: x outside the bounds, a label that is no column, a negative radius, scores without gradient.
    """
    return pgd(scores, x, y, radius=radius, steps=1, step=radius, norm=norm, loss=loss, bounds=bounds)
