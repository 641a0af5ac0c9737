"""What learning epoch by epoch has in common, whatever moves the weights.

:class:`EpochLearner`: epochs and checkpoints that resume exactly. :class:`FeatureLearner`: with data on the
device and sampling, a generator of features; :class:`~zsl_lib.learn.abp.ABP` and
:class:`~zsl_lib.learn.vae.CVAE` say how an epoch of it goes.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.models.generator import ancestral_sample


class Network(Protocol):
    """Makes a generator: any ``nn.Module`` that maps c ``[n, K]`` and z ``[n, d]`` to means ``[n, D]``."""

    def __call__(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module: ...


class EpochLearner:
    """A network that is learned epoch by epoch.

    A subclass gives ``Config`` (a dataclass with epochs), :meth:`_training`, :meth:`_start`, :meth:`_epoch`
    and what a checkpoint must hold beside network and Adam (:meth:`_state`, :meth:`_restore`).

    Parameters
    ----------
    config: a ``Config``; its defaults if None. seed: of weights, of the order of examples and all else.
    device: ``"auto"``, ``"cpu"``, ``"cuda"``.
    """

    Config: ClassVar[type]
    net: nn.Module
    _adam: torch.optim.Optimizer
    _rng: torch.Generator
    _data_digest: str

    def __init__(self, config: Any = None, *, seed: int = 0, device: str = "auto") -> None:
        self.config = self.Config() if config is None else config
        self.seed = seed
        self.device = pick_device(device)
        self.history: list[dict[str, float]] = []

    def fit(
        self,
        dataset: ZSLDataset,
        *,
        epochs: int | None = None,
        checkpoint: str | Path | None = None,
        after_epoch: Callable[[Any], Any] | None = None,
        progress: bool = True,
    ) -> Self:
        """Learn from ``dataset.trainval``; inputs are used as they come (see ``dataset.scaled()``).

        Parameters
        ----------
        epochs: stop after this many in all (``config.epochs`` by default).
        checkpoint: file written after each epoch. If it exists, learning goes on from it and gives the
            same result as an uninterrupted run.
        after_epoch: called with the model after each epoch, e.g. to evaluate it.

        Raises
        ------
        DataError: nothing to learn from, negative epochs, or a checkpoint of another run or of more epochs.
        ArithmeticError: an epoch's loss is not finite. The checkpoint stays that of the epoch before.
        """
        last = self.config.epochs if epochs is None else epochs
        if last < 0:
            raise DataError(f"{type(self).__name__}.fit: epochs", found=last, expected="0 or more")
        data = self._training(dataset)
        self._start(data)
        if checkpoint is not None and (stored := self._stored(Path(checkpoint))) is not None:
            self._resume(Path(checkpoint), stored)
        if len(self.history) > last:
            raise DataError(str(checkpoint), found=f"{len(self.history)} epochs", expected=f"at most {last}")
        todo = range(len(self.history), last)
        for _ in (bar := tqdm(todo, desc=type(self).__name__, unit="epoch", disable=not progress)):
            self.history.append(self._checked(self._epoch(data)))
            bar.set_postfix(loss=f"{self.history[-1]['loss']:.4g}")
            if checkpoint is not None:
                self._save(Path(checkpoint))
            if after_epoch is not None:
                after_epoch(self)
        return self

    def _training(self, dataset: ZSLDataset) -> Any:
        """The examples to learn from, on the device."""
        raise NotImplementedError

    def _start(self, data: Any) -> None:
        """Initialise ``net``, ``_adam``, ``_rng``, ``history`` and ``_data_digest`` from the seed."""
        raise NotImplementedError

    def _epoch(self, data: Any) -> dict[str, float]:
        """One pass over the training examples; returns an entry of ``history``."""
        raise NotImplementedError

    def _checked(self, entry: dict[str, float]) -> dict[str, float]:
        if math.isfinite(entry["loss"]):
            return entry
        epoch = f"{type(self).__name__}.fit: epoch {len(self.history) + 1}"
        raise ArithmeticError(
            f"{epoch} has loss {entry['loss']}, expected a finite number; a smaller learning rate may help"
        )

    def _state(self) -> dict[str, Any]:
        """What a subclass adds to a checkpoint."""
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        """Take :meth:`_state` back."""

    def _save(self, path: Path) -> None:
        state = {
            "run": self._run(),
            "net": self.net.state_dict(),
            "adam": self._adam.state_dict(),
            "rng": self._rng.get_state(),
            "history": self.history,
        } | self._state()
        self._write(path, state)

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        atomic_write(path, lambda file: torch.save(state, file))

    def _stored(self, path: Path) -> bytes | None:
        """The checkpoint's content; None if there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(
                str(path), found=f"no readable file ({error})", expected="a checkpoint"
            ) from error

    def _resume(self, path: Path, stored: bytes) -> None:
        try:
            state = torch.load(io.BytesIO(stored), map_location=self.device, weights_only=True)
        except Exception as error:
            raise DataError(
                str(path), found="no readable checkpoint", expected=f"one of {type(self).__name__}.fit"
            ) from error
        run = state.get("run") if isinstance(state, dict) else None
        plain = isinstance(run, dict) and not any(isinstance(value, Tensor) for value in run.values())
        expect_run(str(path), run if plain else None, self._run())
        try:
            self.net.load_state_dict(state["net"])
            self._adam.load_state_dict(state["adam"])
            self._rng.set_state(state["rng"].cpu())
            self.history = state["history"]
            self._restore(state)
        except Exception as error:
            found = f"parts that do not fit ({type(error).__name__})"
            raise DataError(str(path), found=found, expected="one of this run") from error

    def _run(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that goes on from it (epochs may differ)."""
        run = {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.config).items() if k != "epochs"
        }
        kind = {"method": type(self).__name__, "network": type(self.net).__name__}
        return run | kind | {"seed": self.seed, "device": self.device.type, "data": self._data_digest}


def expect_run(where: str, found: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    """Raise DataError, naming what differs, unless both runs (:meth:`EpochLearner._run`) are one."""
    if found != expected:
        different = {k: v for k, v in (found or {}).items() if expected.get(k) != v}
        wanted = {k: expected.get(k) for k in different}
        raise DataError(where, found=different or "nothing of this run", expected=wanted or "one of this run")


class FeatureLearner(EpochLearner):
    """A generator of features that is learned epoch by epoch.

    A subclass gives ``Config`` (a dataclass with latent_dim, sigma, batch_size, lr, betas, weight_decay and
    epochs), :meth:`_epoch` and :meth:`_paper_network`, and what a checkpoint must hold beside network and
    Adam.

    Parameters
    ----------
    config, seed, device: see :class:`EpochLearner`.
    network: makes another generator than the method's own, see :class:`Network`.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        seed: int = 0,
        device: str = "auto",
        network: Network | None = None,
    ) -> None:
        super().__init__(config, seed=seed, device=device)
        self.network = network or self._paper_network

    def sample(
        self, semantics: Tensor, n: int, generator: torch.Generator | None = None, *, noise: bool = False
    ) -> Tensor:
        """n synthetic features a class ``[C, n, D]`` for semantics ``[C, K]``, on the CPU.

        ``noise`` adds ε ~ N(0, σ²) as §4.1 writes it; the released code leaves it out, as does the default.
        """
        if not hasattr(self, "net"):
            raise DataError(f"{type(self).__name__}.sample", found="no generator", expected="fit() before")
        sigma = self.config.sigma if noise else 0.0
        rng = _rng_on(self.device, generator)
        d = self.config.latent_dim
        return ancestral_sample(self.net, semantics.to(self.device), n, d, sigma=sigma, generator=rng).cpu()

    def _training(self, dataset: ZSLDataset) -> Training:
        return Training(dataset, self.device)

    def _paper_network(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module:
        raise NotImplementedError

    def _start(self, data: Training) -> None:
        """Initialise θ and Adam from the seed, then what :meth:`_begin` adds."""
        k, cpu = self.config, torch.Generator().manual_seed(self.seed)
        dims = data.semantics.shape[1], k.latent_dim, data.x.shape[1]
        self.net = self.network(*dims, cpu).to(self.device)
        self._begin(data, cpu)
        self._rng = torch.Generator(self.device).manual_seed(self.seed)
        self._adam = torch.optim.Adam(
            self.net.parameters(), lr=k.lr, betas=k.betas, weight_decay=k.weight_decay, fused=True
        )
        self.history = []
        self._data_digest = data.digest

    def _begin(self, data: Training, rng: torch.Generator) -> None:
        """What a subclass initialises; ``rng`` goes on from the network's initial weights."""


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
