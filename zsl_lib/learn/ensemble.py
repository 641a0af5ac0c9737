"""Several seeds of ABP at once: S networks stacked into one, so that a step is one batched product.

Each network has its own weights, latents, order of examples and noise, all from its own seed, and Adam acts
on every weight alone. So each gets the run that it would get by itself, to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn import engine
from zsl_lib.learn.abp import ABP, ABPConfig, visit_sums
from zsl_lib.learn.learner import Training
from zsl_lib.models.generator import SLOPE, Generator, log_joint


def fit_seeds(
    dataset: ZSLDataset,
    config: ABPConfig,
    seeds: Sequence[int],
    *,
    device: str = "auto",
    progress: bool = True,
) -> list[ABP]:
    """What ``[ABP(config, seed=s).fit(dataset) for s in seeds]`` gives, in one loop over stacked networks.

    The models are for sampling and inference; they do not go on learning.

    Raises
    ------
    DataError: no seeds, or a dataset that :meth:`ABP.fit` refuses.
    ArithmeticError: a Langevin chain diverged.
    """
    if not seeds:
        raise DataError("fit_seeds: seeds", found="none", expected="at least one")
    models = [ABP(config, seed=seed, device=device) for seed in seeds]
    data = Training(dataset, models[0].device)
    for model in models:
        model._start(data)
    stack = _Stack(models)
    for _ in tqdm(range(config.epochs), desc=f"ABP, {len(seeds)} seeds", unit="epoch", disable=not progress):
        stack.epoch(data)
    stack.hand_back()
    return models


class _Stack:
    """S models as one: weights ``[S, …]``, latents ``[S, N, d]``."""

    def __init__(self, models: Sequence[ABP]) -> None:
        self.models, self.config = models, models[0].config
        nets = [dict(model.net.named_parameters()) for model in models]
        self.weights = {
            name: nn.Parameter(torch.stack([net[name].detach() for net in nets])) for name in nets[0]
        }
        self.z = torch.stack([model.z for model in models])
        self.semantic_dim = _paper_net(models[0]).semantic_dim
        k = self.config
        self.adam = torch.optim.Adam(
            self.weights.values(), lr=k.lr, betas=k.betas, weight_decay=k.weight_decay, fused=True
        )

    def epoch(self, data: Training) -> None:
        start, n = time.perf_counter(), len(data.x)
        sums = torch.zeros(4, len(self.models), device=data.x.device, dtype=torch.float64)
        device = data.x.device
        orders = torch.stack([torch.randperm(n, generator=m._rng, device=device) for m in self.models])
        seeds = torch.arange(len(self.models), device=device)[:, None]
        for index in orders.split(self.config.batch_size, dim=1):
            x, c, mask = data.batch(index)
            before = self.z[seeds, index]
            z, trace = self.infer(before, x, c, mask)
            self.z[seeds, index] = z
            log_p = self.learn(z, x, c, mask)
            sums += visit_sums(before, z, trace[0] if len(trace) else log_p, log_p)
        seconds = (time.perf_counter() - start) / len(self.models)
        for model, means in zip(self.models, (sums / n).unbind(1), strict=True):
            model.history.append(model._entry(means, seconds))

    def infer(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Eq. 6 for all networks: as :meth:`ABP.infer`, on ``[S, n, …]``."""
        k = self.config

        def noise() -> Tensor:
            each = z.shape[1:]
            return torch.stack(
                [torch.randn(each, generator=m._rng, device=z.device, dtype=z.dtype) for m in self.models]
            )

        visit = self._visit(x, c, mask)
        return engine.chain(visit, z, noise, sigma=k.sigma, steps=k.langevin_steps, step_size=k.step_size)

    def learn(self, z: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> Tensor:
        """Eq. 7–8 for all networks: their losses add up, and none depends on another's weights."""
        w = self.weights
        # as W hᵀ, so that the gradients of W come out stored as W is
        hidden = torch.baddbmm(w["inner.bias"][..., None], w["inner.weight"], torch.cat([c, z], 2).mT)
        mean = torch.baddbmm(w["outer.bias"][..., None], w["outer.weight"], F.leaky_relu(hidden, SLOPE))
        mean = mean.relu().mT
        log_p = log_joint(x, mean, z, self.config.sigma, mask)
        self.adam.zero_grad(set_to_none=True)
        (-log_p.mean(1).sum()).backward()
        self.adam.step()
        return log_p.detach()

    @torch.no_grad()
    def _visit(self, x: Tensor, c: Tensor, mask: Tensor | None) -> engine.Visit:
        inner, k = self.weights["inner.weight"], self.semantic_dim
        low = torch.bfloat16 if self.config.precision == "bfloat16" else inner.dtype
        return engine.Visit(
            x=x,
            mask=mask,
            from_c=torch.baddbmm(self.weights["inner.bias"][:, None], c, inner[..., :k].mT),
            inner=inner[..., k:].contiguous(),
            outer=self.weights["outer.weight"].to(low),
            bias=self.weights["outer.bias"][:, None],
        )

    def hand_back(self) -> None:
        """Give each model its weights and latents."""
        for i, model in enumerate(self.models):
            model.net.load_state_dict({name: w.detach()[i] for name, w in self.weights.items()})
            model.z = self.z[i].clone()


def _paper_net(model: ABP) -> Generator:
    assert isinstance(model.net, Generator)  # fit_seeds makes no other
    return model.net
