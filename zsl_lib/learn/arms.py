"""Other ways to come by the latents than Eq. 6: the released code's, and two controls that paper 1 lacks.

Each is Algorithm 1 with one method of :class:`ABP` replaced, so all else is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zsl_lib.errors import DataError
from zsl_lib.learn import engine
from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.models.generator import Generator, conditioned, log_joint


class ReleasedLatents(ABP):
    """What the released code does to z: z ← z + s u in the first third of training, then nothing.

    There z is read out of a tensor that requires no gradient, so its optimiser has nothing to do.
    """

    @property
    def walking(self) -> bool:
        """Whether this epoch is in the first third of ``config.epochs``."""
        return 3 * len(self.history) < self.config.epochs

    def infer(
        self,
        z: Tensor,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """l steps of the walk. Returns z and an empty trace: no density is looked at."""
        for _ in range(self.config.langevin_steps):
            z = self._walk(z, generator)
        return z, z.new_empty(0, len(z))

    def _walk(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.walking:
            return z
        rng = self._rng if generator is None else generator
        return z + self.config.step_size * torch.randn(z.shape, generator=rng, device=z.device)

    def _run(self) -> dict[str, Any]:
        """The schedule depends on the number of epochs, so a checkpoint must share it."""
        return super()._run() | {"epochs": self.config.epochs}


class IntendedLatents(ReleasedLatents):
    """What the released code seems to mean: Adam on z at the network's learning rate, new at each visit, and
    the noise of :class:`ReleasedLatents` after each of its steps."""

    def infer(
        self,
        z: Tensor,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """l steps of Adam on −log p(x, z | c), each followed by noise. Returns z and the trace ``[l, n]``."""
        k, trace, slope = self.config, [], self._slope(x, c, mask)
        z = z.detach().clone()
        adam = torch.optim.Adam([z], lr=k.lr, weight_decay=k.weight_decay)
        for _ in range(k.langevin_steps):
            log_p, gradient = slope(z)
            z.grad = -gradient / len(z)
            adam.step()
            z.data = self._walk(z.data, generator)
            trace.append(log_p)
        return z, torch.stack(trace) if trace else z.new_empty(0, len(z))

    def _slope(self, x: Tensor, c: Tensor, mask: Tensor | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """z ↦ log p(x, z | c) and its gradient: by hand for the paper's generator, else by autograd."""
        sigma = self.config.sigma
        if type(self.net) is Generator:
            visit = engine.Visit.of(self.net, x, c, mask, self.config.precision)
            return lambda z: engine.slope(visit, z, sigma)
        mean = conditioned(self.net, c)

        def by_autograd(z: Tensor) -> tuple[Tensor, Tensor]:
            at = z.detach().requires_grad_()
            log_p = log_joint(x, mean(at), at, sigma, mask)
            return log_p.detach(), torch.autograd.grad(log_p.sum(), at)[0]

        return by_autograd


class FreshLatents(ABP):
    """No inference: at each visit z is drawn anew from the prior."""

    def infer(
        self,
        z: Tensor,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """z ~ N(0, I), and an empty trace."""
        rng = self._rng if generator is None else generator
        return torch.randn(z.shape, generator=rng, device=z.device), z.new_empty(0, len(z))


class Released(ReleasedLatents):
    """The released code's order of work on a batch: twice, a learning step and then l inference steps.

    An inference step is a full backward pass of s · loss, whose gradient of θ stays and adds to that of the
    next learning step; its norm is clipped at 1 there. Left-over gradients are dropped at the end of an
    epoch. :data:`RELEASED` has the program's settings.
    """

    def _visit(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        energies = []
        for _ in range(2):
            energies.append(self._backward(z, x, c, mask, 1.0))
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self._adam.step()
            self._adam.zero_grad()
            for _ in range(self.config.langevin_steps):
                self._backward(z, x, c, mask, self.config.step_size)
                z = self._walk(z, None)
        return z, energies[0], energies[1]

    def _backward(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None, factor: float) -> Tensor:
        log_p = log_joint(x, self.net(c, z), z, self.config.sigma, mask)
        (-factor * log_p.mean()).backward()
        return log_p.detach()

    def _epoch(self, data: Any) -> dict[str, float]:
        self._adam.zero_grad()
        return super()._epoch(data)


RELEASED: dict[str, Any] = {"step_size": 0.1, "langevin_steps": 5, "lr": 2e-4, "weight_decay": 1e-3}
"""Settings of the released program where they differ from the paper's (σ is 0.3 on its command lines)."""

ARMS: dict[str, tuple[Callable[..., ABP], dict[str, Any]]] = {
    "paper": (ABP, {}),
    "intended": (IntendedLatents, {}),
    "released": (ReleasedLatents, {}),
    "fresh": (FreshLatents, {}),
    "fixed": (ABP, {"langevin_steps": 0}),
    "none": (ABP, {"latent_dim": 0, "langevin_steps": 0}),
    "program": (Released, RELEASED),
    "program_no_z": (Released, RELEASED | {"latent_dim": 0, "langevin_steps": 0}),
}
"""Name → class and the settings that it changes. *program* is the released code as a whole; *program_no_z* is
its learning steps (rate, decay, clipping) for a model without latents."""


def arm(name: str, config: ABPConfig | None = None, **options: Any) -> ABP:
    """The arm of that name, ready to fit: ``config`` but for what makes the arm, ``options`` as in ABP."""
    if name not in ARMS:
        raise DataError("arm", found=repr(name), expected=f"one of {', '.join(ARMS)}")
    kind, changes = ARMS[name]
    return kind(replace(config or ABPConfig(), **changes), **options)
