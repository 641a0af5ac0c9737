"""What every attack on images needs: checks, losses, the gradient in the image, and the ball.

An attack sees a *score function* and nothing else: ``scores(x) -> [n, C]``, real-valued scores of images
``[n, ...]`` in pixel units, one column a candidate class. Which columns there are is the search space: those
of the unseen classes for the standard task, those of all classes for the generalised one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.errors import DataError

Scores = Callable[[Tensor], Tensor]
Bounds = tuple[float, float]
Norm = Literal["linf", "l2"]
Loss = Literal["ce", "margin"]

PIXELS: Bounds = (0.0, 255.0)


def check_inputs(x: Tensor, y: Tensor, bounds: Bounds) -> None:
    """Raise DataError unless x is float ``[n, ...]`` within bounds and y int64 ``[n]`` of 0 or more."""
    low, high = bounds
    if not low < high:
        raise DataError("bounds", found=bounds, expected="a lower and a higher value")
    if x.dtype not in (torch.float32, torch.float64):
        raise DataError("x", found=x.dtype, expected="float32", hint="x.float(), in pixel units")
    if x.ndim < 2 or len(x) == 0:
        raise DataError("x", found=f"shape {list(x.shape)}", expected="[n, ...] with n > 0")
    if not (x.min() >= low and x.max() <= high):  # NaN too
        found = f"values from {x.min():g} to {x.max():g}"
        raise DataError("x", found=found, expected=f"pixels in [{low:g}, {high:g}]")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise DataError("y", found=f"{y.dtype} {list(y.shape)}", expected=f"torch.int64 [{len(x)}]")
    if y.min() < 0:
        hint = "drop images whose class is not in the search space"
        raise DataError("y", found=int(y.min()), expected="columns of the scores", hint=hint)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise DataError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise DataError(name, found=repr(value), expected=f"one of {', '.join(map(repr, choices))}")


def check_counts(**counts: int) -> None:
    """Raise DataError unless each is a whole number of 1 or more."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise DataError(name, found=value, expected="a whole number of 1 or more")


def per_image(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    """A radius or step, 0 or larger, for all images or one each ``[n]``, as ``[n, 1, ...]`` beside x."""
    given = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(x)):
        raise DataError(name, found=f"shape {list(given.shape)}", expected=f"a number or [{len(x)}]")
    if not bool(((given >= 0) & given.isfinite()).all()):
        raise DataError(name, found=f"{given.min():g}", expected="0 or larger, in pixels")
    return beside(given.expand(len(x)), x)


def beside(values: Tensor, x: Tensor) -> Tensor:
    """One value an image ``[n]`` as ``[n, 1, ...]``, with as many axes as x."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def margin(values: Tensor, y: Tensor) -> Tensor:
    """Best other score minus the true one, ``[n]``: positive where the image is misrecognised."""
    true = values.gather(1, y[:, None])
    return (values.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True) - true)[:, 0]


def loss_values(values: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Loss of each image ``[n]`` from its scores ``[n, C]``; larger is better for the attacker.

    ``"ce"`` is Eq. 3 of paper 2 with its minus sign, ``"margin"`` what CW and DLR build on.
    """
    check_choice("loss", loss, ("ce", "margin"))
    return margin(values, y) if loss == "margin" else F.cross_entropy(values, y, reduction="none")


def checked_scores(scores: Scores, x: Tensor, y: Tensor) -> Tensor:
    """``scores(x)``; DataError unless it is ``[n, C]`` with two columns or more, and y are columns of it."""
    values = scores(x)
    if values.ndim != 2 or len(values) != len(x) or values.shape[1] < 2:
        raise DataError("scores", found=f"shape {list(values.shape)}", expected=f"[{len(x)}, C], C > 1")
    if int(y.max()) >= values.shape[1]:
        expected = f"a column of the scores, 0..{values.shape[1] - 1}"
        raise DataError("y", found=int(y.max()), expected=expected, hint="is the class in the search space?")
    return values


def gradient(scores: Scores, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of each image's loss in its pixels, as x, and the scores ``[n, C]``, both detached.

    Works under ``torch.no_grad()``, and leaves the gradients of the model's weights alone.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = checked_scores(scores, x, y)
        return differentiate(loss_values(values, y, loss).sum(), x), values.detach()


def differentiate(
    total: Tensor,
    x: Tensor,
    *,
    keep: bool = False,
    name: str = "x",
    hint: str = "no detach(), no_grad() or argmax on the way from pixels to scores",
) -> Tensor:
    """Gradient of a number in x; DataError where there is none, with x's name and a hint what to look for.

    ``keep`` keeps the graph for another.
    """
    found = None
    if total.requires_grad:
        (found,) = torch.autograd.grad(total, x, retain_graph=keep, allow_unused=True)
    if found is None:
        missing = f"no gradient in {name}"
        raise DataError("scores", found=missing, expected="a differentiable function", hint=hint)
    if not bool(found.isfinite().all()):
        raise DataError("scores", found=f"NaN or infinite gradient in {name}", expected="finite ones")
    return found


def norms(delta: Tensor, norm: Norm) -> Tensor:
    """Norm of each row of ``[n, ...]``, as ``[n, 1, ...]``."""
    check_choice("norm", norm, ("linf", "l2"))
    order = 2 if norm == "l2" else torch.inf
    return beside(torch.linalg.vector_norm(delta.flatten(1), order, dim=1), delta)


def direction(slope: Tensor, norm: Norm) -> Tensor:
    """Steepest ascent of length 1: the sign for linf, the unit vector for l2; 0 where the slope is 0."""
    check_choice("norm", norm, ("linf", "l2"))
    if norm == "linf":
        return slope.sign()
    peak = norms(slope, "linf")
    slope = slope / peak.where(peak > 0, 1.0)  # squares of tiny slopes would vanish
    length = norms(slope, "l2")
    return slope / length.where(length > 0, 1.0)


def project(moved: Tensor, x: Tensor, radius: Tensor, norm: Norm, bounds: Bounds) -> Tensor:
    """``moved`` brought into the ball around x and into the bounds.

    The nearest point of both for linf. For l2 the nearest point of the ball, then of the bounds: since x is
    within the bounds, cutting there moves no pixel away from x, so the result lies in both.
    """
    delta = moved - x
    if norm == "l2":
        length = norms(delta, "l2")
        delta = delta * (radius / length.where(length > 0, 1.0)).clamp(max=1)
    else:
        delta = delta.maximum(-radius).minimum(radius)
    return (x + delta).clamp(*bounds)


def random_point(x: Tensor, radius: Tensor, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """A point ``[n, ...]`` uniform in the ball around each image; bounds are not looked at."""
    if norm == "linf":
        return x + radius * (2 * draw(torch.rand, x, generator) - 1)
    unit = direction(draw(torch.randn, x, generator), "l2")
    dimension = x[0].numel()
    share = draw(torch.rand, radius, generator) ** (1 / dimension)
    return x + radius * share * unit


def draw(law: Callable[..., Tensor], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """``torch.rand`` or ``torch.randn`` numbers as ``like``, on the generator's device, then moved."""
    if generator is None:
        raise DataError("generator", found=None, expected="a torch.Generator for what is random here")
    return law(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


def within(moved: Tensor, x: Tensor, radius: float | Tensor | None, norm: Norm, bounds: Bounds) -> Tensor:
    """``moved``, projected if there is a radius: how a minimal-norm attack becomes one of fixed radius."""
    if radius is None:
        return moved
    return project(moved, x, per_image("radius", radius, x), norm, bounds)


class Counted:
    """A score function that counts: ``images`` it was asked about, ``gradients`` among them asked for."""

    def __init__(self, scores: Scores) -> None:
        self.scores, self.images, self.gradients = scores, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.images += len(x)
        self.gradients += len(x) if x.requires_grad else 0
        return self.scores(x)


class Closest:
    """The nearest image so far that fools with a margin above ``confidence``, for each of x ``[n, ...]``."""

    def __init__(self, x: Tensor, y: Tensor, confidence: float) -> None:
        self.x, self.y, self.confidence = x, y, confidence
        self.image, self.distance = x.clone(), torch.full_like(x[:, :1].flatten(1)[:, 0], torch.inf)

    def update(self, moved: Tensor, values: Tensor) -> Tensor:
        """Keep what is nearer; returns which of ``moved`` fool, ``[n]``."""
        fools = margin(values, self.y) > self.confidence
        distance = norms(moved - self.x, "l2").flatten()
        nearer = fools & (distance < self.distance)
        self.distance = distance.where(nearer, self.distance)
        self.image[nearer] = moved[nearer]
        return fools


class Constants:
    """Binary search for the smallest constant of each image with which an attack fools (CW, §6.A)."""

    def __init__(self, start: Tensor) -> None:
        self.value = start
        self.low, self.high = torch.zeros_like(self.value), torch.full_like(self.value, torch.inf)

    def tighten(self, found: Tensor) -> None:
        """After a round: halve the interval, or multiply by ten while nothing was found."""
        self.high = self.value.where(found, self.high)
        self.low = self.low.where(found, self.value)
        middle = (self.low + self.high) / 2
        self.value = middle.where(self.high.isfinite(), 10 * self.value)
