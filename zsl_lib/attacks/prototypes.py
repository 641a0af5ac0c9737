r"""Attacks on class prototypes: the table of descriptions is poisoned, no image is touched (paper 2, §3.4).

A row of the table is moved within an :math:`\ell_2` ball of its own, as Eq. 5 says,

.. math:: \|p'_c - p_c\|_2 \le \rho , \qquad
    p' \leftarrow \mathrm{Proj}_{B^\rho_2(p)}\{p' + \sqrt{\rho^2/K}\,\mathrm{sign}\,\nabla_p L\} .

A sign step of :math:`\sqrt{\rho^2/K}` for each of K attributes has length ρ. It is not the steepest of that
length: ``direction="gradient"`` is, which gains :math:`\|\nabla\|_2` a unit of length, where the sign gains
:math:`\|\nabla\|_1/\sqrt K`, never more (Cauchy and Schwarz).

**Threats.** The paper does not say which of two it means; ``threat`` has no default.

``"per_image"``: every query meets a table of its own, poisoned against it alone. An attack on images in
    disguise: whoever can change the table between two queries might as well change the answer.
``"universal"``: one poisoned table for all queries, as a file with attributes is changed once. The loss is
    the mean over all queries.

**Scores.** An attack sees ``scores(tables) -> [n, C]`` and nothing else: scores of n queries for a table
``[C, K]`` or for one table each, ``[n, C, K]``, with any C. Several such functions in a list are successive
batches of queries. Where ``scores.separable`` is True, a column's scores depend on its own row of the table
alone, and no more than the rows under attack is evaluated. :func:`zsl_lib.poison.table_scores` makes them.

**Scale.** ρ, steps and bounds are on a scale that the caller states: ``attribute_scale`` says how many of its
units one unit of the table is, for all rows or row by row. The paper's scale is 0 to 100. A table of 0 and 1
has 100; one whose rows were brought to length 1 has their former lengths, see :func:`scale_to_length`. The
paper clips nothing; ``bounds`` does.

**Steps.** The paper gives no length for its nine steps at test time. Steps of ρ, as in Algorithm 2, jump from
one side of the ball to another and cannot settle. The paper's rule for images, 1.25 ρ / N, can, and reaches
the surface from the centre with a fifth of the way to spare; it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    Bounds,
    Loss,
    check_choice,
    check_counts,
    differentiate,
    draw,
    loss_values,
)
from zsl_lib.attacks.common import direction as steepest
from zsl_lib.attacks.pgd import STEP
from zsl_lib.errors import DataError

TableScores = Callable[[Tensor], Tensor]
Threat = Literal["per_image", "universal"]
Direction = Literal["sign", "gradient"]

NO_GRADIENT = "no detach(), no_grad() or rounding on the way from the table to scores"


@dataclass(frozen=True, eq=False)
class Poisoned:
    """What an attack made of a table ``[C, K]``.

    columns: rows of the table that may have moved, int64 ``[m]``, or one choice a query ``[n, m]``.
    rows: what they became, ``[m, K]`` or ``[n, m, K]``. scale: ``[C]``, the attribute scale of each class.
    attributes: of :func:`flip`, the attributes that were flipped, ``[k]`` or ``[n, k]``, -1 for none.
    """

    table: Tensor
    columns: Tensor
    rows: Tensor
    scale: Tensor
    attributes: Tensor | None = None

    @property
    def tables(self) -> Tensor:
        """The poisoned table ``[C, K]``, or one a query ``[n, C, K]``."""
        return replaced(self.table, self.columns, self.rows)

    @property
    def sizes(self) -> Tensor:
        """ℓ2 of each row's change, on the stated scale, float64, as ``columns``."""
        delta = self.rows.double() - self.table[self.columns].double()
        return delta.norm(dim=-1) * self.scale[self.columns]

    def __getitem__(self, part: slice) -> Poisoned:
        """Of a poisoning per image, that of some queries; a universal one is the same for all."""
        if self.columns.ndim == 1:
            return self
        chosen = None if self.attributes is None else self.attributes[part]
        return Poisoned(self.table, self.columns[part], self.rows[part], self.scale, chosen)

    @torch.no_grad()
    def scores(self, scores: TableScores | Sequence[TableScores]) -> Tensor:
        """Scores ``[n, C]`` of the queries under it."""
        found, done = [], 0
        for part in _listed(scores):
            clean = part(self.table)
            own = self[done : done + len(clean)]
            found.append(_after(part, self.table, own.columns, own.rows, clean))
            done += len(clean)
        return torch.cat(found)


def fgsm(
    scores: TableScores | Sequence[TableScores],
    table: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    threat: Threat,
    which: Tensor | None = None,
    direction: Direction = "sign",
    loss: Loss = "ce",
    attribute_scale: float | Tensor = 1.0,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    """One step of length ρ: :func:`ifgsm` with ``steps=1, step=radius``. ``generator`` is not used."""
    return ifgsm(
        scores,
        table,
        y,
        radius=radius,
        threat=threat,
        which=which,
        steps=1,
        step=radius,
        direction=direction,
        loss=loss,
        attribute_scale=attribute_scale,
        bounds=bounds,
    )


def ifgsm(
    scores: TableScores | Sequence[TableScores],
    table: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    threat: Threat,
    which: Tensor | None = None,
    steps: int = 9,
    step: float | Tensor | None = None,
    direction: Direction = "sign",
    loss: Loss = "ce",
    attribute_scale: float | Tensor = 1.0,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    """Steps of ascent, each brought back into the ball: ``steps`` gradients. ``generator`` is not used.

    Parameters
    ----------
    scores: tables to scores of n queries, or a list of such functions for successive batches of queries.
    table: descriptions ``[C, K]`` of the candidate classes, float; C > 1.
    y: int64 ``[n]``, each query's class, a row of the table.
    radius: ρ of each row's ball, on the stated scale; one number, or one a class ``[C]``.
    threat: ``"per_image"`` or ``"universal"``.
    which: rows that may move: bool ``[C]``, int64 ``[m]``, or per image int64 ``[n, m]``. None: the row of
        the query's own class, and per image only.
    step: ℓ2 length of a full step on the stated scale, one number or ``[C]``; 1.25 radius / steps if None.
    direction: ``"sign"`` is the paper's, ``"gradient"`` the steepest of the same length.
    loss: ``"ce"`` or ``"margin"``; larger is better for the attacker.
    attribute_scale: units of the stated scale in one unit of the table; one number, or one a class ``[C]``.
    bounds: lowest and highest value on the stated scale; None: none, as in the paper.

    Raises
    ------
    DataError: a table with a row of zeros, a single row or an entry that is not finite; labels or ``which``
        that are no rows of it; a negative radius; scores of another shape, or without a gradient in it.
    """
    check_counts(steps=steps)
    problem = _Problem(scores, table, y, threat, which, loss, attribute_scale)
    rho = problem.ball(radius, bounds)
    length = STEP * rho / steps if step is None else problem.lengths("step", step)
    rows = problem.start
    for _ in range(steps):
        rows = problem.project(rows + length * unit_ascent(problem.slope(rows), direction))
    return problem.poisoned(rows)


def wrm(
    scores: TableScores | Sequence[TableScores],
    table: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor | None = None,
    gamma: float | None = None,
    threat: Threat,
    which: Tensor | None = None,
    steps: int = 9,
    loss: Loss = "ce",
    attribute_scale: float | Tensor = 1.0,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    r"""Ascent on :math:`L(p') - \gamma\|p' - p\|_2^2`, see :func:`zsl_lib.attacks.wrm`.

    Parameters
    ----------
    radius: of a ball to stay in, on the stated scale; None for the penalty alone.
    gamma: loss a squared unit of the stated scale, above 0. None: for each row so that its first-order
        solution ∇L / 2γ has length ρ. The paper gives ρ alone.

    Others, and errors: as :func:`ifgsm`.
    """
    check_counts(steps=steps)
    if radius is None and gamma is None:
        raise DataError("gamma", found=None, expected="a number above 0, or a radius")
    if gamma is not None and not 0 < gamma < math.inf:
        raise DataError("gamma", found=gamma, expected="a number above 0")
    problem = _Problem(scores, table, y, threat, which, loss, attribute_scale)
    rho = problem.ball(1e30 if radius is None else radius, bounds)
    slope = problem.slope(problem.start)
    if gamma is None:
        size = slope.norm(dim=-1, keepdim=True)
        reach = rho / size.where(size > 0, 1.0)
    else:
        reach = 1 / (2 * gamma * problem.scale.square())
    rows = problem.start
    for t in range(steps):
        slope = problem.slope(rows) if t else slope
        ascent = reach * slope - (rows - problem.start)
        rows = problem.project(rows + ascent / math.sqrt(t + 2))
    return problem.poisoned(rows)


def noise(
    scores: TableScores | Sequence[TableScores],
    table: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    threat: Threat,
    which: Tensor | None = None,
    attribute_scale: float | Tensor = 1.0,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    """Random poison: every row moves by exactly ρ, in a uniform direction; the floor for the others.

    With ``bounds`` it moves by ρ at most. Others, and errors: as :func:`ifgsm`, and no generator.
    """
    problem = _Problem(scores, table, y, threat, which, "ce", attribute_scale)
    rho = problem.ball(radius, bounds)
    delta = draw(torch.randn, problem.start, generator)
    return problem.poisoned(problem.project(problem.start + rho * unit_ascent(delta, "gradient")))


def flip(
    scores: TableScores | Sequence[TableScores],
    table: Tensor,
    y: Tensor,
    *,
    count: int,
    threat: Threat,
    which: Tensor | None = None,
    shortlist: int = 8,
    loss: Loss = "ce",
    attribute_scale: float | Tensor = 1.0,
) -> Poisoned:
    """Up to ``count`` attributes of a class take their :func:`opposite`: "a zebra without stripes".

    Greedy: of the ``shortlist`` attributes that promise most by the gradient, the one that raises the loss
    most when it is tried; K tries all. It ends early where none raises it. ``attributes`` of the result says
    which were flipped, in this order. There is no radius: the budget is the number of lies.

    Parameters
    ----------
    which: one class, int64 ``[1]`` or a mask of one; None: the query's own, per image only.

    Others, and errors: as :func:`ifgsm`, and more than one row.
    """
    check_counts(count=count, shortlist=shortlist)
    problem = _Problem(scores, table, y, threat, which, loss, attribute_scale)
    rows, other = problem.start, opposite(table)[problem.columns]
    if rows.shape[-2] != 1:
        raise DataError("which", found=f"{rows.shape[-2]} rows", expected="one class to describe wrongly")
    open_, value, flipped = other != rows, problem.losses(rows), []
    for _ in range(count):
        gain = (problem.slope(rows) * (other - rows)).masked_fill(~open_, -torch.inf)
        best, chosen = rows, torch.full(rows.shape[:-2], -1, device=rows.device)
        for index in gain.topk(min(shortlist, table.shape[1])).indices.split(1, dim=-1):
            trial = rows.scatter(-1, index, other.gather(-1, index))
            found = problem.losses(trial)
            better = (found > value) & open_.gather(-1, index)[..., 0, 0]
            value = torch.where(better, found, value)
            best = torch.where(better[..., None, None], trial, best)
            chosen = torch.where(better, index[..., 0, 0], chosen)
        flipped.append(chosen)
        open_, rows = open_ & (best == rows), best
    return replace(problem.poisoned(rows), attributes=torch.stack(flipped, dim=-1))


def opposite(table: Tensor) -> Tensor:
    """For each entry of ``[C, K]`` the end of its column's range that is farther away.

    For attributes of 0 and 1 this is the other of the two; a constant column stays.
    """
    low, high = table.amin(0), table.amax(0)
    return torch.where(table - low <= high - table, high, low)


def scale_to_length(table: Tensor, length: float | Tensor) -> Tensor:
    """The ``attribute_scale`` ``[C]`` that gives rows of ``[C, K]`` these lengths, a number or ``[C]``.

    The benchmark's rows have length 1; on the published scale of 0 to 100 they have the lengths of
    ``original_att``, about 300 for AwA's and 410 for CUB's.
    """
    return length / table.double().norm(dim=1)


def replaced(table: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """``table`` with other rows: ``[C, K]`` for ``[m]`` and ``[m, K]``, ``[n, C, K]`` for ``[n, m]``."""
    if columns.ndim == 1:
        return table.index_copy(0, columns, rows)
    full = table.expand(len(rows), *table.shape)
    return full.scatter(1, columns[:, :, None].expand_as(rows), rows)


def _after(scores: TableScores, table: Tensor, columns: Tensor, rows: Tensor, clean: Tensor) -> Tensor:
    """Scores ``[n, C]`` with other rows; ``clean`` ``[n, C]`` are those of the table as it is."""
    if not getattr(scores, "separable", False):
        return scores(replaced(table, columns, rows))
    moved = scores(rows)
    return clean.to(moved).scatter(1, columns.expand(moved.shape), moved)


def unit_ascent(slope: Tensor, direction: Direction) -> Tensor:
    """Ascent of length 1 for each row of ``[..., K]``; shorter where a sign is 0, and 0 for a slope of 0."""
    check_choice("direction", direction, ("sign", "gradient"))
    if direction == "sign":
        return slope.sign() / math.sqrt(slope.shape[-1])
    return steepest(slope.reshape(-1, slope.shape[-1]), "l2").reshape(slope.shape)


def _listed(scores: TableScores | Sequence[TableScores]) -> list[TableScores]:
    return [scores] if callable(scores) else list(scores)


class _Part(NamedTuple):
    """A batch of queries: its place among all, their classes, and their scores without an attack."""

    scores: TableScores
    place: slice
    y: Tensor
    clean: Tensor


class _Problem:
    """Rows to be moved, ``start`` ``[m, K]`` or ``[n, m, K]``, and what the attacker wants of them."""

    def __init__(
        self,
        scores: TableScores | Sequence[TableScores],
        table: Tensor,
        y: Tensor,
        threat: Threat,
        which: Tensor | None,
        loss: Loss,
        attribute_scale: float | Tensor,
    ) -> None:
        check_table(table)
        check_choice("threat", threat, ("per_image", "universal"))
        check_choice("loss", loss, ("ce", "margin"))
        _check_labels(y, len(table))
        self.table, self.loss, self.each = table.detach(), loss, threat == "per_image"
        self.columns = _columns(which, y, len(table), self.each).to(table.device)
        self.start = self.table[self.columns]
        self.of_class = _per_class("attribute_scale", attribute_scale, table)
        if not bool((self.of_class > 0).all()):
            raise DataError("attribute_scale", found=f"{self.of_class.min():g}", expected="above 0")
        self.scale = self.of_class[self.columns][..., None].to(table)
        self.parts = self._batches(_listed(scores), y.to(table.device))

    @torch.no_grad()
    def _batches(self, functions: list[TableScores], y: Tensor) -> list[_Part]:
        parts, done = [], 0
        for function in functions:
            clean = function(self.table)
            if clean.ndim != 2 or clean.shape[1] != len(self.table):
                expected = f"[n, {len(self.table)}], a column a row of the table"
                raise DataError("scores", found=f"shape {list(clean.shape)}", expected=expected)
            place = slice(done, done + len(clean))
            parts.append(_Part(function, place, y[place].to(clean.device), clean))
            done += len(clean)
        if done != len(y):
            raise DataError("y", found=f"{len(y)} labels", expected=f"{done}, one a query")
        return parts

    def lengths(self, name: str, value: float | Tensor) -> Tensor:
        """A length on the stated scale as one of the table's units beside each row, ``[..., 1]``."""
        given = _per_class(name, value, self.table) / self.of_class
        return given[self.columns][..., None].to(self.table)

    def ball(self, radius: float | Tensor, bounds: Bounds | None) -> Tensor:
        """Sets what :meth:`project` keeps to; returns the radius beside each row."""
        rho = self.lengths("radius", radius)
        # what is stored is rounded: so much less that it lies in the ball as well
        unit = torch.finfo(self.table.dtype).eps
        slack = unit * (self.start.double().norm(dim=-1, keepdim=True) + 4 * rho.double())
        self.room = (rho.double() - slack).clamp(min=0)
        self.low, self.high = torch.full_like(self.start, -torch.inf), torch.full_like(self.start, torch.inf)
        if bounds is not None:
            self.low, self.high = self._bounds(*bounds)
        return rho

    def _bounds(self, low: float, high: float) -> tuple[Tensor, Tensor]:
        if not low < high:
            raise DataError("bounds", found=(low, high), expected="a lower and a higher value")
        stated = self.start * self.scale
        if not low - 1e-5 * (high - low) <= stated.min() <= stated.max() <= high + 1e-5 * (high - low):
            found = f"rows from {stated.min():g} to {stated.max():g} on the stated scale"
            raise DataError("bounds", found=found, expected=f"rows within [{low:g}, {high:g}]")
        # nearest to the bounds, clean entries are inside in spite of rounding
        return self.start.minimum(low / self.scale), self.start.maximum(high / self.scale)

    def project(self, rows: Tensor) -> Tensor:
        """The nearest points of the balls, then of the bounds; rows that stay are the same to the bit."""
        delta = rows.double() - self.start.double()
        length = delta.norm(dim=-1, keepdim=True)
        delta = delta * (self.room / length.where(length > 0, 1.0)).clamp(max=1)
        moved = (self.start.double() + delta).to(self.start.dtype)
        return moved.maximum(self.low).minimum(self.high)

    def slope(self, rows: Tensor) -> Tensor:
        """Gradient in the rows: of each query's own loss, or of the mean over all queries."""
        found = []
        for part in self.parts:
            with torch.enable_grad():
                here = (rows[part.place] if self.each else rows).detach().requires_grad_()
                total = self._loss_of(part, here).sum()
                found.append(differentiate(total, here, name="the table", hint=NO_GRADIENT))
        if self.each:
            return torch.cat(found)
        return torch.stack(found).sum(0) / sum(len(part.y) for part in self.parts)

    @torch.no_grad()
    def losses(self, rows: Tensor) -> Tensor:
        """Loss of each query ``[n]``, or its mean over all of them, a number."""
        parts = [self._loss_of(part, rows[part.place] if self.each else rows) for part in self.parts]
        found = torch.cat(parts).to(self.start)
        return found if self.each else found.mean()

    def _loss_of(self, part: _Part, rows: Tensor) -> Tensor:
        columns = self.columns[part.place] if self.each else self.columns
        return loss_values(_after(part.scores, self.table, columns, rows, part.clean), part.y, self.loss)

    def poisoned(self, rows: Tensor) -> Poisoned:
        return Poisoned(self.table, self.columns, rows, self.of_class)


def check_table(table: Tensor) -> None:
    """Raise DataError unless ``[C, K]`` is float and finite, of two rows or more, none of them 0."""
    if table.dtype not in (torch.float32, torch.float64):
        raise DataError("table", found=table.dtype, expected="float32 or float64")
    if table.ndim != 2 or len(table) < 2 or table.shape[1] == 0:
        raise DataError("table", found=f"shape {list(table.shape)}", expected="[C, K] with C > 1, K > 0")
    bad = int((~table.isfinite()).sum())
    if bad:
        raise DataError("table", found=f"{bad} NaN or infinite entries", expected="finite ones")
    empty = (table == 0).all(1).nonzero().flatten().tolist()
    if empty:
        found = f"only zeros in {len(empty)} rows, the first is {empty[0]}"
        raise DataError("table", found=found, expected="a description of each class")


def _check_labels(y: Tensor, classes: int) -> None:
    if y.dtype != torch.int64 or y.ndim != 1 or len(y) == 0:
        raise DataError("y", found=f"{y.dtype} {list(y.shape)}", expected="torch.int64 [n] with n > 0")
    if y.min() < 0 or y.max() >= classes:
        found = f"{int(y.min())}..{int(y.max())}"
        raise DataError("y", found=found, expected=f"rows of the table, 0..{classes - 1}")


def _columns(which: Tensor | None, y: Tensor, classes: int, each: bool) -> Tensor:
    """int64 ``[n, m]`` per image, ``[m]`` for all."""
    if which is None:
        if not each:
            expected = "rows, since one table for all queries has no row of the query's own"
            raise DataError("which", found=None, expected=expected)
        return y[:, None]
    found = f"{which.dtype} {list(which.shape)}"
    if which.dtype == torch.bool and which.shape == (classes,):
        which = which.nonzero().flatten()
    shaped = which.ndim == 1 or (each and which.ndim == 2 and len(which) == len(y))
    if which.dtype != torch.int64 or not shaped or which.shape[-1] == 0:
        expected = f"bool [{classes}] or int64 [m]" + (f" or [{len(y)}, m]" if each else "")
        raise DataError("which", found=found, expected=f"{expected}, with m > 0")
    if which.min() < 0 or which.max() >= classes:
        span = f"{int(which.min())}..{int(which.max())}"
        raise DataError("which", found=span, expected=f"rows of the table, 0..{classes - 1}")
    ordered = which.sort(-1).values
    if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
        raise DataError("which", found="a row twice", expected="each row once")
    return which.expand(len(y), -1) if each else which


def _per_class(name: str, value: float | Tensor, table: Tensor) -> Tensor:
    """A number of 0 or more, for all classes or one each ``[C]``, as float64 ``[C]``."""
    given = torch.as_tensor(value, dtype=torch.float64, device=table.device)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(table)):
        raise DataError(name, found=f"shape {list(given.shape)}", expected=f"a number or [{len(table)}]")
    if not bool(((given >= 0) & given.isfinite()).all()):
        raise DataError(name, found=f"{given.min():g}", expected="finite, 0 or larger")
    return given.expand(len(table))
