"""Tables are the same text for the same frame; maps and grids have the shapes they promise."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from zsl_lib import plots

mpl.use("Agg")
FRAME = pd.DataFrame({"method": ["a", "b"], "H": [59.123, 61.0], "lr": [0.001, 0.01]})


def test_a_table_is_the_same_text_in_every_run():
    assert plots.table(FRAME).data == plots.table(FRAME.copy()).data
    assert plots.table(FRAME).data != plots.table(FRAME.assign(H=0.0)).data
    assert " at 0x" not in repr(plots.table(FRAME))


def test_a_table_rounds_as_told():
    text = plots.table(FRAME, formats={"lr": "{:g}"}, index=False).data
    assert ">59.1<" in text
    assert ">0.001<" in text
    assert "row_heading" not in text


def test_prose_breaks_and_begins_at_the_left():
    text = plots.table(pd.DataFrame({"T1": [1.0, float("nan")], "why": ["a", "b"]}), prose=["why"]).data
    assert "white-space: normal" in text
    assert "text-align: left" in text
    assert text.count("–") == 1
    assert "white-space" not in plots.table(FRAME).data


def test_a_table_sets_the_best_values_in_bold():
    best = pd.DataFrame({"H": [False, True]})
    text = plots.table(FRAME, best=best).data
    assert text.count("font-weight: bold") == 1
    style = text[: text.index("</style>")]
    assert "row1_col1" in style


def test_the_2d_map_is_repeatable_and_keeps_far_groups_apart():
    g = torch.Generator().manual_seed(0)
    groups = torch.cat([torch.randn(20, 8, generator=g), 50 + torch.randn(20, 8, generator=g)])
    xy = plots.map_2d(groups, perplexity=5)
    assert xy.shape == (40, 2)
    np.testing.assert_array_equal(xy, plots.map_2d(groups, perplexity=5))
    spread = max(np.ptp(xy[:20], axis=0).max(), np.ptp(xy[20:], axis=0).max())
    assert np.linalg.norm(xy[:20].mean(0) - xy[20:].mean(0)) > spread / 2


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (4, 1), (5, 2)])
def test_an_image_grid_has_a_place_for_each_image(n, rows):
    figure = plots.image_grid(torch.zeros(n, 1, 8, 8), columns=4)
    assert len(figure.axes) == 4 * rows
    assert sum(len(axis.images) for axis in figure.axes) == n
    plt.close(figure)


def test_the_transition_matrix_prints_its_shares():
    figure, axis = plt.subplots()
    plots.transition_matrix([[90.0, 10.0], [40.0, 60.0]], axis)
    assert [text.get_text() for text in axis.texts] == ["90.0", "10.0", "40.0", "60.0"]
    plt.close(figure)


def test_the_seen_unseen_curve_has_its_dot_where_nothing_is_subtracted():
    gammas, au, as_ = [-np.inf, -1.0, 0.5], [10.0, 20.0, 30.0], [9.0, 8.0, 7.0]
    figure, axis = plt.subplots()
    plots.seen_unseen_curve(pd.DataFrame({"gamma": gammas, "AU": au, "AS": as_}), axis, label="a method")
    line, dot = axis.lines
    np.testing.assert_array_equal(line.get_xydata(), np.stack([au, as_], 1))
    np.testing.assert_array_equal(dot.get_xydata(), [[20.0, 8.0]])
    assert line.get_label() == "a method"
    assert dot.get_color() == line.get_color()
    plt.close(figure)
