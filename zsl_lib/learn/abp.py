"""Alternating back-propagation (paper 1, Algorithm 1): maximum likelihood without an auxiliary network.

Differences from the paper and from the released code are listed in the book's chapter 05. Other ways to come
by the latents are in :mod:`zsl_lib.learn.arms`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from zsl_lib.errors import DataError, check_range
from zsl_lib.learn import engine
from zsl_lib.learn.langevin import langevin
from zsl_lib.learn.learner import FeatureLearner, Training
from zsl_lib.models.generator import Generator, conditioned, log_joint


@dataclass(frozen=True)
class ABPConfig:
    """Hyper-parameters; the defaults are those printed in paper 1, §5.1.

    latent_dim: d; 0 leaves x = g(c) + ε, a regression. hidden: width of the generator. sigma: σ of Eq. 1, in
    units of the scaled features. langevin_steps, step_size: l and s of Eq. 6; with l = 0 the latents stay as
    they were drawn. batch_size, lr, betas, weight_decay: Adam's; no decay in the paper, 1e-3 in the released
    code. epochs: passes over trainval. precision: of the matrix products of inference, float32 or bfloat16
    (faster where the hardware has it; latents, noise and learning stay in float32).

    Raises
    ------
    DataError: a value out of its range, or a precision of another name.
    """

    latent_dim: int = 10
    hidden: int = 4096
    sigma: float = 0.3
    langevin_steps: int = 10
    step_size: float = 0.3
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    epochs: int = 50
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_range(self, 1, "hidden", "batch_size", whole=True)
        check_range(self, 0, "latent_dim", "langevin_steps", "epochs", whole=True)
        check_range(self, 0, "sigma", "step_size", above=True)
        check_range(self, 0, "lr", "weight_decay")
        if self.precision not in ("float32", "bfloat16"):
            raise DataError("ABPConfig.precision", found=repr(self.precision), expected="float32 or bfloat16")


class ABP(FeatureLearner):
    """A conditional generator learned by Algorithm 1.

    Parameters
    ----------
    network: makes another generator than the paper's, see :class:`~zsl_lib.learn.learner.Network`.

    Attributes
    ----------
    net: the generator; z: the persistent latents ``[n, d]``, row i belonging to ``dataset.trainval[i]``.
    history: one dict an epoch, see :meth:`_epoch`.

    :meth:`fit` raises ArithmeticError if a Langevin chain diverges.

    Examples
    --------
    >>> model = ABP(ABPConfig(epochs=5), seed=0).fit(dataset)      # doctest: +SKIP
    >>> model.sample(dataset.semantics[dataset.unseen], n=300)     # doctest: +SKIP
    """

    Config = ABPConfig
    config: ABPConfig
    z: Tensor

    def infer(
        self,
        z: Tensor,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Inferential back-propagation (Eq. 6): l steps from z. Returns new z and the trace ``[l, n]``.

        By :mod:`zsl_lib.learn.engine` for the paper's generator, else by :meth:`infer_by_autograd`; both give
        the same chain. ``generator`` is the source of noise; without it, training's own is used and moves on.
        """
        rng = self._rng if generator is None else generator
        if type(self.net) is not Generator:
            return self.infer_by_autograd(z, x, c, mask, rng)
        noise = partial(torch.randn, z.shape, generator=rng, device=z.device, dtype=z.dtype)
        return self._chain(z, x, c, mask, noise)

    def _chain(
        self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """:meth:`infer` for the paper's generator; ``noise()`` gives the u of a step."""
        k, net = self.config, cast(Generator, self.net)
        visit = engine.Visit.of(net, x, c, mask, k.precision)
        return engine.chain(visit, z, noise, sigma=k.sigma, steps=k.langevin_steps, step_size=k.step_size)

    def infer_by_autograd(
        self,
        z: Tensor,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`infer` as one writes it first, for any ``nn.Module`` g(c, z)."""
        k, mean = self.config, conditioned(self.net, c)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=k.precision == "bfloat16"):
            chain = langevin(
                lambda z: log_joint(x, mean(z), z, k.sigma, mask),
                z,
                steps=k.langevin_steps,
                step_size=k.step_size,
                generator=self._rng if generator is None else generator,
            )
        return chain.z, chain.log_prob

    def learn(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
        """Learning back-propagation (Eq. 7–8): an Adam step on θ. Returns log p(x, z | c) ``[n]``."""
        log_p = log_joint(x, self.net(c, z), z, self.config.sigma, mask)
        self._adam.zero_grad(set_to_none=True)
        (-log_p.mean()).backward()
        self._adam.step()
        return log_p.detach()

    def _epoch(self, data: Training) -> dict[str, float]:
        """One pass of Algorithm 1 over the training examples, in a fresh random order.

        Returns loss (mean −log p(x, z | c) at the moment of learning), energy_start (the same before
        inference), moved (root mean square displacement of z a visit, over √d), z_variance (mean
        square of z, 1 under the prior) and seconds.
        """
        start, n = time.perf_counter(), len(data.x)
        sums = torch.zeros(4, device=self.device, dtype=torch.float64)
        order = torch.randperm(n, generator=self._rng, device=self.device)
        for index in order.split(self.config.batch_size):
            x, c, mask = data.batch(index)
            before = self.z[index]
            z, first, log_p = self._visit(before, x, c, mask)
            self.z[index] = z
            sums += visit_sums(before, z, first, log_p)
        return self._entry(sums / n, time.perf_counter() - start)

    def _entry(self, means: Tensor, seconds: float) -> dict[str, float]:
        """An epoch of ``history`` from :func:`visit_sums` over n."""
        loss, energy_start, moved_sq, variance = means.tolist()
        return {
            "epoch": len(self.history) + 1,
            "loss": loss,
            "energy_start": energy_start,
            "moved": moved_sq**0.5,
            "z_variance": variance,
            "seconds": seconds,
        }

    def _visit(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Inference, then learning, on a batch. Returns z, and log p(x, z | c) ``[n]`` before and after."""
        z, trace = self.infer(z, x, c, mask)
        log_p = self.learn(z, x, c, mask)
        return z, trace[0] if len(trace) else log_p, log_p

    def _paper_network(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module:
        return Generator(semantic_dim, latent_dim, feature_dim, self.config.hidden, generator=rng)

    def _begin(self, data: Training, rng: torch.Generator) -> None:
        """z ~ N(0, I), one for each training example (line 1 of Algorithm 1)."""
        self.z = torch.randn(len(data.x), self.config.latent_dim, generator=rng).to(self.device)

    def _state(self) -> dict[str, Any]:
        return {"z": self.z}

    def _restore(self, state: dict[str, Any]) -> None:
        self.z.copy_(state["z"])


def visit_sums(before: Tensor, z: Tensor, first: Tensor, log_p: Tensor) -> Tensor:
    """What ``history`` averages, summed over a batch ``[..., n]``: ``[4, ...]`` in float64."""
    d = max(1, z.shape[-1])
    moved, size = (z - before).square().sum((-1, -2)) / d, z.square().sum((-1, -2)) / d
    return torch.stack([-log_p.sum(-1), -first.sum(-1), moved, size]).double()
