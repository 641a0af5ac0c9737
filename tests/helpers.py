"""What tests share: small made-up data sets, processes, the scripts of .ci. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import sys
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from zsl_lib.data import ZSLDataset
from zsl_lib.data.toy import LinearGaussian

CI = Path(__file__).resolve().parent.parent / ".ci"


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_dataset(
    *,
    seed: int = 0,
    seen: int = 5,
    unseen: int = 3,
    per_class: int = 9,
    dim: int = 6,
    semantic_dim: int = 4,
    noise: float = 0.3,
    mask: Tensor | None = None,
) -> ZSLDataset:
    """Features in (0, 1) around a linear function of the semantics, in float32.

    Examples are in random order and the seen classes are a random subset, so that nothing works only
    because indices happen to be contiguous. A third of each seen class's examples is ``test_seen``.
    """
    g, classes = rng(seed), seen + unseen
    is_seen = torch.zeros(classes, dtype=torch.bool)
    is_seen[torch.randperm(classes, generator=g)[:seen]] = True
    labels = torch.arange(classes).repeat_interleave(per_class)
    rank = torch.arange(len(labels)) % per_class
    order = torch.randperm(len(labels), generator=g)
    labels, rank = labels[order], rank[order]
    semantics = torch.rand(classes, semantic_dim, generator=g)
    mean = (semantics @ torch.randn(semantic_dim, dim, generator=g))[labels]
    held_out = rank < per_class // 3
    return ZSLDataset(
        name="made-up",
        features=(mean + noise * torch.randn(mean.shape, generator=g)).sigmoid(),
        labels=labels,
        semantics=semantics,
        class_names=tuple(f"class {c}" for c in range(classes)),
        trainval=(is_seen[labels] & ~held_out).nonzero().flatten(),
        test_seen=(is_seen[labels] & held_out).nonzero().flatten(),
        test_unseen=(~is_seen[labels]).nonzero().flatten(),
        mask=mask,
    )


def processes() -> ForkServerContext:
    """Makes processes that start at once: what takes seconds to import is imported before."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "jsonschema", "zsl_lib.parallel", "torch._dynamo"])
    return context


class World(nn.Module):
    """The true generator of a linear-Gaussian world."""

    def __init__(self, world: LinearGaussian) -> None:
        super().__init__()
        self.world, self.unused = world, nn.Parameter(torch.zeros(1))

    def forward(self, c: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.world.mean(c) + z @ self.world.W.T + 0 * self.unused


def ci_script(name: str) -> ModuleType:
    """A script of ``.ci`` as a module. Its folder stays on the path, for what it imports."""
    if str(CI) not in sys.path:
        sys.path.insert(0, str(CI))
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
