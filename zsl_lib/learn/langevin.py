"""Langevin dynamics (paper 1, Eq. 6) for any differentiable log-density."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Chain(NamedTuple):
    """Where the chains ended and what they met on the way.

    z: final states ``[n, d]``.
    log_prob: ``[steps, n]``, log-density at each state *before* its step.
    grad_norm: ``[steps, n]``, norm of its gradient there.
    """

    z: Tensor
    log_prob: Tensor
    grad_norm: Tensor


def langevin(
    log_prob: Callable[[Tensor], Tensor],
    z: Tensor,
    *,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
    noise: bool = True,
) -> Chain:
    """Run n independent chains for ``steps`` steps of Eq. 6, without a Metropolis correction.

    z ← z + s²/2 ∇_z log p(z) + s u,  u ~ N(0, I).

    Parameters
    ----------
    log_prob: maps states ``[n, d]`` to log-densities ``[n]``, up to a constant.
    z: initial states ``[n, d]``; not changed.
    steps: number of steps l; ``step_size``: s, in units of z.
    generator: source of u, on z's device.
    noise: False drops the last term, leaving gradient ascent to a mode.

    Raises
    ------
    ArithmeticError: if a chain leaves the finite numbers, because s is too large for the curvature.
    """
    log_probs, grad_norms = [], []
    for _ in range(steps):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            value = log_prob(z)
            (gradient,) = torch.autograd.grad(value.sum(), z)
        log_probs.append(value.detach())
        grad_norms.append(gradient.norm(dim=1))
        z = z.detach() + step_size**2 / 2 * gradient
        if noise:
            z = z + step_size * torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    if not bool(z.isfinite().all()):
        raise ArithmeticError(
            f"Langevin chain diverged within {steps} steps: step_size {step_size} is too large"
        )
    empty = z.new_empty(0, len(z))
    return Chain(
        z.detach(),
        torch.stack(log_probs) if log_probs else empty,
        torch.stack(grad_norms) if grad_norms else empty,
    )
