"""DeViSE: values by hand, and the objective it minimises against a solver of that convex problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng
from scipy.optimize import linprog

from zsl_lib.embedding.devise import DeViSE


def test_the_papers_margin_is_the_default():
    assert DeViSE().margin == 0.1


def test_loss_by_hand():
    found = DeViSE()._combine(torch.tensor([[0.0, 0.5, 0.25], [0.0, 0.0, 0.0]]))
    assert found.tolist() == [0.75, 0.0]


def test_it_finds_the_minimum_that_linear_programming_finds():
    """The minimum of a mean of hinges is a linear programme in W and a slack for each image and wrong class.
    The classes overlap, so that it is not 0."""
    g, n, classes = rng(3), 60, 3
    y = torch.arange(n) % classes
    x = torch.eye(4)[y] + 0.8 * torch.randn(n, 4, generator=g)
    s = torch.eye(classes)
    model = DeViSE(margin=1.0, lr=0.3, epochs=800, batch_size=n)
    model._fit(x, y, s)
    unit = torch.nn.functional.normalize(x - x.mean(0)).double().numpy()
    pairs = [(i, c) for i in range(n) for c in range(classes) if c != y[i]]
    rows = np.zeros((len(pairs), 4 * classes + len(pairs)))
    for k, (i, c) in enumerate(pairs):  # 1 + F(c) − F(y) ≤ slack
        direction = np.zeros(classes)
        direction[c], direction[int(y[i])] = 1, -1
        rows[k, : 4 * classes] = np.outer(unit[i], direction).ravel()
        rows[k, 4 * classes + k] = -1
    cost = np.r_[np.zeros(4 * classes), np.full(len(pairs), 1 / n)]
    bounds = [(None, None)] * (4 * classes) + [(0, None)] * len(pairs)
    best = linprog(cost, A_ub=rows, b_ub=-np.ones(len(pairs)), bounds=bounds).fun
    assert best > 0.1
    found = model._loss(x, y, s).item()
    assert best * (1 - 1e-6) <= found
    assert found == pytest.approx(best, rel=0.01)
