"""Pieces of a page that a reader moves: a Langevin chain, letters, an attack, the balance of seen and unseen.

A notebook computes everything beforehand; a piece is the HTML of it, with its numbers and pictures inside.
It needs neither a kernel nor a network, on a page, from disk and in a notebook. Where no script runs, and
in print, a still picture stands instead. The same arrays give the same text in every run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from zsl_lib.errors import DataError

LIMIT = 300_000
"""Bytes of HTML that one piece may have: a page should open at once."""

Array = ArrayLike | Tensor
Floats = NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class Piece:
    """What a notebook shows: ``data`` for the script, and ``still``, a PNG for where no script runs.

    kind: the function of interactive.js that draws it.
    title, alt: what screen readers say of the piece and of the still.
    """

    kind: str
    title: str
    alt: str
    data: Mapping[str, Any]
    still: bytes

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        content = {"kind": self.kind, "title": self.title, **self.data}
        numbers = _no_markup(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
        name = f"{self.kind}-{hashlib.sha256(numbers.encode()).hexdigest()[:10]}"
        return (
            f'<div class="zsl-piece" data-zsl="{name}">\n<style>\n{_asset("css")}</style>\n'
            f'<img class="zsl-still" alt="{html.escape(self.alt)}" src="{_png_uri(self.still)}">\n'
            f'<script type="application/json">{numbers}</script>\n'
            f'<script>\n(() => {{\n"use strict";\n{_asset("js")}\nstart("{name}");\n}})();\n</script>\n</div>'
        )


def chain_stepper(
    step_sizes: Sequence[float],
    states: Array,
    gradients: Array,
    log_prob: Array,
    grid: tuple[Array, Array, Array],
    *,
    start: int = 0,
    title: str,
    alt: str,
) -> Piece:
    """A Langevin chain in the plane, step by step, for several step sizes (paper 1, Eq. 6).

    Parameters
    ----------
    step_sizes: S rising, positive numbers; ``start`` is the position of the first one shown.
    states: ``[S, T, 2]``, a chain's T states for each size; those far outside the picture are not drawn.
    gradients, log_prob: ∇ log p ``[S, T, 2]`` and log p ``[S, T]`` at the states.
    grid: coordinates ``x [n]``, ``y [m]`` and the density there ``[m, n]``, whose contours are drawn.

    Raises
    ------
    DataError: another shape, numbers that are not finite, a wrong start, empty texts, too large a piece.
    """
    sizes = _array("step_sizes", step_sizes, (None,))
    z = _array("states", states, (len(sizes), None, 2))
    slopes = _array("gradients", gradients, z.shape)
    values = _array("log_prob", log_prob, z.shape[:2])
    x, y = (_array(f"grid[{i}]", grid[i], (None,)) for i in (0, 1))
    density = _array("grid[2]", grid[2], (len(y), len(x)))
    if density.min() < 0 or density.max() <= 0:
        raise DataError("grid[2]", found=f"{density.min():g} to {density.max():g}", expected="a density")
    _rising("step_sizes", sizes, above=0)
    _rising("grid[0]", x)
    _rising("grid[1]", y)
    _position("start", start, len(sizes))
    centres = z + sizes[:, None, None] ** 2 / 2 * slopes
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axis = figure.subplots()
    levels = density.max() * np.exp(-np.array([8, 4.5, 2, 0.5]))  # 4, 3, 2, 1 sd from the mode of a Gaussian
    contours = axis.contour(x, y, density, levels=levels, colors="grey", linewidths=0.8)
    axis.plot(*z[start].T, ".-", color="black", lw=0.6, ms=4)
    axis.set(xlabel="$z_1$", ylabel="$z_2$", title=f"$s$ = {sizes[start]:g}", aspect="equal")
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    data = {
        "sizes": [f"{s:g}" for s in sizes],
        "start": start,
        "x": _short([x[0], x[-1]]),
        "y": _short([y[0], y[-1]]),
        "height": round(50 + 336 * float((y[-1] - y[0]) / (x[-1] - x[0]))),  # one unit is as long both ways
        "contours": [_short(line) for level in contours.allsegs for line in level if len(line) > 1],
        "states": _short(z),
        "centres": _short(centres[:, :-1]),
        "logP": _short(values),
    }
    return _piece("chain", title, alt, data, figure)


def image_explorer(
    images: Array,
    axes: Mapping[str, Sequence[str]],
    captions: Any,
    values: Array,
    *,
    start: Sequence[int],
    measure: str,
    unit: str = "",
    greys: int = 10,
    title: str,
    alt: str,
) -> Piece:
    """A slider for each axis of a grid of grey images; the row along the axis last moved stands below.

    Parameters
    ----------
    images: ``[*grid, H, W]``, ink from 0 to 1, reduced to ``greys`` levels to save space.
    axes: name of each axis and the texts of its positions, in order.
    captions: strings that broadcast to the grid; a caption ends before its full stop.
    values: one number for each image ``[*grid]``, called ``measure`` and in ``unit`` on the page.
    start: a position on each axis, shown first.

    Raises
    ------
    DataError: another shape, ink outside [0, 1], numbers that are not finite, empty texts, too large a piece.
    """
    shape = tuple(len(texts) for texts in axes.values())
    if 0 in shape or not shape:
        raise DataError("axes", found=f"axes of {shape} positions", expected="at least one position on each")
    ink = _array("images", images, (*shape, None, None))
    if ink.min() < 0 or ink.max() > 1:
        raise DataError("images", found=f"{ink.min():g} to {ink.max():g}", expected="ink from 0 to 1")
    if not 2 <= greys <= 256:
        raise DataError("greys", found=greys, expected="2 to 256")
    numbers = _array("values", values, shape)
    if len(start) != len(shape):
        raise DataError("start", found=f"{len(start)} positions", expected=f"{len(shape)}, one an axis")
    for axis, (at, n) in enumerate(zip(start, shape, strict=True)):
        _position(f"start[{axis}]", at, n)
    try:
        texts = np.broadcast_to(np.asarray(captions, dtype=str), shape)
    except ValueError:
        found = f"shape {np.shape(captions)}"
        raise DataError("captions", found=found, expected=f"one that broadcasts to {shape}") from None
    different, which = np.unique(texts, return_inverse=True)
    grey = np.rint(np.rint(ink * (greys - 1)) * (255 / (greys - 1)))
    tiles = (255 - grey).astype(np.uint8).reshape(-1, *ink.shape[-2:])
    data = {
        "axes": [{"name": name, "texts": list(labels)} for name, labels in axes.items()],
        "start": list(start),
        "captions": different.tolist(),
        "caption": which.ravel().tolist(),
        "measure": measure,
        "unit": unit,
        "values": _short(numbers.ravel()),
    } | _sheet(list(tiles))
    grid = tiles.reshape(*shape, *ink.shape[-2:])
    rows = {name: _along(grid, start, a) for a, name in enumerate(axes)}
    return _piece("explorer", title, alt, data, _rows_figure(rows))


def attack_slider(
    images: Array,
    radii: Sequence[float],
    attacked: Mapping[str, Array],
    probabilities: Mapping[str, Array],
    truth: Sequence[int] | Tensor,
    names: Sequence[str],
    *,
    start: int = 0,
    symbol: str = "ε",
    title: str,
    alt: str,
) -> Piece:
    """A slider for the radius of an attack: image, perturbation and what is read, with its confidence.

    One channel is drawn as dark ink on light paper, three as colours.

    Parameters
    ----------
    images: ``[m, C, H, W]`` in pixels of [0, 255], with one channel or three.
    radii: R rising numbers, 0 or larger; ``start`` is the position of the first one shown.
    attacked: by the name of the attack, its images ``[R, m, C, H, W]``.
    probabilities: by the same names, the recogniser's for the attacked images, ``[R, m, K]``.
    truth: true classes ``[m]``, positions in ``names``, which has K entries.

    Raises
    ------
    DataError: what does not fit together, values outside their range, empty texts, too large a piece.
    """
    clean = _array("images", images, (None, None, None, None))
    sizes = _array("radii", radii, (None,))
    _rising("radii", sizes, least=0)
    _position("start", start, len(sizes))
    _pixels("images", clean)
    y = np.asarray(truth)
    if y.shape != clean.shape[:1] or y.min() < 0 or y.max() >= len(names):
        raise DataError("truth", found=y.tolist(), expected=f"{len(clean)} positions in {len(names)} names")
    if not attacked or set(attacked) != set(probabilities):
        found = f"{sorted(probabilities)} beside attacked {sorted(attacked)}"
        raise DataError("probabilities", found=found, expected="the names of attacked")
    tiles, stills = [_tile(image) for image in clean], {}
    runs: list[list[Any]] = []
    few = np.linspace(0, len(sizes) - 1, min(len(sizes), 7)).round().astype(int)  # radii of the still
    for name, moved in attacked.items():
        x = _array(f"attacked[{name!r}]", moved, (len(sizes), *clean.shape))
        _pixels(f"attacked[{name!r}]", x)
        p = _shares(f"probabilities[{name!r}]", probabilities[name], (len(sizes), len(clean), len(names)))
        most = np.abs(x - clean).max((2, 3, 4))
        signs = (x - clean) / np.where(most > 0, most, 1)[..., None, None, None]
        stills[name] = np.stack([_tile(x[r, 0]) for r in few])
        runs.append([])
        for r in range(len(sizes)):
            first = len(tiles)
            runs[-1].append([_answer(p[r, i], y[i], most[r, i], first + 2 * i) for i in range(len(clean))])
            for image, sign in zip(x[r], signs[r], strict=True):
                tiles += [_tile(image), _tile(127.5 + 127.5 * sign)]
    data = {
        "attacks": list(attacked),
        "radii": [f"{r:g}" for r in sizes],
        "start": start,
        "symbol": symbol,
        "names": list(names),
        "truth": y.tolist(),
        "runs": runs,
    } | _sheet(tiles)
    return _piece("attack", title, alt, data, _rows_figure(stills, [f"{symbol} = {r:g}" for r in sizes[few]]))


def calibration_slider(
    curves: Mapping[str, pd.DataFrame],
    marks: Mapping[str, Mapping[str, float]],
    *,
    points: int = 101,
    title: str,
    alt: str,
) -> Piece:
    """A slider for γ, which is taken off the scores of seen classes, moving AU, AS and H.

    Parameters
    ----------
    curves: by the name of a method, :func:`zsl_lib.calibration.seen_unseen_curve`.
    marks: by the same names, values of γ that have a button each, by its text; the first is shown first.
    points: at most so many positions beside the marks, round numbers between γ's 1 % and 99 % quantiles.

    Raises
    ------
    DataError: a missing column, a method without marks, too few points, empty texts, too large a piece.
    """
    if not curves or set(curves) != set(marks) or not all(marks.values()):
        found = f"{ {name: list(of) for name, of in marks.items()} } beside curves {sorted(curves)}"
        raise DataError("marks", found=found, expected="at least one γ for each curve")
    if points < 2:
        raise DataError("points", found=points, expected="2 or more")
    figure = Figure(figsize=(4.2 * len(curves), 3), layout="constrained")
    thinned = []
    for axis, (name, curve) in zip(
        np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True
    ):
        thinned.append(_thinned(name, curve, marks[name], points))
        _balance_figure(axis, name, thinned[-1])
    return _piece("calibration", title, alt, {"methods": list(curves), "curves": thinned}, figure)


def _thinned(name: str, curve: pd.DataFrame, marks: Mapping[str, float], points: int) -> dict[str, Any]:
    """The curve at evenly spaced γ and at the marks, as the script reads it."""
    where = f"curves[{name!r}]"
    if missing := {"gamma", "AU", "AS", "H"} - set(curve.columns):
        raise DataError(where, found=f"no column {sorted(missing)}", expected="gamma, AU, AS, H")
    gamma = curve["gamma"].to_numpy()
    inner = gamma[np.isfinite(gamma)]
    if len(inner) < 2:
        raise DataError(where, found=f"{len(inner)} finite γ", expected="2 or more")
    wanted = _array(f"marks[{name!r}]", list(marks.values()), (None,))
    step, digits = _round_step(np.ptp(inner) / (points - 1))
    low, high = np.quantile(inner, [0.01, 0.99]) / step
    even = np.round(np.arange(math.ceil(low), math.floor(high) + 1) * step, digits)
    at = np.unique(np.concatenate([even, wanted]))
    rows = curve.iloc[np.maximum(np.searchsorted(gamma, at, side="right") - 1, 0)]
    out = {"gamma": _short(at, digits + 2), "labels": [_signed(g, digits) for g in at]}
    out |= {key: _short(rows[key].to_numpy(), 2) for key in ("AU", "AS", "H")}
    return out | {"marks": [[text, int(np.searchsorted(at, g))] for text, g in marks.items()]}


def _round_step(least: float) -> tuple[float, int]:
    """The smallest of 1, 2, 5 times a power of ten from ``least`` on, and its decimals."""
    power = math.floor(math.log10(least))
    step = next(k * 10.0**power for k in (1, 2, 5, 10) if k * 10.0**power >= least)
    return step, max(0, -math.floor(math.log10(step)))


def _balance_figure(axis: Axes, name: str, curve: Mapping[str, Any]) -> None:
    for key, style, colour in (("AU", "--", "C1"), ("AS", "-", "C0"), ("H", ":", "C4")):
        axis.plot(curve["gamma"], curve[key], style, color=colour, label=key)
    for _, k in curve["marks"]:
        axis.axvline(curve["gamma"][k], color="grey", lw=0.7)
    axis.set(xlabel="γ", ylabel="accuracy (%)", ylim=(0, 100), title=name)
    axis.legend()


def _answer(p: Floats, true: int, most: float, tile: int) -> dict[str, Any]:
    """What the recogniser says of one image, in per cent, and where its two tiles begin."""
    shares = {"sure": _short(100 * p.max(), 2), "right": _short(100 * p[true], 2)}
    return {"tile": tile, "most": _short(most, 2), "said": int(p.argmax())} | shares


def _along(grid: NDArray[np.uint8], start: Sequence[int], axis: int) -> NDArray[np.uint8]:
    """The tiles along one axis, with the others at their start."""
    row: NDArray[np.uint8] = np.moveaxis(grid, axis, 0)
    for at in (*start[:axis], *start[axis + 1 :]):
        row = row[:, at]
    return row


def _rows_figure(rows: Mapping[str, NDArray[np.uint8]], heads: Sequence[str] = ()) -> Figure:
    """A row of tiles ``[n, H, W(, 3)]`` for each name; heads stand over the first row's tiles."""
    width = max(len(row) for row in rows.values())
    figure = Figure(figsize=(0.8 * width, 0.95 * len(rows) + 0.2), layout="constrained")
    for line, (name, row) in zip(figure.subplots(len(rows), width, squeeze=False), rows.items(), strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, tile in zip(line, row, strict=False):
            axis.imshow(tile, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        line[0].set_title(name, fontsize=7, loc="left", pad=12 if heads else 4)
    for axis, head in zip(figure.axes, heads, strict=False):
        axis.text(0, -1, head, fontsize=6)
    return figure


def _piece(kind: str, title: str, alt: str, data: Mapping[str, Any], figure: Figure) -> Piece:
    for where, text in {"title": title, "alt": alt}.items():
        if not text.strip():
            raise DataError(where, found="an empty text", expected="what the piece shows")
    piece = Piece(kind, title, alt, data, _png(figure))
    size = len(piece._repr_html_().encode())
    if size > LIMIT:
        hint = "fewer or smaller arrays"
        raise DataError(kind, found=f"{size} bytes of HTML", expected=f"at most {LIMIT}", hint=hint)
    return piece


def _png(figure: Figure) -> bytes:
    """The figure in 32 colours, without the drawing program's version."""
    file = io.BytesIO()
    figure.savefig(file, dpi=130, format="png", facecolor="white")
    small, packed = Image.open(file).convert("RGB").quantize(32, dither=Image.Dither.NONE), io.BytesIO()
    small.save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _packed(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of ``[H, W, 3]``, or of ``[H, W]`` with a palette of the greys that occur."""
    if picture.ndim == 3:
        image = Image.fromarray(picture)
    else:
        greys, which = np.unique(picture, return_inverse=True)
        image = Image.fromarray(which.reshape(picture.shape).astype(np.uint8)).convert("P")
        image.putpalette(greys.repeat(3).tolist())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _tile(image: Floats) -> NDArray[np.uint8]:
    """``[C, H, W]`` in pixels of [0, 255] as it is drawn: ``[H, W]`` of paper and ink, or ``[H, W, 3]``."""
    levels = np.rint(image).clip(0, 255).astype(np.uint8)
    return levels.transpose(1, 2, 0) if len(levels) == 3 else 255 - levels[0]


def _sheet(tiles: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """All tiles in one PNG, and how the script finds one in it."""
    across = math.ceil(math.sqrt(len(tiles)))
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    rows = np.stack([*tiles, *blank]).reshape(-1, across, *tiles[0].shape)
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    height, width = tiles[0].shape[:2]
    return {"tile": [width, height], "across": across, "sheet": _png_uri(_packed(picture))}


def _array(where: str, values: Array, shape: Sequence[int | None]) -> Floats:
    """Finite float64 of the shape; None stands for any length from 1 on."""
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        n == m if m is not None else n > 0 for n, m in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = tuple("any" if n is None else n for n in shape)
        raise DataError(where, found=f"shape {array.shape}", expected=f"{expected}".replace("'", ""))
    if not np.isfinite(array).all():
        raise DataError(where, found="numbers that are not finite", expected="finite numbers")
    return array


def _rising(where: str, values: Floats, *, least: float = -math.inf, above: float = -math.inf) -> None:
    if (np.diff(values) <= 0).any() or values[0] < least or values[0] <= above:
        bound = (
            f" above {above:g}"
            if math.isfinite(above)
            else f" from {least:g}"
            if math.isfinite(least)
            else ""
        )
        raise DataError(where, found=values.tolist()[:8], expected=f"rising numbers{bound}")


def _position(where: str, value: int, length: int) -> None:
    if not 0 <= value < length:
        raise DataError(where, found=value, expected=f"a position from 0 to {length - 1}")


def _pixels(where: str, images: Floats) -> None:
    if images.shape[-3] not in (1, 3):
        raise DataError(where, found=f"{images.shape[-3]} channels", expected="1 or 3")
    if images.min() < 0 or images.max() > 255:
        raise DataError(where, found=f"{images.min():g} to {images.max():g}", expected="pixels of [0, 255]")


def _shares(where: str, values: Array, shape: Sequence[int]) -> Floats:
    p = _array(where, values, shape)
    if p.min() < 0 or np.abs(p.sum(-1) - 1).max() > 1e-3:
        raise DataError(where, found="rows that are no distribution", expected="shares that sum to 1")
    return p


def _short(values: Any, decimals: int = 3) -> Any:
    """Rounded nested lists; 1,000 and beyond keep four digits, so that what diverges stays short."""

    def short(value: float) -> float:
        return float(f"{value:.4g}") if abs(value) >= 1000 else round(value, decimals) + 0.0

    return np.vectorize(short, otypes=[float])(np.asarray(values, dtype=np.float64)).tolist()


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _no_markup(text: str) -> str:
    """JSON in which nothing can end the script element or begin another."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(kind: str) -> str:
    return files("zsl_lib").joinpath(f"interactive.{kind}").read_text(encoding="utf-8")
