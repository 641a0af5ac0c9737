"""Random noise of a radius: the floor that every attack must clear."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Norm,
    Scores,
    check_choice,
    check_inputs,
    direction,
    draw,
    per_image,
    project,
    random_point,
)


def noise(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    norm: Norm = "linf",
    kind: Literal["uniform", "sign"] = "uniform",
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A random point of the ball around each image; neither scores nor labels matter.

    ``"uniform"`` draws from the whole ball, ``"sign"`` moves every pixel by the same amount up or down, onto
    the ball's surface: as large as a step of FGSM, without its direction.

    Raises
    ------
    DataError: an input that :func:`zsl_lib.attacks.common.check_inputs` refuses, a negative radius, no
        generator.
    """
    check_inputs(x, y, bounds)
    check_choice("kind", kind, ("uniform", "sign"))
    rho = per_image("radius", radius, x)
    if kind == "uniform":
        moved = random_point(x, rho, norm, generator)
    else:
        moved = x + rho * direction((draw(torch.rand, x, generator) < 0.5).to(x) * 2 - 1, norm)
    return project(moved, x, rho, norm, bounds)
