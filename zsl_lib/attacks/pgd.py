r"""PGD: steepest ascent in steps, each brought back into the ball (Kurakin et al. 2017; Madry et al. 2018).

.. math:: x' \leftarrow \mathrm{Proj}_{B^\rho(x)}\{x' + \varepsilon\,\mathrm{sign}\,\nabla_x L(x', y)\}

With ``start="clean"`` it is IFGSM, the attack of paper 2: :math:`\varepsilon = 1.25\rho/N` for N steps, N = 9
in its tests and both 3 (§4.3) and 9 (§5.4) in its training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Loss,
    Norm,
    Scores,
    beside,
    check_choice,
    check_counts,
    check_inputs,
    checked_scores,
    direction,
    gradient,
    loss_values,
    per_image,
    project,
    random_point,
)

STEP = 1.25  # of paper 2: the steps' total length, in radii


def pgd(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    steps: int = 9,
    step: float | Tensor | None = None,
    restarts: int = 1,
    norm: Norm = "linf",
    loss: Loss = "ce",
    start: Literal["clean", "uniform"] = "clean",
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attacked images, as x: ``steps`` gradients a restart.

    Parameters
    ----------
    scores: images ``[n, ...]`` to scores ``[n, C]``.
    x: images in pixel units, within ``bounds``.
    y: int64 ``[n]``, column of the true class.
    radius: of the ball, in pixels; one number, or one an image ``[n]``.
    step: length of a step, in pixels; 1.25 radius / steps if None.
    restarts: runs; the first begins at ``start``, any other at a uniform point of the ball. Of several, the
        one with the largest loss is kept image by image, and a misrecognised one goes before others.

    Raises
    ------
    DataError: x outside the bounds, a label that is no column, a negative radius or step, less than one step
        or restart, scores without gradient, no generator where something is drawn.
    """
    check_inputs(x, y, bounds)
    check_choice("start", start, ("clean", "uniform"))
    check_counts(steps=steps, restarts=restarts)
    rho = per_image("radius", radius, x)
    length = STEP * rho / steps if step is None else per_image("step", step, x)
    best = x
    for restart in range(restarts):
        x_adv = x
        if start == "uniform" or restart:
            x_adv = project(random_point(x, rho, norm, generator), x, rho, norm, bounds)
        for _ in range(steps):
            slope, _ = gradient(scores, x_adv, y, loss)
            x_adv = project(x_adv + length * direction(slope, norm), x, rho, norm, bounds)
        best = x_adv if restart == 0 else worse_of(scores, best, x_adv, y, loss)
    return best


@torch.no_grad()
def worse_of(scores: Scores, a: Tensor, b: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Of two attacks on the same images, image by image the one that is worse for the recogniser."""
    rank = []
    for x in (a, b):
        values = checked_scores(scores, x, y)
        rank.append((values.argmax(1) != y, loss_values(values, y, loss)))
    (a_wrong, a_loss), (b_wrong, b_loss) = rank
    second = torch.where(a_wrong == b_wrong, b_loss > a_loss, b_wrong)
    return torch.where(beside(second, a), b, a)
