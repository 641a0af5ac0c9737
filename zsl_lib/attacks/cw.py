r"""CW-l2: the smallest perturbation as an optimisation problem (Carlini and Wagner 2017, §5–6).

.. math:: \min_w \lVert x'(w) - x\rVert_2^2 + c\,\max\{F_y(x') - \max_{k\ne y}F_k(x') + \kappa,\; 0\},
          \qquad x'(w) = \tfrac12(1 + \tanh w)

by Adam, and c by binary search, image by image. Here x' runs from the lower to the upper bound, and the
distance is in units of that span, so that c means what it means in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Closest,
    Constants,
    Scores,
    check_counts,
    check_inputs,
    checked_scores,
    differentiate,
    gradient,
    margin,
    norms,
    within,
)

INSIDE = 0.999999  # of the way to the bounds, where tanh can still move: the authors' value


def cw(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor | None = None,
    steps: int = 100,
    searches: int = 6,
    const: float | None = None,
    lr: float = 0.05,
    confidence: float = 0.0,
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The smallest perturbation found that is misrecognised, and x itself where none was found.

    Paper 2 runs it for 9 iterations without any radius ("-" in its tables); the authors of CW for 10,000.
    A pixel at a bound stands where tanh is flat: Adam needs many steps to move it. ``generator`` is not used.

    Parameters
    ----------
    radius: projects the result on the l2 ball, in pixels; None leaves it.
    steps: of Adam in each round, a gradient each.
    searches: rounds of the binary search for c.
    const: where it begins. None: at twice what would do if the scores were linear, whatever their scale is;
        the authors' program begins at 1e-3.
    lr: Adam's, in units of w; 0.01 is the authors', for many more steps.
    confidence: κ, the margin to reach, in units of the scores.

    Raises
    ------
    DataError: as :func:`zsl_lib.attacks.pgd`.
    """
    check_inputs(x, y, bounds)
    check_counts(steps=steps, searches=searches)
    slope, values = gradient(scores, x, y, "margin")
    right = margin(values, y) <= 0  # the others need no perturbation
    x_adv = x.clone()
    if right.any():
        begin = _of_linear(slope[right] * (bounds[1] - bounds[0]), values[right], y[right])
        begin = begin if const is None else torch.full_like(begin, const)
        closest, constants = Closest(x[right], y[right], confidence), Constants(begin)
        for _ in range(searches):
            constants.tighten(_minimise(scores, closest, constants.value, steps, lr, bounds))
        x_adv[right] = closest.image
    return within(x_adv, x, radius, "l2", bounds)


def _of_linear(slope: Tensor, values: Tensor, y: Tensor) -> Tensor:
    """Twice the smallest c that reaches a linear boundary: 2|m|/‖∇m‖² with the margin m, ``[n]``."""
    square = norms(slope, "l2").flatten().square()
    return torch.where(square > 0, 4 * margin(values, y).abs() / square, 1.0).clamp(1e-10, 1e10)


def _minimise(scores: Scores, closest: Closest, c: Tensor, steps: int, lr: float, bounds: Bounds) -> Tensor:
    """One round of Adam; returns which images it fooled, ``[n]``."""
    x, y, span = closest.x, closest.y, bounds[1] - bounds[0]
    w = (INSIDE * (2 * (x - bounds[0]) / span - 1)).atanh().requires_grad_()
    adam, found = torch.optim.Adam([w], lr), torch.zeros_like(y, dtype=torch.bool)
    for _ in range(steps):
        with torch.enable_grad():
            moved = (bounds[0] + span * (1 + w.tanh()) / 2).clamp(*bounds)
            values = checked_scores(scores, moved, y)
            distance = ((moved - x) / span).square().flatten(1).sum(1)
            hinge = (closest.confidence - margin(values, y)).clamp(min=0)
            w.grad = differentiate((distance + c * hinge).sum(), w)
        found |= closest.update(moved.detach(), values.detach())
        adam.step()
    return found
