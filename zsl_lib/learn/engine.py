"""Eq. 6 by hand for the paper's one-hidden-layer generator: what :func:`langevin` does by autograd, faster.

Inference is where ABP's time goes. Three things save most of it:

- c's share of the hidden layer is constant while z moves, so it is computed once a visit;
- the gradient in z needs two large products a step, and nothing of the weights' gradient;
- the copy of the large matrix that these products use may be bfloat16: its rounding is small against the
  chain's own noise. Latents, noise and sums stay in float32, and the learning step does not come here.

Every function works on one network or on S of them, stacked in a leading dimension: ``[...]`` below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.models.generator import SLOPE, Generator


class Visit(NamedTuple):
    """What is constant while the chains of n examples move.

    x: features ``[..., n, D]``. mask: None, or True where they are observed.
    from_c: W1's share of c, with b1, ``[..., n, H]``. inner: W1's columns for z, ``[..., H, d]``.
    outer: W2 ``[..., D, H]`` in the precision of the products. bias: b2 ``[..., 1, D]``.
    """

    x: Tensor
    mask: Tensor | None
    from_c: Tensor
    inner: Tensor
    outer: Tensor
    bias: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, net: Generator, x: Tensor, c: Tensor, mask: Tensor | None, precision: str) -> Visit:
        """From a network, features, semantics ``[n, K]`` and the precision of the products."""
        weight = net.outer.weight
        return cls(
            x=x,
            mask=mask,
            from_c=net.condition(c),
            inner=net.inner.weight[:, net.semantic_dim :].contiguous(),
            outer=weight.to(torch.bfloat16 if precision == "bfloat16" else weight.dtype),
            bias=net.outer.bias[None],
        )


@torch.no_grad()
def slope(visit: Visit, z: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """log p(x, z | c) ``[..., n]``, without its constant, and its gradient in z ``[..., n, d]``.

    With h = leaky(from_c + W1 z), a = W2 h + b2 and r = M ∘ (x − relu(a)), the gradient is
    W1ᵀ [leaky′ ∘ W2ᵀ (1[a > 0] ∘ r)] / σ² − z.
    """
    _, mask, from_c, inner, outer, bias = visit
    hidden = from_c + z @ inner.mT
    h = F.leaky_relu(hidden, SLOPE).to(outer.dtype)
    # as W2 hᵀ, because a CPU multiplies fastest from the left by what is stored by rows
    a = (outer @ h.mT).mT.contiguous().to(z.dtype) + bias
    r = visit.x - a.relu()
    if mask is not None:
        r = torch.where(mask, r, 0.0)
    sent = (torch.where(a > 0, r, 0.0).to(outer.dtype) @ outer).to(z.dtype)
    sent = torch.ops.aten.leaky_relu_backward(sent, hidden, SLOPE, False)
    log_p = -r.square().sum(-1) / (2 * sigma**2) - z.square().sum(-1) / 2
    return log_p, sent @ inner / sigma**2 - z


@torch.no_grad()
def chain(
    visit: Visit, z: Tensor, noise: Callable[[], Tensor], *, sigma: float, steps: int, step_size: float
) -> tuple[Tensor, Tensor]:
    """l steps of Eq. 6 from z ``[..., n, d]``; ``noise()`` gives the u ~ N(0, I) of a step, of z's shape.

    Returns new z and log p(x, z | c), without its constant, before each step ``[l, ..., n]``.

    Raises
    ------
    ArithmeticError: a chain left the finite numbers, because s is too large for the curvature.
    """
    trace = []
    for _ in range(steps):
        log_p, gradient = slope(visit, z, sigma)
        trace.append(log_p)
        z = z + step_size**2 / 2 * gradient + step_size * noise()
    if not bool(z.isfinite().all()):
        raise ArithmeticError(
            f"Langevin chain diverged within {steps} steps: step_size {step_size} is too large"
        )
    return z, torch.stack(trace) if trace else z.new_empty(0, *z.shape[:-1])
