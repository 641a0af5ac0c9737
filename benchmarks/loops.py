"""One visit of a batch, written in three ways; the library's is what the others are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.arms import RELEASED, Released

SIZES = {
    "cub_size": {"semantic_dim": 312, "hidden": 4096, "feature_dim": 2048},
    "hangul_size": {"semantic_dim": 68, "hidden": 1024, "feature_dim": 128},
}


class Plain(ABP):
    """Eq. 6 and 8 as one writes them first: one network on [c, z], and each Langevin step a whole backward
    pass, with the gradient of the weights that inference throws away."""

    def _visit(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        k, first = self.config, None
        for _ in range(k.langevin_steps):
            z = z.detach().requires_grad_()
            self._adam.zero_grad()
            energy = self._energy(z, x, c)
            first = -energy.detach() if first is None else first
            energy.sum().backward()
            noise = torch.randn(z.shape, generator=self._rng, device=z.device)
            z = z.detach() - k.step_size**2 / 2 * z.grad + k.step_size * noise
        self._adam.zero_grad()
        energy = self._energy(z, x, c)
        energy.mean().backward()
        self._adam.step()
        return z, first, -energy.detach()

    def _energy(self, z: Tensor, x: Tensor, c: Tensor) -> Tensor:
        hidden = torch.nn.functional.leaky_relu(self.net.inner(torch.cat([c, z], 1)), 0.2)
        mean = torch.relu(self.net.outer(hidden))
        return (x - mean).square().sum(1) / (2 * self.config.sigma**2) + z.square().sum(1) / 2


LOOPS: dict[str, Callable[..., ABP]] = {
    "released": lambda config, **options: Released(replace(config, **RELEASED), **options),
    "plain": Plain,
    "library": ABP,
    "library_bf16": lambda config, **options: ABP(replace(config, precision="bfloat16"), **options),
}
"""Name → what makes the model from a config, seed and device. *released* has the program's own settings:
two alternations of five inference steps, so as many steps a batch as the paper's ten."""


def random_data(n: int, semantic_dim: int, feature_dim: int) -> ZSLDataset:
    """n training examples of one class with features in [0, 1], and a test image of each kind."""
    g = torch.Generator().manual_seed(0)
    return ZSLDataset(
        name="random",
        features=torch.rand(n + 2, feature_dim, generator=g),
        labels=torch.cat([torch.zeros(n), torch.tensor([0.0, 1.0])]).long(),
        semantics=torch.rand(2, semantic_dim, generator=g),
        class_names=("seen", "unseen"),
        trainval=torch.arange(n),
        test_seen=torch.tensor([n]),
        test_unseen=torch.tensor([n + 1]),
    )


def visit(
    loop: str, device: str, *, semantic_dim: int, hidden: int, feature_dim: int, batch: int = 64
) -> Callable[[], object]:
    """A function that visits the same random batch each time, on a model of that loop and size."""
    data = random_data(batch, semantic_dim, feature_dim)
    model = LOOPS[loop](ABPConfig(hidden=hidden, batch_size=batch), seed=0, device=device)
    model.fit(data, epochs=0, progress=False)
    x = data.x(data.trainval).to(model.device)
    c = data.semantics[:1].expand(batch, -1).to(model.device).contiguous()
    return lambda: model._visit(model.z, x, c, None)
