r"""Learning against poisoned prototypes: Eq. 5 of paper 2, and its Algorithm 2.

With L the loss of Eq. 3 (with the minus sign that it lacks) and P the seen prototypes, the weights minimise

.. math:: \alpha\, L(x, P) + (1 - \alpha) \max_{\|p'_c - p_c\|_2 \le \rho\ \forall c} L(x, P') .

Eq. 5 and Algorithm 2 are not the same. ``reading`` says which is meant:

``"all"``: Eq. 5. All seen prototypes move, N times.
``"one"``: Algorithm 2 as printed. Each of its N steps draws a prototype and a radius, and sets P' back to P
    first. So in the end one prototype has moved, by one step, and N does not matter. That step is made here.
``"several"``: Algorithm 2 without that line. N different prototypes move, each by one step, one after the
    other, and a radius is drawn for each.

Eq. 5 has the maximum inside the sum over images: a table for each (``threat="per_image"``). Algorithm 2 takes
one image at a time and says nothing of batches; one table for a batch (``"universal"``) is far cheaper.

**Cost.** An image's embedding does not depend on the table: it is computed once a step, with its graph, and
both terms share it. The search passes through the attribute network and the relation network alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.attacks.prototypes import Direction, Threat, fgsm, ifgsm
from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.adversarial import Law, check_settings, draw
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.poison import RelationTables

Reading = Literal["all", "one", "several"]


@dataclass(frozen=True)
class PoisonedConfig(RelationConfig):
    """Settings of :class:`PoisonedLearner`; the paper's where it has them.

    alpha: α; 1 is the Baseline of the paper.
    radius: the largest ρ, on the stated scale, drawn anew in each step from ``law``; ``"fixed"``: always the
        largest. The paper: 27 on AWA2, 54 on CUB, which is three points of a hundred for each attribute,
        3 √K, on both.
    attribute_scale: units of that scale in one unit of the table. 100 suits attributes of 0 and 1; a table
        whose rows have length 1 has the mean length of what was published.
    steps: N; 3 in §4.3 of the paper. reading, threat: see above.
    step: ℓ2 length of a step in radii where all move; 1 in Algorithm 2. None: 1.25 / N, as for images.
    direction: ``"sign"`` is the paper's, see :mod:`zsl_lib.attacks.prototypes`.
    """

    alpha: float = 0.5
    radius: float = 27.0
    law: Law = "truncated normal"
    attribute_scale: float = 100.0
    steps: int = 3
    step: float | None = 1.0
    reading: Reading = "all"
    threat: Threat = "universal"
    direction: Direction = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, law=Law, reading=Reading, threat=Threat, direction=Direction)
        check_range(self, 0, "attribute_scale", above=True)
        if self.step is not None:
            check_range(self, 0, "step", above=True)
        if self.reading == "several" and self.threat == "per_image":
            where = f"{type(self).__name__}.threat"
            raise DataError(where, found="'per_image'", expected="'universal' where several move")


class PoisonedLearner(RelationLearner):
    """ATZSL for attribute attacks: the relation network, trained by Eq. 5 or Algorithm 2.

    All else is :class:`RelationLearner`'s. Radii and prototypes have a generator of their own, so that every
    setting sees the same batches. ``history`` has the value of Eq. 5 as ``loss``, and ``accuracy`` with the
    clean table.
    """

    Config: ClassVar[type] = PoisonedConfig

    def _start(self, data: Any) -> None:
        super()._start(data)
        self._draws = torch.Generator(self.device).manual_seed(self.seed)

    def _loss(self, images: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.config.alpha
        if alpha == 1:
            return super()._loss(images, labels, semantics)
        embedding = self.net.image_embedding(self._noisy(images))
        scores = self.net.compare_embedded(embedding)
        tables = self._search(embedding.detach(), labels, semantics)
        value = (1 - alpha) * F.cross_entropy(scores(tables).float(), labels)
        with torch.set_grad_enabled(alpha > 0):
            clean = scores(semantics)
            value = value + alpha * F.cross_entropy(clean.float(), labels)
        return value, clean

    def _search(self, embedding: Tensor, labels: Tensor, semantics: Tensor) -> Tensor:
        """P' ``[S, K]``, or one an image ``[n, S, K]``; radii and prototypes are drawn."""
        k, rng, seen = self.config, self._draws, len(semantics)
        scores = RelationTables(self.net, embedding)
        given: dict[str, Any] = {"attribute_scale": k.attribute_scale, "direction": k.direction}
        given["threat"] = k.threat
        if k.reading == "all":
            radius, which = draw(k, rng), torch.arange(seen, device=self.device)
            step = None if k.step is None else k.step * radius
            found = ifgsm(
                scores, semantics, labels, which=which, radius=radius, steps=k.steps, step=step, **given
            )
            return found.tables
        if k.reading == "one":
            shape = (len(labels), 1) if k.threat == "per_image" else (1,)
            which = torch.randint(seen, shape, generator=rng, device=self.device)
            return fgsm(scores, semantics, labels, which=which, radius=draw(k, rng), **given).tables
        for which in torch.randperm(seen, generator=rng, device=self.device)[: k.steps].split(1):
            semantics = fgsm(scores, semantics, labels, which=which, radius=draw(k, rng), **given).tables
        return semantics

    def _state(self) -> dict[str, Any]:
        return {"draws": self._draws.get_state()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._draws.set_state(state["draws"].cpu())
