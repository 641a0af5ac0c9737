"""Alternating back-propagation (paper 1, Algorithm 1): maximum likelihood without an auxiliary network.

Differences from the paper and from the released code are listed in the book's chapter 05. Other ways to come
by the latents are in :mod:`zsl_lib.learn.arms`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.learn import engine
from zsl_lib.learn.langevin import langevin
from zsl_lib.models.generator import Generator, ancestral_sample, conditioned, log_joint


@dataclass(frozen=True)
class ABPConfig:
    """Hyper-parameters; the defaults are those printed in paper 1, §5.1.

    latent_dim: d; 0 leaves x = g(c) + ε, a regression. hidden: width of the generator. sigma: σ of Eq. 1, in
    units of the scaled features. langevin_steps, step_size: l and s of Eq. 6; with l = 0 the latents stay as
    they were drawn. batch_size, lr, betas: Adam's. epochs: passes over
    trainval. weight_decay: 0 in the paper, 1e-3 in the released code. precision: of the matrix products of
    inference, float32 or bfloat16 (faster where the hardware has it; latents, noise and learning stay in
    float32).

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
        for name in ("hidden", "batch_size"):
            _check(self, name, 1, "a whole number of 1 or more")
        for name in ("latent_dim", "langevin_steps", "epochs"):
            _check(self, name, 0, "a whole number of 0 or more")
        for name in ("sigma", "step_size"):
            if not (value := getattr(self, name)) > 0 or not math.isfinite(value):
                raise DataError(f"ABPConfig.{name}", found=value, expected="a positive number")
        if not self.lr >= 0 or not math.isfinite(self.lr):
            raise DataError("ABPConfig.lr", found=self.lr, expected="a number of 0 or more")
        if self.precision not in ("float32", "bfloat16"):
            raise DataError("ABPConfig.precision", found=repr(self.precision), expected="float32 or bfloat16")


def _check(config: ABPConfig, name: str, least: int, expected: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, int) or value < least:
        raise DataError(f"ABPConfig.{name}", found=value, expected=expected)


class Network(Protocol):
    """Makes a generator: any ``nn.Module`` that maps c ``[n, K]`` and z ``[n, d]`` to means ``[n, D]``."""

    def __call__(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module: ...


class ABP:
    """A conditional generator learned by Algorithm 1.

    Parameters
    ----------
    network: makes another generator than the paper's, see :class:`Network`.

    Attributes
    ----------
    net: the generator; z: the persistent latents ``[n, d]``, row i belonging to ``dataset.trainval[i]``.
    history: one dict an epoch, see :meth:`_epoch`.

    Examples
    --------
    >>> model = ABP(ABPConfig(epochs=5), seed=0).fit(dataset)      # doctest: +SKIP
    >>> model.sample(dataset.semantics[dataset.unseen], n=300)     # doctest: +SKIP
    """

    net: nn.Module
    z: Tensor

    def __init__(
        self,
        config: ABPConfig | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        network: Network | None = None,
    ) -> None:
        self.config = config or ABPConfig()
        self.network = network or self._paper_network
        self.seed = seed
        self.device = pick_device(device)
        self.history: list[dict[str, float]] = []

    def fit(
        self,
        dataset: ZSLDataset,
        *,
        epochs: int | None = None,
        checkpoint: str | Path | None = None,
        after_epoch: Callable[[ABP], Any] | None = None,
        progress: bool = True,
    ) -> ABP:
        """Learn from ``dataset.trainval``; features are used as they come (see ``dataset.scaled()``).

        Parameters
        ----------
        epochs: stop after this many in all (``config.epochs`` by default).
        checkpoint: file written after each epoch. If it exists, learning goes on from it and gives the
            same result as an uninterrupted run.
        after_epoch: called with the model after each epoch, e.g. to evaluate it.

        Raises
        ------
        DataError: no features, or a checkpoint of another run or of more epochs.
        ArithmeticError: a Langevin chain diverged.
        """
        data = Training(dataset, self.device)
        self._start(data)
        if checkpoint is not None and Path(checkpoint).exists():
            self._resume(Path(checkpoint))
        last = self.config.epochs if epochs is None else epochs
        if len(self.history) > last:
            raise DataError(str(checkpoint), found=f"{len(self.history)} epochs", expected=f"at most {last}")
        todo = range(len(self.history), last)
        for _ in (bar := tqdm(todo, desc="ABP", unit="epoch", disable=not progress)):
            self.history.append(self._epoch(data))
            bar.set_postfix(loss=f"{self.history[-1]['loss']:.1f}")
            if checkpoint is not None:
                self._save(Path(checkpoint))
            if after_epoch is not None:
                after_epoch(self)
        return self

    def sample(
        self, semantics: Tensor, n: int, generator: torch.Generator | None = None, *, noise: bool = False
    ) -> Tensor:
        """n synthetic features a class ``[C, n, D]`` for semantics ``[C, K]``, on the CPU.

        ``noise`` adds ε ~ N(0, σ²) as §4.1 writes it; the released code leaves it out, as does the default.
        """
        if not hasattr(self, "net"):
            raise DataError("ABP.sample", found="no generator", expected="fit() before")
        sigma = self.config.sigma if noise else 0.0
        rng = _rng_on(self.device, generator)
        d = self.config.latent_dim
        return ancestral_sample(self.net, semantics.to(self.device), n, d, sigma=sigma, generator=rng).cpu()

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
        k, rng = self.config, self._rng if generator is None else generator
        if type(self.net) is not Generator:
            return self.infer_by_autograd(z, x, c, mask, rng)
        return engine.chain(
            engine.Visit.of(self.net, x, c, mask, k.precision),
            z,
            lambda: torch.randn(z.shape, generator=rng, device=z.device, dtype=z.dtype),
            sigma=k.sigma,
            steps=k.langevin_steps,
            step_size=k.step_size,
        )

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

    def _start(self, data: Training) -> None:
        """Initialise θ, z ~ N(0, I) and Adam, all from the seed (line 1 of Algorithm 1)."""
        k, cpu = self.config, torch.Generator().manual_seed(self.seed)
        dims = data.semantics.shape[1], k.latent_dim, data.x.shape[1]
        self.net = self.network(*dims, cpu).to(self.device)
        self.z = torch.randn(len(data.x), k.latent_dim, generator=cpu).to(self.device)
        self._rng = torch.Generator(self.device).manual_seed(self.seed)
        self._adam = torch.optim.Adam(
            self.net.parameters(), lr=k.lr, betas=k.betas, weight_decay=k.weight_decay, fused=True
        )
        self.history = []
        self._data_digest = data.digest

    def _save(self, path: Path) -> None:
        state = {
            "run": self._run(),
            "net": self.net.state_dict(),
            "adam": self._adam.state_dict(),
            "z": self.z,
            "rng": self._rng.get_state(),
            "history": self.history,
        }
        atomic_write(path, lambda file: torch.save(state, file))

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise DataError(str(path), found="no readable checkpoint", expected="one of ABP.fit") from error
        found, expected = state.get("run") if isinstance(state, dict) else None, self._run()
        if found != expected:
            different = {k: v for k, v in (found or {}).items() if expected.get(k) != v}
            wanted = {k: expected.get(k) for k in different}
            raise DataError(
                str(path), found=different or "no ABP checkpoint", expected=wanted or "one of this run"
            )
        self.net.load_state_dict(state["net"])
        self._adam.load_state_dict(state["adam"])
        self.z.copy_(state["z"])
        self._rng.set_state(state["rng"].cpu())
        self.history = state["history"]

    def _run(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that goes on from it (epochs may differ)."""
        run = {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.config).items() if k != "epochs"
        }
        kind = {"method": type(self).__name__, "network": type(self.net).__name__}
        return run | kind | {"seed": self.seed, "device": self.device.type, "data": self._data_digest}


def visit_sums(before: Tensor, z: Tensor, first: Tensor, log_p: Tensor) -> Tensor:
    """What ``history`` averages, summed over a batch ``[..., n]``: ``[4, ...]`` in float64."""
    d = max(1, z.shape[-1])
    moved, size = (z - before).square().sum((-1, -2)) / d, z.square().sum((-1, -2)) / d
    return torch.stack([-log_p.sum(-1), -first.sum(-1), moved, size]).double()


class Training:
    """The training examples on the device."""

    def __init__(self, dataset: ZSLDataset, device: torch.device) -> None:
        if dataset.features is None:
            raise DataError(f"{dataset.name}: features", found="none", expected="features to learn from")
        index = dataset.trainval
        self.x = dataset.features[index].to(device)
        self.labels = dataset.labels[index].to(device)
        self.semantics = dataset.semantics.to(device)
        self.mask = None if dataset.mask is None else dataset.mask[index].to(device)
        self.digest = _digest(self.x, self.labels, self.semantics, self.mask)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        mask = None if self.mask is None else self.mask[index]
        return self.x[index], self.semantics[self.labels[index]], mask


def _digest(*tensors: Tensor | None) -> str:
    """SHA-256 of all that is learned from: features alone would not tell CUB's att from its sent."""
    total = hashlib.sha256()
    for t in tensors:
        total.update(b"none" if t is None else f"{t.dtype}{tuple(t.shape)}".encode())
        if t is not None:
            total.update(t.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _rng_on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """A generator on ``device`` that continues from ``generator`` (which may live elsewhere)."""
    if generator is None or generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)
