"""Langevin dynamics (paper 1, Eq. 6) for any differentiable log-density, and its exact correction, MALA."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from zsl_lib.errors import DataError

LogProb = Callable[[Tensor], Tensor]


class Chain(NamedTuple):
    """Where the chains ended and what they met on the way.

    z: final states ``[n, d]``.
    log_prob: ``[steps, n]``, log-density at each state *before* its step.
    grad_norm: ``[steps, n]``, norm of its gradient there.
    states: ``[steps, n, d]``, those states, so that row 0 is the start; None unless they were kept.
    acceptance: ``[steps, n]``, probability with which :func:`mala` took each proposal; None without it.
    """

    z: Tensor
    log_prob: Tensor
    grad_norm: Tensor
    states: Tensor | None = None
    acceptance: Tensor | None = None


def langevin(
    log_prob: LogProb,
    z: Tensor,
    *,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
    noise: bool = True,
    keep: bool = False,
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
    keep: True keeps the state before each step in ``states``.

    Raises
    ------
    DataError: negative steps, a step size that is no positive number, states or log-densities of another
        shape.
    ArithmeticError: if a chain leaves the finite numbers, because s is too large for the curvature.
    """
    _check("langevin", z, steps, step_size)
    log_probs, grad_norms, states = [], [], []
    for _ in range(steps):
        z, value, gradient = _point("langevin", log_prob, z)
        if keep:
            states.append(z)
        log_probs.append(value)
        grad_norms.append(gradient.norm(dim=1))
        z = z + step_size**2 / 2 * gradient
        if noise:
            z = z + step_size * torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    if not bool(z.isfinite().all()):
        raise ArithmeticError(
            f"Langevin chain diverged within {steps} steps: step_size {step_size} is too large"
        )
    z = z.detach()  # where there was no step
    traces = _stack(log_probs, z.shape[:1], z), _stack(grad_norms, z.shape[:1], z)
    return Chain(z, *traces, states=_stack(states, z.shape, z) if keep else None)


def mala(
    log_prob: LogProb,
    z: Tensor,
    *,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
    keep: bool = False,
) -> Chain:
    """Langevin steps as proposals of Metropolis–Hastings: p itself stays invariant, whatever s is.

    A proposal z′ = m(z) + s u with m(z) = z + s²/2 ∇ log p(z) is taken with probability

    min(1, p(z′) q(z | z′) / p(z) q(z′ | z)),  q(b | a) = N(b; m(a), s² I),

    else the chain stays (Roberts and Tweedie 1996). A proposal without a finite log-density is never taken.
    Parameters are those of :func:`langevin`. A chain cannot diverge, but it can stand still. Each step draws
    u and then a uniform number for each chain.

    Raises
    ------
    DataError: as :func:`langevin`, and for a start without a finite log-density.
    """
    _check("mala", z, steps, step_size)
    at = _point("mala", log_prob, z)
    if not bool(at.value.isfinite().all()):
        raise DataError("mala: log_prob", found="a start without a finite value", expected="finite values")
    log_probs, grad_norms, states, acceptances = [], [], [], []
    for _ in range(steps):
        if keep:
            states.append(at.z)
        log_probs.append(at.value)
        grad_norms.append(at.gradient.norm(dim=1))
        u = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        new = _point("mala", log_prob, at.z + step_size**2 / 2 * at.gradient + step_size * u)
        acceptances.append(_acceptance(at, new, u, step_size))
        uniform = torch.rand(len(z), generator=generator, device=z.device, dtype=z.dtype)
        at = _choose(uniform < acceptances[-1], new, at)
    traces = (_stack(trace, z.shape[:1], z) for trace in (log_probs, grad_norms, acceptances))
    values, norms, acceptance = traces
    return Chain(at.z, values, norms, _stack(states, z.shape, z) if keep else None, acceptance)


class _Point(NamedTuple):
    """States ``[n, d]``, log-densities ``[n]`` and gradients ``[n, d]``."""

    z: Tensor
    value: Tensor
    gradient: Tensor


def _point(where: str, log_prob: LogProb, z: Tensor) -> _Point:
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = log_prob(z)
        if value.shape != z.shape[:1]:
            found, expected = f"shape {tuple(value.shape)}", f"({len(z)},), one a chain"
            raise DataError(f"{where}: log_prob", found=found, expected=expected)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return _Point(z.detach(), value.detach(), gradient)


def _acceptance(old: _Point, new: _Point, u: Tensor, step_size: float) -> Tensor:
    """min(1, p(z′) q(z | z′) / p(z) q(z′ | z)) of the proposals that the noise u led to, ``[n]``."""
    back = (old.z - new.z - step_size**2 / 2 * new.gradient) / step_size  # the noise that would lead back
    log_ratio = new.value - old.value + (u.square().sum(1) - back.square().sum(1)) / 2
    return (log_ratio.exp().clamp(max=1) * new.value.isfinite()).nan_to_num(0.0)


def _choose(taken: Tensor, new: _Point, old: _Point) -> _Point:
    rows = taken[:, None]
    return _Point(
        torch.where(rows, new.z, old.z),
        torch.where(taken, new.value, old.value),
        torch.where(rows, new.gradient, old.gradient),
    )


def _stack(trace: list[Tensor], shape: torch.Size, like: Tensor) -> Tensor:
    return torch.stack(trace) if trace else like.new_empty(0, *shape)


def _check(where: str, z: Tensor, steps: int, step_size: float) -> None:
    if z.ndim != 2 or not z.is_floating_point():
        found = f"{z.dtype} of shape {tuple(z.shape)}"
        raise DataError(f"{where}: z", found=found, expected="floating-point states [n, d]")
    if not isinstance(steps, Integral) or steps < 0:
        raise DataError(f"{where}: steps", found=steps, expected="a whole number, 0 or larger")
    if not (math.isfinite(step_size) and step_size > 0):
        raise DataError(f"{where}: step_size", found=step_size, expected="a positive number")
