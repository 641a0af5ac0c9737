"""Wasserstein GANs of features, the comparators of paper 1: FGZSL (f-CLSWGAN), GAZSL, MCGZSL (cycle-CLSWGAN).

One training loop; the three differ by their loss terms, which have names. With D the critic, x real and
x̃ = g_θ(c, z) synthetic, the critic minimises

    −distance + λ · penalty (+ auxiliary)

and then the generator minimises

    critic + β₁ · classification + β₂ · cycle + β₃ · pivot (+ auxiliary)

| term | formula | source |
| --- | --- | --- |
| distance | E D(x, c) − E D(x̃, c) | Xian et al. 2018, Eq. 2 |
| penalty | E (‖∇_x D(x̂, c)‖ − 1)², x̂ between x and x̃ | Gulrajani et al. 2017, Eq. 3 |
| critic | −E D(x̃, c) | Xian et al. 2018, Eq. 2 |
| classification | −E log P(y ∣ x̃), P a softmax fitted to real features, frozen | Xian et al. 2018, Eq. 4 |
| cycle | E ‖c − R(x̃)‖², R a regression fitted to real features, frozen | Felix et al. 2018, §3.3 |
| pivot | mean over classes of ‖mean of x̃ − mean of x‖² | Zhu et al. 2018, §3.3 |
| auxiliary | −E log P(y ∣ x̃), P on D's hidden layer; the critic's: of x and x̃ | Zhu et al. 2018, §3.2 |

:data:`GANS` has what the three published. They do not all publish the same architecture; here all have the
generator of paper 1 and a critic of one hidden layer. Left out are GAZSL's reduction of noisy text (its
authors have none for attributes either), its tanh output (features are not negative here) and the square
root that its released code takes of the pivot; and MCGZSL's learning rate of the critic, 1e-3 in its released
code.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.learner import FeatureLearner, Training
from zsl_lib.models.critic import Critic, penalty
from zsl_lib.models.generator import Generator, linear

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class GANConfig:
    """Hyper-parameters; the defaults are f-CLSWGAN's.

    latent_dim: d; None: as many as c has. hidden, critic_hidden: widths. conditional: whether the critic sees
    c. critic_steps: of the critic before each of the generator. penalty: λ. classification, cycle, pivot,
    auxiliary: weights of the terms; 0 leaves a term out. batch_size, lr, betas: of both Adams. weight_decay:
    of the generator's. epochs: each has n / batch_size steps of the generator. head_epochs: passes over the
    real features that fit the classifier and the regression. precision: of the large products, float32 or
    bfloat16 (faster where the hardware has it; weights, Adam and D's sum stay in float32).

    Raises
    ------
    DataError: a value out of its range, or a precision of another name.
    """

    sigma: ClassVar[float] = 0.0
    """There is no ε in a GAN: x̃ is g(c, z) itself, and ``sample(noise=True)`` adds nothing."""

    latent_dim: int | None = None
    hidden: int = 4096
    critic_hidden: int = 4096
    conditional: bool = True
    critic_steps: int = 5
    penalty: float = 10.0
    classification: float = 0.01
    cycle: float = 0.0
    pivot: float = 0.0
    auxiliary: float = 0.0
    batch_size: int = 64
    lr: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    epochs: int = 50
    head_epochs: int = 50
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_range(self, 1, "hidden", "critic_hidden", "critic_steps", "batch_size", whole=True)
        check_range(self, 0, "epochs", "head_epochs", whole=True)
        check_range(self, 0, "penalty", "classification", "cycle", "pivot", "auxiliary", "lr", "weight_decay")
        if self.latent_dim is not None:
            check_range(self, 0, "latent_dim", whole=True)
        if self.precision not in ("float32", "bfloat16"):
            raise DataError("GANConfig.precision", found=repr(self.precision), expected="float32 or bfloat16")


GANS: dict[str, dict[str, Any]] = {
    "fgzsl": {},
    "gazsl": {
        "latent_dim": 100,
        "conditional": False,
        "classification": 0.0,
        "pivot": 1.0,
        "auxiliary": 1.0,
        "batch_size": 1024,
        "betas": (0.5, 0.9),
        "weight_decay": 2e-3,
    },
    "mcgzsl": {"cycle": 0.01},
}
"""Name → the published settings that differ from :class:`GANConfig`'s defaults."""


def gan_config(name: str, **settings: Any) -> GANConfig:
    """The published settings of the GAN of that name, but for ``settings``."""
    if name not in GANS:
        raise DataError("gan", found=repr(name), expected=f"one of {', '.join(GANS)}")
    return GANConfig(**(GANS[name] | settings))


class Batch(NamedTuple):
    """Real features ``[n, D]`` (0 where unobserved), semantics ``[n, K]``, classes ``[n]`` from 0."""

    x: Tensor
    c: Tensor
    y: Tensor


def critic_terms(critic: Critic, batch: Batch, fake: Tensor, mix: Tensor) -> Terms:
    """The critic's terms by name, each a number. ``fake``: x̃ ``[n, D]``; ``mix``: α ``[n, 1]``.

    Made of 7 products as large as W_x x, with the gradients: x and x̃ (2), ∇_x D (1), and what the gradients
    of W_x and of ∇_x D take (2 + 2). With x̂ through the critic, and autograd twice, they would be 10. c's
    share of the hidden layer is computed once for x, x̃ and x̂.
    """
    from_c = critic.condition(batch.c)
    real, made = both = critic.inner(torch.cat([batch.x, fake])).unflatten(0, (2, -1)) + from_c
    score = critic.score(both.flatten(0, 1)).view(2, -1).mean(1)
    terms = {"distance": score[0] - score[1], "penalty": penalty(critic, real, made, mix).mean()}
    if critic.auxiliary is not None:
        labels = batch.y.repeat(2)
        terms["auxiliary"] = F.cross_entropy(critic.classify(both.flatten(0, 1)), labels)
    return terms


def generator_terms(
    critic: Critic, batch: Batch, fake: Tensor, heads: nn.ModuleDict, means: Tensor | None = None
) -> Terms:
    """The generator's terms by name, each a number; heads "classification" and "cycle" bring those terms.

    ``means``: of real features a class ``[classes, D]``, for the pivot.
    """
    a = critic.activate(fake, critic.condition(batch.c))
    terms = {"critic": -critic.score(a).mean()}
    if "classification" in heads:
        terms["classification"] = F.cross_entropy(heads["classification"](fake), batch.y)
    if "cycle" in heads:
        terms["cycle"] = (batch.c - heads["cycle"](fake)).square().sum(1).mean()
    if critic.auxiliary is not None:
        terms["auxiliary"] = F.cross_entropy(critic.classify(a), batch.y)
    if means is not None:
        terms["pivot"] = pivot(fake, batch.y, means)
    return terms


def pivot(fake: Tensor, y: Tensor, means: Tensor) -> Tensor:
    """‖mean of x̃ − mean of x‖², its mean over the classes that the batch has."""
    classes, place = y.unique(return_inverse=True)
    members = F.one_hot(place, len(classes)).to(fake.dtype)
    made = members.T @ fake / members.sum(0)[:, None]
    return (made - means[classes]).square().sum(1).mean()


def fitted(
    head: nn.Linear,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    epochs: int,
    rng: torch.Generator,
) -> nn.Linear:
    """The layer after ``epochs`` of Adam on loss(head(x), target), then frozen.

    Batches of 100, learning rate 1e-3 and β₁ = 0.5 are those of f-CLSWGAN's released code.
    """
    adam = torch.optim.Adam(head.parameters(), lr=1e-3, betas=(0.5, 0.999), fused=True)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=rng).to(x.device).split(100):
            adam.zero_grad()
            loss(head(x[index]), target[index]).backward()
            adam.step()
    return head.requires_grad_(False)


class FeatureGAN(FeatureLearner):
    """A conditional generator learned against a critic. See :class:`FeatureLearner`.

    Parameters
    ----------
    config: see :func:`gan_config` for the three published ones.

    Attributes
    ----------
    net, critic: generator and critic. heads: the fitted, frozen layers, by the name of their term.
    history: one dict an epoch, see :meth:`_epoch`.

    Incomplete features: unobserved entries count as 0, as a GAN has no likelihood to leave them out of.

    Examples
    --------
    >>> model = FeatureGAN(gan_config("fgzsl", epochs=5), seed=0).fit(dataset)      # doctest: +SKIP
    """

    Config = GANConfig
    config: GANConfig

    def __init__(self, config: GANConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._given = self.config  # fit() sets latent_dim by the data, each time anew

    def learn_critic(self, batch: Batch, fake: Tensor) -> Terms:
        """One Adam step of the critic against features ``fake``. Returns its terms."""
        k, n = self.config, len(fake)
        mix = torch.rand(n, 1, generator=self._rng, device=self.device)
        with self._autocast():
            terms = critic_terms(self.critic, batch, fake, mix)
        loss = k.penalty * terms["penalty"] - terms["distance"]
        if "auxiliary" in terms:
            loss = loss + k.auxiliary * terms["auxiliary"]
        self._critic_adam.zero_grad()
        loss.backward()
        self._critic_adam.step()
        return {name: value.detach() for name, value in terms.items()}

    def learn_generator(self, batch: Batch) -> Terms:
        """One Adam step of the generator. Returns its terms."""
        means = self._means if self.config.pivot else None
        with self._autocast():
            fake = self.net(batch.c, self._latents(len(batch.c)))
            terms = generator_terms(self.critic, batch, fake, self.heads, means)
        loss = terms["critic"]
        for name in terms.keys() - {"critic"}:
            loss = loss + getattr(self.config, name) * terms[name]
        self._adam.zero_grad()
        loss.backward(inputs=list(self.net.parameters()))
        self._adam.step()
        return {name: value.detach() for name, value in terms.items()}

    def _epoch(self, data: Training) -> dict[str, float]:
        """n / batch_size steps of the generator, each after ``critic_steps`` of the critic on other batches.

        Each batch is drawn anew from all examples, without replacement, as in f-CLSWGAN's released code.

        Returns loss (the mean distance over the critic's steps, its estimate of the Wasserstein distance; NaN
        once any term or weight is not finite), the mean of each other term by name (the critic's own
        auxiliary term as critic_auxiliary) and seconds.
        """
        start, k = time.perf_counter(), self.config
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        steps = math.ceil(len(data.x) / k.batch_size)
        for _ in range(steps):
            for _ in range(k.critic_steps):
                batch = self._batch(data)
                with torch.no_grad(), self._autocast():
                    fake = self.net(batch.c, self._latents(len(batch.c)))
                for name, value in self.learn_critic(batch, fake).items():
                    sums[_CRITICS.get(name, name)] += value / (steps * k.critic_steps)
            for name, value in self.learn_generator(self._batch(data)).items():
                sums[name] += value / steps
        entry = {"epoch": len(self.history) + 1, "loss": 0.0} | {n: float(v) for n, v in sums.items()}
        entry["loss"] = entry.pop("distance") if self._is_finite(entry) else math.nan
        return entry | {"seconds": time.perf_counter() - start}

    def _is_finite(self, entry: dict[str, float]) -> bool:
        weights = [*self.net.parameters(), *self.critic.parameters()]
        return all(map(math.isfinite, entry.values())) and all(bool(w.isfinite().all()) for w in weights)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _latents(self, n: int) -> Tensor:
        return torch.randn(n, self._d, generator=self._rng, device=self.device)

    def _batch(self, data: Training) -> Batch:
        index = torch.randperm(len(data.x), generator=self._rng, device=self.device)[: self.config.batch_size]
        return self._take(data, index)

    def _take(self, data: Training, index: Tensor) -> Batch:
        x, c, mask = data.batch(index)
        return Batch(x if mask is None else torch.where(mask, x, 0.0), c, self._y[index])

    def _start(self, data: Training) -> None:
        k = self._given
        self._d = data.semantics.shape[1] if k.latent_dim is None else k.latent_dim
        self.config = replace(k, latent_dim=self._d)
        super()._start(data)

    def _begin(self, data: Training, rng: torch.Generator) -> None:
        """The critic, its Adam, and what the terms need of the real features: heads and class means."""
        k = self.config
        seen, self._y = data.labels.unique(return_inverse=True)
        x = data.x if data.mask is None else torch.where(data.mask, data.x, 0.0)
        self._means = torch.stack([x[self._y == i].mean(0) for i in range(len(seen))])
        semantic_dim = data.semantics.shape[1] if k.conditional else 0
        classes = len(seen) if k.auxiliary else 0
        critic = Critic(x.shape[1], semantic_dim, k.critic_hidden, classes, generator=rng)
        self.critic = critic.to(self.device)
        self._critic_adam = torch.optim.Adam(self.critic.parameters(), lr=k.lr, betas=k.betas, fused=True)
        self.heads = nn.ModuleDict()
        if k.classification:
            head = linear(x.shape[1], len(seen), rng).to(self.device)
            self.heads["classification"] = fitted(head, F.cross_entropy, x, self._y, k.head_epochs, rng)
        if k.cycle:
            c = data.semantics[data.labels]
            head = linear(x.shape[1], c.shape[1], rng).to(self.device)
            self.heads["cycle"] = fitted(head, F.mse_loss, x, c, k.head_epochs, rng)

    def _paper_network(
        self, semantic_dim: int, latent_dim: int, feature_dim: int, rng: torch.Generator
    ) -> nn.Module:
        return Generator(semantic_dim, latent_dim, feature_dim, self.config.hidden, generator=rng)

    def _state(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "critic_adam": self._critic_adam.state_dict(),
            "heads": self.heads.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self._critic_adam.load_state_dict(state["critic_adam"])
        self.heads.load_state_dict(state["heads"])


_CRITICS = {"auxiliary": "critic_auxiliary"}
