r"""DeepFool: to the nearest boundary of the linearised scores, and again (Moosavi-Dezfooli et al. 2016).

With :math:`f_k` the gap of class k's score to the true one, the boundary to k is linearly at the distance
:math:`|f_k|/\lVert\nabla f_k\rVert_q`, q the dual norm (2 for l2, 1 for linf). A step goes to the nearest:

.. math:: r = \frac{|f_k|}{\lVert\nabla f_k\rVert_2^2}\nabla f_k \quad(\ell_2), \qquad
          r = \frac{|f_k|}{\lVert\nabla f_k\rVert_1}\mathrm{sign}\,\nabla f_k \quad(\ell_\infty)
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Norm,
    Scores,
    beside,
    check_choice,
    check_counts,
    check_inputs,
    checked_scores,
    differentiate,
    direction,
    margin,
    within,
)


def deepfool(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor | None = None,
    steps: int = 50,
    norm: Norm = "l2",
    classes: int = 9,
    overshoot: float = 0.02,
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Nearly the smallest perturbation that is misrecognised, and x itself where none was found.

    Paper 2 runs it for 9 steps without any radius ("-" in its tables). ``generator`` is not used.

    Parameters
    ----------
    radius: projects the result on the ball of ``norm``, in pixels; None leaves it.
    steps: at most, each of a forward pass and ``classes`` backward ones.
    classes: other classes to go to: those with the highest scores of x, as in the authors' program.
    overshoot: how much farther than the boundary, as a share of the way.

    Raises
    ------
    DataError: as :func:`zsl_lib.attacks.pgd`.
    """
    check_inputs(x, y, bounds)
    check_choice("norm", norm, ("linf", "l2"))
    check_counts(steps=steps, classes=classes)
    total, x_adv, edge = torch.zeros_like(x), x.clone(), 1e-4 * (bounds[1] - bounds[0])
    others, left = None, torch.arange(len(x), device=x.device)
    for _ in range(steps):
        values, slopes, others = _gaps(scores, x_adv[left], y[left], classes, others)
        still = margin(values, y[left]) <= 0
        left, others, slopes = left[still], others[still], slopes[still]
        if len(left) == 0:
            break
        total[left] += _step(values[still], slopes, y[left], others, norm, edge)
        x_adv[left] = (x[left] + (1 + overshoot) * total[left]).clamp(*bounds)
    if len(left):
        with torch.no_grad():
            left = left[margin(checked_scores(scores, x_adv[left], y[left]), y[left]) <= 0]
    x_adv[left] = x[left]
    return within(x_adv, x, radius, norm, bounds)


def _gaps(
    scores: Scores, x: Tensor, y: Tensor, classes: int, others: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores ``[n, C]``, gradients ``[n, k, ...]`` of the gaps to ``others`` ``[n, k]``, the best if None."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = checked_scores(scores, x, y)
        if others is None:
            rank = values.detach().scatter(1, y[:, None], -torch.inf)
            others = rank.topk(min(classes, values.shape[1] - 1)).indices
        gaps = values.gather(1, others) - values.gather(1, y[:, None])
        slopes = [differentiate(gaps[:, k].sum(), x, keep=True) for k in range(others.shape[1])]
    return values.detach(), torch.stack(slopes, 1), others


def _step(values: Tensor, slopes: Tensor, y: Tensor, others: Tensor, norm: Norm, edge: float) -> Tensor:
    """The way to the nearest of the linear boundaries, and ``edge`` beyond; none where all slopes are 0."""
    gaps = (values.gather(1, others) - values.gather(1, y[:, None])).abs()
    length = torch.linalg.vector_norm(slopes.flatten(2), 2 if norm == "l2" else 1, dim=2)
    way = torch.where(length > 0, gaps / length, torch.inf)
    nearest, k = way.min(1)
    slope = slopes[torch.arange(len(k), device=k.device), k]
    nearest = torch.where(nearest.isfinite(), nearest + edge, 0.0)
    return beside(nearest, slope) * direction(slope, norm)
