"""Fixtures of the tests of attacks: a linear score function, and a small trained network."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import rng
from problems import Linear, Network, Problem
from torch import nn


@pytest.fixture
def linear() -> Problem:
    """Five classes of 12 pixels in the middle of their range, each image in the class of its best score."""
    W = torch.randn(5, 12, generator=rng(1)) / 100
    x = 110 + 35 * torch.rand(20, 12, generator=rng(2))
    scores = Linear(W, -127.5 * W.sum(1))
    return Problem(scores, x, scores(x).argmax(1))


@pytest.fixture
def trained(learned: Problem) -> Problem:
    """:func:`learned`, a copy of its own for each test."""
    return learned._replace(scores=deepcopy(learned.scores))


@pytest.fixture(scope="session")
def learned() -> Problem:
    """A network that has learned five 6 x 6 patterns in noise, and images that it recognises."""
    patterns = 90 + 75 * torch.rand(5, 1, 6, 6, generator=rng(3))
    y = torch.arange(5).repeat(60)
    x = (patterns[y] + 40 * torch.randn(300, 1, 6, 6, generator=rng(4))).clamp(0, 255)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Network(5)
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        adam.zero_grad()
        loss = nn.functional.cross_entropy(net(x[100:]), y[100:], label_smoothing=0.1)
        loss.backward()
        adam.step()
    adam.zero_grad()
    net.eval()
    right = net(x[:100]).argmax(1) == y[:100]
    assert right.sum() >= 80
    return Problem(net, x[:100][right][:40], y[:100][right][:40])
