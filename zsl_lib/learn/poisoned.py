r"""Learning against poisoned prototypes: Eq. 5 of paper 2, and its Algorithm 2.

With L the loss of Eq. 3 (with the minus sign that it lacks) and P the seen prototypes, the weights minimise

.. math:: \alpha\, L(x, P) + (1 - \alpha) \max_{\|p'_c - p_c\|_2 \le \rho\ \forall c} L(x, P') .

Eq. 5 and Algorithm 2 are not the same. ``reading`` says which is meant:

``"all"``: Eq. 5. All seen prototypes move, N times.
``"one"``: Algorithm 2 as printed. Each of its N steps draws a prototype and a radius, and sets P' back to P
    first. So in the end one prototype has moved, by one step, and N does not matter. That step is made here.
``"several"``: Algorithm 2 without that line. N different prototypes move, each by one step, one after the
    other, and a radius is drawn for each.
``"own"``: of Eq. 5's table for each image (below), the row of its own class alone. Most of what such a table
    can do is done there, and it costs no more than one table for all.

Two are controls that look for nothing:

``"noise"``: all prototypes move by ρ, each in a random direction.
``"dropout"``: of each prototype a share of the attributes, drawn anew, is 0.

Eq. 5 has the maximum inside the sum over images: a table for each (``threat="per_image"``). Algorithm 2 takes
one image at a time and says nothing of batches; one table for a batch (``"universal"``) is far cheaper.

**Cost.** An image's embedding does not depend on the table: it is computed once a step, with its graph, and
both terms share it. The search passes through the attribute network and the relation network alone.

:class:`PoisonedDEM` and :class:`PoisonedLDF` are the paper's DEM-adv and LDF-adv for attributes (§5.3): Eq. 5
on the loss that these models have. :class:`CombinedLearner` is no more the paper's: attacks on images and on
the table in one objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.attacks.common import differentiate
from zsl_lib.attacks.pgd import STEP
from zsl_lib.attacks.prototypes import NO_GRADIENT, Direction, Threat, fgsm, ifgsm, unit_ascent
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.embedding.base import GradientModel
from zsl_lib.embedding.dem import DEM
from zsl_lib.embedding.ldf import LDF
from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.adversarial import Law, adversarial_loss, check_settings, draw, draw_radius
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.poison import RelationTables

Reading = Literal["all", "one", "several", "own", "noise", "dropout"]


@dataclass(frozen=True)
class PoisonedConfig(RelationConfig):
    """Settings of :class:`PoisonedLearner`; the paper's where it has them.

    alpha: α; 1 is the Baseline of the paper, 0 its Baseline2.
    radius: the largest ρ, in points of a scale of 0 to 100, drawn anew in each step from ``law``;
        ``"fixed"``: always the largest. The paper: 27 on AWA2, 54 on CUB, which is three points for each
        attribute, 3 √K, on both.
    attribute_scale: points in one unit of the table; None: the data set's own
        (:attr:`~zsl_lib.data.ZSLDataset.points`).
    steps: N; 3 in §4.3 of the paper. reading, threat: see above.
    step: ℓ2 length of a step in radii where all move; 1 in Algorithm 2. None: 1.25 / N, as for images.
    direction: ``"sign"`` is the paper's, see :mod:`zsl_lib.attacks.prototypes`.
    share: of ``"dropout"``.
    """

    alpha: float = 0.5
    radius: float = 27.0
    law: Law = "truncated normal"
    attribute_scale: float | None = None
    steps: int = 3
    step: float | None = 1.0
    reading: Reading = "all"
    threat: Threat = "universal"
    direction: Direction = "sign"
    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, law=Law, reading=Reading, threat=Threat, direction=Direction)
        _check_table_settings(self)
        check_range(self, 0, "share")
        if self.share >= 1:
            raise DataError(f"{type(self).__name__}.share", found=self.share, expected="a number in [0, 1)")
        if self.reading in ("several", "dropout") and self.threat == "per_image":
            where = f"{type(self).__name__}.threat"
            raise DataError(where, found="'per_image'", expected=f"'universal' for reading {self.reading!r}")
        if self.reading == "own" and self.threat == "universal":
            where = f"{type(self).__name__}.threat"
            raise DataError(where, found="'universal'", expected="'per_image' for reading 'own'")


def _check_table_settings(config: Any) -> None:
    for name in ("attribute_scale", "step"):
        if getattr(config, name) is not None:
            check_range(config, 0, name, above=True)


def _scale(config: Any, points: Tensor | None) -> float | Tensor:
    """Points in one unit of each seen row: as set, else the data set's."""
    if config.attribute_scale is not None:
        return float(config.attribute_scale)
    if points is None:
        where = f"{type(config).__name__}.attribute_scale"
        raise DataError(where, found=None, expected="a number, for a data set without points")
    return points


class PoisonedLearner(RelationLearner):
    """ATZSL for attribute attacks: the relation network, trained by Eq. 5 or Algorithm 2.

    All else is :class:`RelationLearner`'s. Radii and prototypes have a generator of their own, so that every
    setting sees the same batches. ``history`` has the value of Eq. 5 as ``loss``, and ``accuracy`` with the
    clean table.
    """

    Config: ClassVar[type] = PoisonedConfig

    def _start(self, data: Any) -> None:
        self._points = _scale(self.config, data.points)
        super()._start(data)
        self._draws = torch.Generator(self.device).manual_seed(self.seed)

    def _loss(self, images: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.config.alpha
        if alpha == 1:
            return super()._loss(images, labels, semantics)
        own, poisoned, clean = self._terms(self._noisy(images), labels, semantics)
        return alpha * own + (1 - alpha) * poisoned, clean

    def _terms(self, x: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss with P, that with P', and the scores with P; no gradient of the first where α is 0."""
        embedding = self.net.image_embedding(x)
        scores = self.net.compare_embedded(embedding)
        tables = self._search(embedding.detach(), labels, semantics)
        with torch.set_grad_enabled(self.config.alpha > 0 or self.config.reading == "own"):
            clean = scores(semantics)
            own = F.cross_entropy(clean.float(), labels)
        if self.config.reading == "own":  # its row's column is all that differs
            values = clean.scatter(1, labels[:, None], scores(tables))
        else:
            values = scores(tables)
        return own, F.cross_entropy(values.float(), labels), clean

    def _search(self, embedding: Tensor, labels: Tensor, semantics: Tensor) -> Tensor:
        """P' ``[S, K]``, or one an image ``[n, S, K]``, or its own row ``[n, 1, K]``; radii are drawn."""
        k = self.config
        if k.reading in ("noise", "dropout"):
            return self._control(semantics)
        scores = RelationTables(self.net, embedding)
        given: dict[str, Any] = {
            "attribute_scale": self._points,
            "threat": k.threat,
            "direction": k.direction,
        }
        if k.reading in ("all", "own"):
            return self._maximum(scores, labels, semantics, given)
        return self._single_steps(scores, labels, semantics, given)

    def _control(self, semantics: Tensor) -> Tensor:
        k = self.config
        where: dict[str, Any] = {"generator": self._draws, "device": self.device}
        if k.reading == "dropout":
            return semantics * (torch.rand(semantics.shape, **where) >= k.share)
        way = torch.randn(semantics.shape, **where, dtype=semantics.dtype)
        rho = torch.as_tensor(draw(k, self._draws) / self._points).to(semantics).reshape(-1, 1)
        return semantics + rho * unit_ascent(way, "gradient")

    def _maximum(
        self, scores: RelationTables, labels: Tensor, semantics: Tensor, given: dict[str, Any]
    ) -> Tensor:
        """Of Eq. 5: all rows, or each image's own."""
        k, radius = self.config, draw(self.config, self._draws)
        given |= {"radius": radius, "step": None if k.step is None else k.step * radius, "steps": k.steps}
        if k.reading == "own":
            return ifgsm(scores, semantics, labels, **given).rows
        every = torch.arange(len(semantics), device=self.device)
        return ifgsm(scores, semantics, labels, which=every, **given).tables

    def _single_steps(
        self, scores: RelationTables, labels: Tensor, semantics: Tensor, given: dict[str, Any]
    ) -> Tensor:
        """Of Algorithm 2: one row, or N one after the other, each by a step of its own radius."""
        k, rng, seen = self.config, self._draws, len(semantics)
        if k.reading == "one":
            shape = (len(labels), 1) if k.threat == "per_image" else (1,)
            rows = [torch.randint(seen, shape, generator=rng, device=self.device)]
        else:
            rows = list(torch.randperm(seen, generator=rng, device=self.device)[: k.steps].split(1))
        for which in rows:
            semantics = fgsm(scores, semantics, labels, which=which, radius=draw(k, rng), **given).tables
        return semantics

    def _state(self) -> dict[str, Any]:
        return {"draws": self._draws.get_state()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._draws.set_state(state["draws"].cpu())


@dataclass(frozen=True)
class CombinedConfig(PoisonedConfig):
    """Settings of :class:`CombinedLearner`.

    image_radius: the largest ρ of the attack on images, in pixels of [0, 255], drawn anew in each step from
        ``law``. image_steps: its N.
    """

    image_radius: float = 4.0
    image_steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "image_radius")
        check_range(self, 1, "image_steps", whole=True)


class CombinedLearner(PoisonedLearner):
    r"""Eq. 4 and Eq. 5 of paper 2 in one:

    .. math:: \alpha L(x, P) + \tfrac{1 - \alpha}{2} \big[\max_{x'} L(x', P) + \max_{P'} L(x, P')\big] .
    """

    Config: ClassVar[type] = CombinedConfig
    NEEDS_PIXELS: ClassVar[bool] = True

    def _loss(self, images: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        k = self.config
        if k.alpha == 1:
            return super()._loss(images, labels, semantics)
        x = self._noisy(images)
        x = x if x.is_floating_point() else x.float()
        own, poisoned, clean = self._terms(x, labels, semantics)
        attacked = adversarial_loss(
            lambda x: F.cross_entropy(self.net(x, semantics).float(), labels),
            x,
            model=self.net,
            radius=k.image_radius if k.law == "fixed" else draw_radius(k.image_radius, self._draws),
            alpha=0,
            steps=k.image_steps,
        )
        return k.alpha * own + (1 - k.alpha) / 2 * (poisoned + attacked), clean


def worst_table(
    loss: Callable[[Tensor], Tensor],
    table: Tensor,
    *,
    radius: float | Tensor,
    attribute_scale: float | Tensor = 1.0,
    steps: int = 3,
    step: float | None = 1.0,
    direction: Direction = "sign",
) -> Tensor:
    """P' of Eq. 5 for any loss of a table ``[S, K]``: all rows ascend together, each in its ball.

    step: in radii; None: 1.25 / N. Others: as :func:`zsl_lib.attacks.prototypes.ifgsm`.
    """
    rho = torch.as_tensor(radius / attribute_scale, dtype=table.dtype, device=table.device).reshape(-1, 1)
    rows = table
    for _ in range(steps):
        with torch.enable_grad():
            here = rows.detach().requires_grad_()
            slope = differentiate(loss(here), here, name="the table", hint=NO_GRADIENT)
        length = (STEP / steps if step is None else step) * rho
        delta = rows + length * unit_ascent(slope, direction) - table
        size = delta.norm(dim=1, keepdim=True)
        rows = table + delta * (rho / size.where(size > 0, 1.0)).clamp(max=1)
    return rows


@dataclass(kw_only=True, eq=False)
class PoisonedModel(GradientModel):
    """A compatibility model on features, trained by Eq. 5 on its own loss.

    alpha, radius, law, attribute_scale, steps, step, direction: see :class:`PoisonedConfig`.
    """

    alpha: float = 0.5
    radius: float = 27.0
    law: Law = "truncated normal"
    attribute_scale: float | None = None
    steps: int = 3
    step: float | None = 1.0
    direction: Direction = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, law=Law, direction=Direction)
        _check_table_settings(self)

    def fit(self, dataset: ZSLDataset) -> Self:
        """Learn from ``dataset.trainval``; see :meth:`CompatibilityModel.fit` for what is raised.

        Raises
        ------
        DataError: a data set without :attr:`~zsl_lib.data.ZSLDataset.points`, and no ``attribute_scale``.
        """
        points = _scale(self, None if dataset.points is None else dataset.points[dataset.seen])
        self._points = points.to(self.device) if isinstance(points, Tensor) else points
        self._draws = torch.Generator(self.device).manual_seed(self.seed)
        return super().fit(dataset)

    def _loss(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        own = super()._loss  # type: ignore[safe-super]
        if self.alpha == 1:
            return own(x, y, s)
        table = worst_table(
            lambda s: own(x, y, s),
            s,
            radius=draw(self, self._draws),
            attribute_scale=self._points,
            steps=self.steps,
            step=self.step,
            direction=self.direction,
        )
        value = (1 - self.alpha) * own(x, y, table)
        return value + self.alpha * own(x, y, s) if self.alpha > 0 else value


@dataclass(kw_only=True, eq=False)
class PoisonedDEM(PoisonedModel, DEM):
    """DEM-adv of paper 2, §5.3, for attributes."""

    NAME = "DEM-adv, attributes"


@dataclass(kw_only=True, eq=False)
class PoisonedLDF(PoisonedModel, LDF):
    """LDF-adv of paper 2, §5.3, for attributes."""

    NAME = "LDF-adv, attributes"
