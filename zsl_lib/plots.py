"""The book's figures and tables: one style, and the few drawings that several chapters share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

SEEN, UNSEEN = sns.color_palette("colorblind")[:2]


def style() -> None:
    """Colour-blind-safe palette, thin frames and 2× pictures for the whole notebook."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    mpl.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "savefig.dpi": 100,
        "font.size": 10,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.title_fontsize": 9,
        "axes.titlesize": 10,
        "legend.fontsize": 9,
        "legend.frameon": False,
    }
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # not in a notebook
        return
    set_matplotlib_formats("retina")


def image_grid(images: Tensor, *, columns: int, titles: Sequence[str] = (), size: float = 0.8) -> Figure:
    """Images ``[n, C, H, W]`` in rows of ``columns``; ``size`` is the width of one in inches."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * size * (1.25 if titles else 1))
    )
    for i, axis in enumerate(np.atleast_1d(axes).flat):
        axis.set_axis_off()
        if i < len(images):
            picture = images[i].permute(1, 2, 0).numpy()
            axis.imshow(picture.squeeze(2), cmap="gray_r", interpolation="nearest")
            if titles:
                axis.set_title(titles[i], fontsize=9)
    return figure


def map_2d(features: Any, *, seed: int = 0, perplexity: float = 30) -> NDArray[np.floating]:
    """t-SNE of features ``[n, D]`` after PCA to at most 50 dimensions: coordinates ``[n, 2]``."""
    x = np.asarray(features, dtype=np.float64)
    x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    return TSNE(perplexity=min(perplexity, (len(x) - 1) / 3), init="pca", random_state=seed).fit_transform(x)


def transition_matrix(matrix: Any, axis: Axes, *, labels: Sequence[str] = ("seen", "unseen")) -> None:
    """Shares in per cent: rows are the truth, columns the prediction."""
    sns.heatmap(
        np.asarray(matrix),
        annot=True,
        fmt=".1f",
        vmin=0,
        vmax=100,
        cmap="Blues",
        cbar=False,
        square=True,
        xticklabels=list(labels),
        yticklabels=list(labels),
        ax=axis,
    )
    axis.set(xlabel="predicted as", ylabel="truth")
    axis.tick_params(length=0)


def seen_unseen_curve(curve: pd.DataFrame, axis: Axes, **style: Any) -> None:
    """AS against AU over every γ, from :func:`zsl_lib.calibration.seen_unseen_curve`; a dot at γ = 0.

    ``style`` goes to the line, e.g. ``label`` and ``color``.
    """
    (line,) = axis.plot(curve["AU"], curve["AS"], **style)
    uncalibrated = curve[curve["gamma"] <= 0].iloc[-1]
    axis.plot(uncalibrated["AU"], uncalibrated["AS"], "o", color=line.get_color())
    axis.set(xlabel="AU (%)", ylabel="AS (%)", xlim=(0, 100), ylim=(0, 100))


def table(
    frame: pd.DataFrame,
    *,
    precision: int = 1,
    formats: Mapping[str, str] | None = None,
    best: pd.DataFrame | None = None,
    prose: Sequence[str] = (),
    index: bool = True,
) -> Any:
    """A frame as an HTML table for a notebook, the same text for the same frame in every run.

    Parameters
    ----------
    precision: decimals of numbers; ``formats`` gives columns a format of their own, e.g. ``{"lr": "{:g}"}``.
        What is missing (NaN) is a dash.
    best: True where a value is set in bold; its columns are among the frame's.
    prose: columns of sentences, which begin at the left and break.
    index: False leaves the row labels out.
    """
    from IPython.display import HTML  # only notebooks need it

    name = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:8]
    styler = frame.style.set_uuid(name).format(dict(formats or {}), precision=precision, na_rep="–")
    if best is not None:
        weights = best.map(lambda is_best: "font-weight: bold" if is_best else "")
        styler = styler.apply(lambda column: weights[column.name], subset=list(best.columns))
    if prose:
        kind = {"text-align": "left", "white-space": "normal", "min-width": "14rem"}
        styler = styler.set_properties(subset=list(prose), **kind)
    if not index:
        styler = styler.hide(axis="index")
    return HTML(styler.to_html())
