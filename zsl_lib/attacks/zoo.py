r"""ZOO: CW-l2 for an attacker who sees scores and no gradients (Chen et al. 2017).

The slope of the objective in a pixel comes from two queries,

.. math:: \hat g_i = \frac{F(x' + h e_i) - F(x' - h e_i)}{2h},

and Adam moves a few randomly drawn pixels at a time, each with its own moments. The squared distance needs no
query. As in the Adversarial Robustness Toolbox there is no tanh; the pixels are clipped instead.
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
    draw,
    margin,
    per_image,
    within,
)
from zsl_lib.errors import DataError

BETAS = 0.9, 0.999  # of Adam


@torch.no_grad()
def zoo(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor | None = None,
    steps: int = 100,
    coordinates: int = 64,
    searches: int = 1,
    const: float = 1.0,
    lr: float = 0.01,
    h: float = 0.1,
    confidence: float = 0.0,
    batch: int = 1024,
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The smallest perturbation found that is misrecognised, and x itself where none was found.

    It takes at most 1 + ``searches`` · ``steps`` · (1 + 2 · ``coordinates``) queries an image; wrap
    the scores in :class:`zsl_lib.attacks.Counted` to count them. Paper 2 gives neither queries nor constants.

    Parameters
    ----------
    radius: projects the result on the l2 ball, in pixels; None leaves it.
    steps, coordinates: steps of Adam in each round, and pixels that one moves.
    searches: rounds of the binary search for c.
    const: where it begins, over the margin of x: what a whole margin weighs beside a squared distance of
        the span. Whatever the scale of the scores.
    lr: of Adam, as a share of the span.
    h: half the difference, in pixels; too small a one drowns in rounding.
    batch: images scored at once.

    Raises
    ------
    DataError: as :func:`zsl_lib.attacks.pgd`, but scores need no gradient; no generator; h not above 0.
    """
    check_inputs(x, y, bounds)
    check_counts(steps=steps, coordinates=coordinates, searches=searches, batch=batch)
    if not bool((per_image("h", h, x) > 0).all()):
        raise DataError("h", found=h, expected="a number above 0, in pixels")
    clean = margin(_ask(scores, x, y, batch), y)
    right = clean <= 0
    x_adv = x.clone()
    if right.any():
        closest = Closest(x[right], y[right], confidence)
        constants = Constants(const / clean[right].abs().clamp(min=1e-10))
        options = steps, min(coordinates, x[0].numel()), lr, h, batch
        for _ in range(searches):
            constants.tighten(_minimise(scores, closest, constants.value, options, bounds, generator))
        x_adv[right] = closest.image
    return within(x_adv, x, radius, "l2", bounds)


def _minimise(
    scores: Scores,
    closest: Closest,
    c: Tensor,
    options: tuple[int, int, float, float, int],
    bounds: Bounds,
    generator: torch.Generator | None,
) -> Tensor:
    """One round of coordinate-wise Adam; returns which images it fooled, ``[n]``."""
    steps, coordinates, lr, h, batch = options
    x, y, span = closest.x, closest.y, bounds[1] - bounds[0]
    start = x.flatten(1)
    moved, first, second, visits = start.clone(), *(torch.zeros_like(start) for _ in range(3))
    found = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(steps):
        i = draw(torch.rand, start, generator).argsort(1)[:, :coordinates]
        slope = c[:, None] * _slopes(scores, closest, moved, i, h, batch) * span
        slope += 2 * (moved - start).gather(1, i) / span
        t = visits.gather(1, i) + 1
        m = BETAS[0] * first.gather(1, i) + (1 - BETAS[0]) * slope
        v = BETAS[1] * second.gather(1, i) + (1 - BETAS[1]) * slope.square()
        for state, value in ((visits, t), (first, m), (second, v)):
            state.scatter_(1, i, value)
        step = (m / (1 - BETAS[0] ** t)) / ((v / (1 - BETAS[1] ** t)).sqrt() + 1e-8)
        moved.scatter_(1, i, (moved.gather(1, i) - lr * span * step).clamp(*bounds))
        image = moved.reshape(x.shape)
        found |= closest.update(image, _ask(scores, image, y, batch))
    return found


def _slopes(scores: Scores, closest: Closest, moved: Tensor, i: Tensor, h: float, batch: int) -> Tensor:
    """Differences of CW's hinge in pixels i ``[n, k]``, over 2h: 2nk queries."""
    n, k = i.shape
    unit = torch.zeros(n, k, moved.shape[1], dtype=moved.dtype, device=moved.device)
    unit.scatter_(2, i[:, :, None], h)
    there = torch.stack([moved[:, None] + unit, moved[:, None] - unit]).reshape(-1, *closest.x.shape[1:])
    y = closest.y.repeat_interleave(k).repeat(2)
    hinge = (closest.confidence - margin(_ask(scores, there, y, batch), y)).clamp(min=0)
    ahead, behind = hinge.reshape(2, n, k)
    return (ahead - behind) / (2 * h)


def _ask(scores: Scores, x: Tensor, y: Tensor, batch: int) -> Tensor:
    """Scores, ``batch`` images at a time."""
    parts = zip(x.split(batch), y.split(batch), strict=True)
    return torch.cat([checked_scores(scores, *part) for part in parts])
