"""Algorithm 1 in several processes, on one machine or more: each holds its share of the examples and their z.

The run is that of one process, to rounding: the same batches, the same noise, and a gradient that is the sum
of the processes' parts. This is plain ``torch.distributed``: sums over processes are all it takes, while
DistributedDataParallel, which Lightning Fabric uses too, averages gradients as if all shares of a batch were
equally large. ``torchrun -m zsl_lib.parallel`` is the command.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP, ABPConfig, visit_sums
from zsl_lib.learn.learner import Training, expect_run
from zsl_lib.models.generator import log_joint


class ShardedABP(ABP):
    """:class:`ABP` with the paper's generator in R processes, after ``torch.distributed.init_process_group``.

    Example i of trainval and its z belong to process i mod R. Every process draws the order of the epoch and
    the noise of the whole batch from the same seed, and takes its own rows. So a batch's examples are spread
    by chance, and R processes are somewhat less than R times as fast.

    Attributes
    ----------
    net: the same in all processes. z: this process's latents ``[n, d]``, row j belonging to
    ``dataset.trainval[j R + r]`` in process r; :meth:`latents` has all. history: the same in all processes
    but for the seconds.

    A checkpoint is written and read by process 0 alone. It is that of :class:`ABP`: any number of processes,
    of one kind of device, goes on from it.

    :meth:`fit` raises DataError in all processes if there are more of them than examples in a batch, or if
    one has other data or settings than process 0. A process that fails for a reason of its own leaves the
    others waiting: end them, as torchrun does.
    """

    def __init__(self, config: ABPConfig | None = None, *, seed: int = 0, device: str = "auto") -> None:
        if not dist.is_initialized():
            hint = "start it by torchrun, e.g. torchrun --nproc-per-node 2 -m zsl_lib.parallel"
            raise DataError("ShardedABP", found="no process group", expected="init_process_group", hint=hint)
        super().__init__(config, seed=seed, device=device)
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()

    def latents(self) -> Tensor:
        """All latents ``[N, d]`` in the order of trainval. All processes must call it."""
        whole = self.z.new_zeros(self._n, self.z.shape[1])
        whole[self.rank :: self.ranks] = self.z
        dist.all_reduce(whole)
        return whole

    def _training(self, dataset: ZSLDataset) -> Shard:
        return Shard(dataset, self.device, self.rank, self.ranks)

    def _start(self, data: Shard) -> None:  # type: ignore[override]
        most = min(self.config.batch_size, data.n)
        if self.ranks > most:
            expected = f"at most {most}, the examples of a batch"
            raise DataError("ShardedABP.fit: processes", found=self.ranks, expected=expected)
        super()._start(data)
        self._n = data.n
        run = self._run() | {"epochs": self.config.epochs}
        first = json.loads(from_first(json.dumps(run).encode(), self.device) or b"")
        differs = torch.tensor(float(first != run), device=self.device)
        dist.all_reduce(differs)
        expect_run(f"process {self.rank} of {self.ranks}", run, first)
        if differs:
            found = f"{int(differs)} with other data or settings"
            raise DataError(f"{self.ranks} processes", found=found, expected="one run")

    def _begin(self, data: Shard, rng: torch.Generator) -> None:  # type: ignore[override]
        z = torch.randn(data.n, self.config.latent_dim, generator=rng)
        self.z = z[self.rank :: self.ranks].to(self.device)

    def _epoch(self, data: Shard) -> dict[str, float]:  # type: ignore[override]
        """:meth:`ABP._epoch`, of whose every batch this process visits its own rows."""
        start = time.perf_counter()
        sums = torch.zeros(4, device=self.device, dtype=torch.float64)
        order = torch.randperm(data.n, generator=self._rng, device=self.device)
        for index in order.split(self.config.batch_size):
            rows = (index % self.ranks == self.rank).nonzero().flatten()
            own = index[rows] // self.ranks
            x, c, mask = data.batch(own)
            before = self.z[own]
            z, trace = self._chain(before, x, c, mask, partial(self._noise, len(index), rows))
            self.z[own] = z
            log_p = self._learn_share(z, x, c, mask, len(index))
            sums += visit_sums(before, z, trace[0] if len(trace) else log_p, log_p)
        dist.all_reduce(sums)
        return self._entry(sums / data.n, time.perf_counter() - start)

    def _noise(self, n: int, rows: Tensor) -> Tensor:
        """``rows`` of u ~ N(0, I) ``[n, d]``."""
        return torch.randn(n, self.z.shape[1], generator=self._rng, device=self.device)[rows]

    def _learn_share(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None, n: int) -> Tensor:
        """:meth:`ABP.learn` on the rows of a batch of n that are here, perhaps none."""
        log_p = log_joint(x, self.net(c, z), z, self.config.sigma, mask)
        self._adam.zero_grad(set_to_none=True)
        (-log_p.sum() / n).backward()
        for p in self.net.parameters():
            dist.all_reduce(p.grad)
        self._adam.step()
        return log_p.detach()

    def _run(self) -> dict[str, Any]:
        return super()._run() | {"method": ABP.__name__}

    def _state(self) -> dict[str, Any]:
        return {"z": self.latents()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.z.copy_(state["z"][self.rank :: self.ranks])

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        if self.rank == 0:
            super()._write(path, state)

    def _stored(self, path: Path) -> bytes | None:
        return from_first(super()._stored(path) if self.rank == 0 else None, self.device)


class Shard(Training):
    """Of n training examples, those of one process on its device; ``digest`` is that of all."""

    def __init__(self, dataset: ZSLDataset, device: torch.device, rank: int, ranks: int) -> None:
        super().__init__(dataset, torch.device("cpu"))
        self.n, own = len(self.x), slice(rank, None, ranks)
        self.x, self.labels = self.x[own].to(device, copy=True), self.labels[own].to(device)
        self.mask = None if self.mask is None else self.mask[own].to(device, copy=True)
        self.semantics = self.semantics.to(device)


def from_first(content: bytes | None, device: torch.device) -> bytes | None:
    """What process 0 gives, in every process."""
    size = torch.tensor(-1 if content is None else len(content), device=device)
    dist.broadcast(size, 0)
    if size < 0:
        return None
    sent = torch.empty(int(size), dtype=torch.uint8, device=device)
    if dist.get_rank() == 0:
        sent.copy_(torch.from_numpy(np.frombuffer(content or b"", np.uint8).copy()))
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().tobytes()
