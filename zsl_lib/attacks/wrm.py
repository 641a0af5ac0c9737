r"""WRM: a penalty instead of a ball (Sinha, Namkoong and Duchi 2018, Eq. 2b and Algorithm 1).

.. math:: x' = \arg\max_{x'} L(x', y) - \gamma\lVert x' - x\rVert_2^2

is the Lagrangian of a Wasserstein ball around the law of the data: an image that is easy to attack may move
far, another hardly at all. Above half the largest curvature of L the problem is concave, and its only
maximum is found by ascent; gamma is that strength. Steps are :math:`1/\sqrt{t + 2}` of a Newton step of the
penalty, as in the authors' program.

Paper 2 gives WRM a magnitude rho in pixels and says no more: neither gamma nor the norm. Here ``radius``
projects on the ball as in PGD, and gamma, if it is not given, is set image by image so that the first-order
solution :math:`\nabla L/2\gamma` has a root mean square of rho in each pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Loss,
    Norm,
    Scores,
    check_counts,
    check_inputs,
    gradient,
    norms,
    per_image,
    project,
)
from zsl_lib.errors import DataError


def wrm(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor | None = None,
    gamma: float | Tensor | None = None,
    steps: int = 9,
    norm: Norm = "linf",
    loss: Loss = "ce",
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attacked images, as x: ``steps`` gradients. ``generator`` is not used.

    Parameters
    ----------
    radius: of a ball of ``norm`` to stay in, in pixels; None for the penalty alone.
    gamma: weight of the squared distance, loss per squared pixel, above 0; one number or one an image.
    steps: 9 in paper 2, 15 in its authors'.

    Raises
    ------
    DataError: as :func:`zsl_lib.attacks.pgd`; neither a radius nor gamma; gamma not above 0.
    """
    check_inputs(x, y, bounds)
    check_counts(steps=steps)
    if radius is None and gamma is None:
        raise DataError("gamma", found=None, expected="a number above 0, or a radius")
    rho = per_image("radius", float(torch.finfo(x.dtype).max) if radius is None else radius, x)
    slope, _ = gradient(scores, x, y, loss)
    if gamma is None:  # 1 / 2γ, the way for a unit of slope
        length = norms(slope, "l2")
        reach = rho * math.sqrt(x[0].numel()) / length.where(length > 0, 1.0)
    else:
        weight = per_image("gamma", gamma, x)
        if bool((weight == 0).any()):
            raise DataError("gamma", found=0, expected="a number above 0")
        reach = 1 / (2 * weight)
    x_adv = x
    for t in range(steps):
        if t:
            slope, _ = gradient(scores, x_adv, y, loss)
        ascent = reach * slope - (x_adv - x)
        x_adv = project(x_adv + ascent / math.sqrt(t + 2), x, rho, norm, bounds)
    return x_adv
