r"""Adversarial training: Eq. 4 of paper 2, solved by its Algorithm 1.

With L the loss of Eq. 3 (with the minus sign that it lacks) and x in pixels of [0, 255], the weights minimise

.. math:: \alpha\, L(x) + (1 - \alpha) \max_{\|x' - x\|_\infty \le \rho} L(x') .

By Danskin's theorem the gradient of the second term is that of L at a maximiser x', wherever there is one
gradient. Algorithm 1 looks for x' by N steps of sign ascent, and draws ρ anew in each iteration. Counting a
forward pass as 1, the gradient in the weights as 1 and that in the activations as 1 (forward and backward of
clean training are 3 units), a step of Eq. 4 costs

=========  ==========================================  =========  =====
scheme     looks for x'                                units      N = 3
=========  ==========================================  =========  =====
plain      N steps from x                              6 + 2 N    12
reuse      the same; the first step's gradient is a    4 + 2 N    10
           by-product of the clean term's
fast       one step of 1.25 ρ from a random point      8          8
noise      random signs: a control                     6          6
free       steps on x' and weights from one gradient,  3          3
           each batch several times
=========  ==========================================  =========  =====

The paper is silent on mini-batches; one ρ serves a batch here. "N(0, 2) on [0, 4]" has 2 as its standard
deviation: half of the largest radius, as in the N(µ = 0, σ = 27) on [0, 54] of its Algorithm 2, and as in
Kurakin et al. (ICLR 2017), where both come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.attacks import noise
from zsl_lib.attacks.common import (
    PIXELS,
    check_choice,
    check_counts,
    check_inputs,
    differentiate,
    per_image,
    project,
    random_point,
)
from zsl_lib.attacks.pgd import STEP
from zsl_lib.embedding.base import GradientModel
from zsl_lib.embedding.dem import DEM
from zsl_lib.embedding.ldf import LDF
from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.models.backbone import hangul_backbone
from zsl_lib.models.frozen import from_first_call, frozen

Loss = Callable[[Tensor], Tensor]
Search = Literal["reuse", "plain", "fast", "noise"]
Scheme = Literal[Search, "free"]
Precision = Literal["float32", "bfloat16"]
Law = Literal["truncated normal", "fixed"]


def adversarial_loss(
    loss: Loss,
    x: Tensor,
    *,
    model: nn.Module,
    radius: float | Tensor,
    alpha: float = 0.5,
    steps: int = 3,
    scheme: Search = "reuse",
    inner: Precision = "float32",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Eq. 4 of a batch as a number whose gradient in the weights is that of Algorithm 1.

    Parameters
    ----------
    loss: images ``[n, ...]`` to their mean loss, for example ``lambda x: F.cross_entropy(scores(x), y)``.
    x: images in pixels of [0, 255].
    model: what the loss goes through. Its weights receive the gradient. Its BatchNorm layers stay in the
        mode they are in, so that the loss that is maximised is the loss that is minimised; in training mode
        the clean and the attacked pass move their running statistics, passes of the search do not.
    radius: ρ, in pixels; one number, or one an image ``[n]``.
    alpha: α, in [0, 1]. 1 is clean training and nothing else.
    steps: N of the schemes ``"reuse"`` and ``"plain"``, which give the same.
    inner: ``"bfloat16"`` runs the search, and nothing else, under autocast.
    generator: for ``"fast"`` and ``"noise"``.

    Raises
    ------
    DataError: α outside [0, 1], images outside their range, a loss that is not differentiable in x, or what
        else does not fit.
    """
    check_choice("scheme", scheme, get_args(Search))
    check_choice("inner", inner, get_args(Precision))
    if not 0 <= alpha <= 1:
        raise DataError("alpha", found=alpha, expected="a number in [0, 1]")
    if alpha == 1:
        return loss(x)
    rho, clean, slope = _radii(x, radius), None, None
    if scheme == "reuse" and alpha > 0:
        clean, slope = value_and_slope(loss, x, model)
    if scheme == "noise":
        dummy = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        attacked = noise(lambda x: x, x, dummy, radius=radius, kind="sign", generator=generator)
    else:
        start = x
        if scheme == "fast":
            start, steps = project(random_point(x, rho, "linf", generator), x, rho, "linf", PIXELS), 1
        attacked = ascend(
            loss, x, model=model, radius=rho, steps=steps, start=start, slope=slope, inner=inner
        )
    if alpha == 0:
        return loss(attacked)
    return alpha * (loss(x) if clean is None else clean) + (1 - alpha) * loss(attacked)


def ascend(
    loss: Loss,
    x: Tensor,
    *,
    model: nn.Module,
    radius: Tensor,
    steps: int,
    start: Tensor,
    slope: Tensor | None = None,
    inner: Precision = "float32",
) -> Tensor:
    """x' of Algorithm 1: ``steps`` times 1.25 ρ / N along the sign, brought back into ball and range.

    radius: ``[n, 1, ...]``. slope: the gradient at ``start`` where it is known. For a cross-entropy this is
    :func:`zsl_lib.attacks.pgd`; a loss may couple the images of a batch here, as LDF's triplets do.
    """
    check_counts(steps=steps)
    moved = start
    low = torch.autocast(x.device.type, torch.bfloat16) if inner == "bfloat16" else nullcontext()
    with _statistics_at_rest(model), low, torch.enable_grad():
        for _ in range(steps):
            if slope is None:
                here = moved.detach().requires_grad_()
                slope = differentiate(loss(here), here)
            moved = project(moved + STEP * radius / steps * slope.sign(), x, radius, "linf", PIXELS)
            slope = None
    return moved


def replay(
    loss: Loss, x: Tensor, delta: Tensor, *, model: nn.Module, radius: float | Tensor
) -> tuple[Tensor, Tensor]:
    """A replay of free training (Shafahi et al. 2019): the loss at x + δ, and the next δ, as x.

    One backward pass makes both: the gradient in the weights, which the loss carries as that of
    :func:`adversarial_loss` does, and a step of δ as long as the radius.
    """
    rho = _radii(x, radius)
    attacked = project(x + delta, x, rho, "linf", PIXELS)
    value, slope = value_and_slope(loss, attacked, model)
    return value, project(attacked + rho * slope.sign(), x, rho, "linf", PIXELS) - x


def value_and_slope(loss: Loss, x: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """The loss at x, differentiable in the weights, and its gradient in x: one backward pass for both."""
    weights = [p for p in model.parameters() if p.requires_grad]
    x = x.detach().requires_grad_()
    value = loss(x)
    if not weights:
        return value, differentiate(value, x)
    gradients = torch.autograd.grad(value, [x, *weights], allow_unused=True)
    if gradients[0] is None:
        raise DataError("loss", found="no gradient in x", expected="a function differentiable in x")
    known: Tensor = _Known.apply(value.detach(), gradients[1:], *weights)
    return known, gradients[0]


class _Known(torch.autograd.Function):
    """A number whose gradients in the weights are at hand already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *up: Tensor) -> Any:
        return None, None, *(None if g is None else up[0] * g for g in ctx.gradients)


@contextmanager
def _statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """BatchNorm layers in training mode use a batch's statistics and remember nothing of it."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [m.track_running_stats for m in layers]
    try:
        for m in layers:
            m.track_running_stats = False
        yield
    finally:
        for m, tracked in zip(layers, before, strict=True):
            m.track_running_stats = tracked


def _radii(x: Tensor, radius: float | Tensor) -> Tensor:
    check_inputs(x, torch.zeros(len(x), dtype=torch.int64), PIXELS)
    return per_image("radius", radius, x)


def draw_radius(most: float, generator: torch.Generator, n: int | None = None) -> Tensor:
    """ρ, a number or ``[n]``, from N(0, (most / 2)²) cut to [0, most]: its inverse distribution function."""
    share = torch.rand(
        () if n is None else n, generator=generator, device=generator.device, dtype=torch.float64
    )
    below = (1 + share * math.erf(2**0.5)) / 2  # of N(0, 1): 1/2 at 0, Φ(2) at two standard deviations
    return (most / 2 * torch.special.ndtri(below)).clamp(0, most).float()


@dataclass(frozen=True)
class AdversarialConfig(RelationConfig):
    """Settings of :class:`AdversarialLearner`; the paper's where it has them.

    alpha: α; 1 is the Baseline of the paper, 0 its Baseline2.
    radius: the largest ρ in pixels of [0, 255], drawn anew in each step from ``law``; ``"fixed"``: always
        the largest.
    steps: N; 3 in §4.3 of the paper, 9 in §5.4.
    scheme, inner: see :func:`adversarial_loss`. ``"free"`` (Shafahi et al. 2019) has no clean term, so α is
        0, and takes each batch ``replays`` times, so that an epoch costs as many.
    """

    alpha: float = 0.5
    radius: float = 4.0
    law: Law = "truncated normal"
    steps: int = 3
    scheme: Scheme = "reuse"
    inner: Precision = "float32"
    replays: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, law=Law, scheme=Scheme, inner=Precision)
        check_range(self, 1, "replays", whole=True)
        if self.scheme == "free" and self.alpha != 0:
            raise DataError(
                "AdversarialConfig.alpha", found=self.alpha, expected="0: scheme 'free' has no clean term"
            )


def check_settings(config: Any, **kinds: Any) -> None:
    """The fields that every adversarial learner has: α, radius and steps, and choices by their Literals."""
    name = type(config).__name__
    check_range(config, 0, "alpha", "radius")
    if config.alpha > 1:
        raise DataError(f"{name}.alpha", found=config.alpha, expected="a number in [0, 1]")
    check_range(config, 1, "steps", whole=True)
    for field, kind in kinds.items():
        check_choice(f"{name}.{field}", getattr(config, field), get_args(kind))


class AdversarialLearner(RelationLearner):
    """ATZSL: the relation network, trained by Algorithm 1. All else is :class:`RelationLearner`'s.

    Radii and random starts have a generator of their own, so that every setting sees the same batches.
    ``history`` has the value of Eq. 4 as ``loss``, and ``accuracy`` on the images that its first term, or its
    search, starts from.
    """

    Config: ClassVar[type] = AdversarialConfig
    NEEDS_PIXELS: ClassVar[bool] = True

    def _start(self, data: Any) -> None:
        super()._start(data)
        self._draws = torch.Generator(self.device).manual_seed(self.seed)
        self._delta: Tensor | None = None

    def _loss(self, images: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        k = self.config
        met: list[Tensor] = []

        def loss(x: Tensor) -> Tensor:
            scores = self.net(x, semantics)
            if not met:
                met.append(scores.detach())
            return F.cross_entropy(scores.float(), labels)

        x = self._noisy(images).float()
        if k.scheme == "free":
            return self._replayed(loss, x, draw(k, self._draws)), met[0]
        return _eq4(k, loss, x, self.net, self._draws), met[0]

    def _replayed(self, loss: Loss, x: Tensor, radius: float | Tensor) -> Tensor:
        """Free adversarial training of a batch: all steps but the last, and the loss of the last.

        One gradient moves the weights down and the perturbation up, which goes on to the next batch.
        """
        n, replays = len(x), self.config.replays
        if self._delta is None:
            self._delta = torch.zeros_like(x)
        for left in reversed(range(replays)):
            value, self._delta[:n] = replay(loss, x, self._delta[:n], model=self.net, radius=radius)
            if left:
                self._adam.zero_grad()
                value.backward()
                self._adam.step()
        return value

    def _state(self) -> dict[str, Any]:
        return {"draws": self._draws.get_state(), "delta": self._delta}

    def _restore(self, state: dict[str, Any]) -> None:
        self._draws.set_state(state["draws"].cpu())
        self._delta = state["delta"]


def draw(config: Any, generator: torch.Generator) -> float | Tensor:
    """The radius of a step."""
    return config.radius if config.law == "fixed" else draw_radius(config.radius, generator)


def _eq4(config: Any, loss: Loss, x: Tensor, model: nn.Module, generator: torch.Generator) -> Tensor:
    """:func:`adversarial_loss` as an adversarial learner is set, at a radius that is drawn for the batch."""
    return adversarial_loss(
        loss,
        x,
        model=model,
        radius=draw(config, generator),
        alpha=config.alpha,
        steps=config.steps,
        scheme=config.scheme,
        inner=config.inner,
        generator=generator,
    )


@dataclass(kw_only=True, eq=False)
class AdversarialModel(GradientModel):
    """A compatibility model trained from pixels through its image network, by the same Eq. 4 on its own loss.

    Data sets have images and no features (``dataclasses.replace(data, features=None)``).

    alpha, radius, law, steps, scheme, inner: see :class:`AdversarialConfig`; α = 1 trains end to end on clean
        images. ``"free"`` is not among the schemes.
    """

    alpha: float = 0.5
    radius: float = 4.0
    law: Law = "truncated normal"
    steps: int = 3
    scheme: Search = "reuse"
    inner: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, law=Law, scheme=Search, inner=Precision)

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """x ↦ scores ``[n, C]`` for descriptions ``[C, K]``, differentiable in x, pixels of [0, 255]."""
        s = semantics.to(self.device)

        def compare(net: nn.Module, x: Tensor) -> Tensor:
            return self._with(net)._compare(x / 255, s)

        return from_first_call(lambda x: partial(compare, frozen(self.net, lambda net: compare(net, x))))

    def _with(self, net: nn.Module) -> Self:
        """The same model with another network."""
        made = copy(self)
        made.net = net
        return made

    def _check_input(self, x: Tensor, where: str) -> None:
        if x.ndim != 4:
            hint = "dataclasses.replace(data, features=None), with images=True"
            raise DataError(where, found="features", expected="images alone", hint=hint)

    def _fit(self, x: Tensor, y: Tensor, s: Tensor) -> None:
        self._draws = torch.Generator(self.device).manual_seed(self.seed)
        super()._fit(x, y, s)

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        own = super()._loss  # type: ignore[safe-super]
        return _eq4(self, lambda x: own(x / 255, y, s), x.float(), self.net, self._draws)


@dataclass(kw_only=True, eq=False)
class AdversarialLDF(AdversarialModel, LDF):
    """LDF-adv of paper 2, §5.3. The attack maximises all of LDF's loss, with the triplets of its batch."""

    NAME = "LDF-adv"


class _EndToEnd(nn.Module):
    """DEM's f and the image network θ."""

    def __init__(self, theta: nn.Module, f: nn.Module) -> None:
        super().__init__()
        self.theta, self.f = theta, f

    def forward(self, semantics: Tensor) -> Tensor:
        return self.f(semantics)


@dataclass(kw_only=True, eq=False)
class _PixelDEM(DEM):
    """DEM from pixels: θ and f are learned together. f has no ReLU at its end, where all units can die.

    objective: ``"squares"`` is DEM's own, which θ = f = constant brings to 0 when θ learns too, however
        little is recognised; ``"softmax"`` is the cross-entropy of DEM's scores -‖θ(x) - f(s)‖² / 2, which
        nothing of the kind minimises.
    backbone: θ, of which a copy is trained. None: :func:`~zsl_lib.models.backbone.hangul_backbone`.
    """

    objective: Literal["softmax", "squares"] = "softmax"
    backbone: nn.Module | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(f"{type(self).__name__}.objective", self.objective, ("softmax", "squares"))

    def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
        theta: Any = deepcopy(self.backbone or hangul_backbone())
        f = super()._network(torch.empty(0, theta.width), s, rng)
        return _EndToEnd(theta, f[:-1])  # type: ignore[index]

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        features = self.net.theta.features(x)  # type: ignore[operator, union-attr]
        if self.objective == "squares":
            return super()._loss(features, y, s)
        return F.cross_entropy(super()._compare(features, s), y)

    def _compare(self, x: Tensor, s: Tensor) -> Tensor:
        own, theta = super()._compare, self.net.theta
        return torch.cat([own(theta.features(part), s) for part in x.split(512)])  # type: ignore[operator, union-attr]


@dataclass(kw_only=True, eq=False)
class AdversarialDEM(AdversarialModel, _PixelDEM):
    """DEM-adv of paper 2, §5.3: end to end with the image network, as the paper needs it too."""

    NAME = "DEM-adv"
