"""DEM's loss by hand and by finite differences, and the hubs that its direction avoids."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from helpers import rng, small_dataset
from sklearn.linear_model import Ridge
from torch import Tensor

from zsl_lib.embedding.dem import DEM
from zsl_lib.metrics import hubness


def double(model: DEM, dim: int, k: int) -> DEM:
    """With a network in double precision and weights not trained."""
    x, s = torch.rand(5, dim, generator=rng(1)), torch.rand(3, k, generator=rng(2))
    model.net = model._network(x, s, rng(3)).double()
    return model


def by_hand(model: DEM, s: Tensor) -> list[list[float]]:
    """f(s) in loops."""
    w1, b1, w2, b2 = (p.detach().tolist() for p in model.net.parameters())
    found = []
    for row in s.tolist():
        h = [
            max(0.0, sum(w * v for w, v in zip(ws, row, strict=True)) + b)
            for ws, b in zip(w1, b1, strict=True)
        ]
        found.append(
            [
                max(0.0, sum(w * v for w, v in zip(ws, h, strict=True)) + b)
                for ws, b in zip(w2, b2, strict=True)
            ]
        )
    return found


def test_loss_and_scores_are_the_printed_formulas():
    model = double(DEM(lam=0.3, hidden=4), 3, 2)
    g = rng(4)
    x, s = torch.rand(5, 3, generator=g).double(), torch.randn(3, 2, generator=g).double()
    y = torch.tensor([0, 2, 1, 1, 0])
    f = by_hand(model, s)
    error = sum((float(x[i, d]) - f[int(y[i])][d]) ** 2 for i in range(5) for d in range(3)) / 5
    weights = sum(
        float(p.detach().square().sum()) for name, p in model.net.named_parameters() if "weight" in name
    )
    assert float(model._loss(x, y, s).detach()) == pytest.approx(error + 0.3 * weights)
    distance = torch.tensor([[sum((float(a[d]) - c[d]) ** 2 for d in range(3)) for c in f] for a in x])
    found = model._compare(x, s) - x.square().sum(1, keepdim=True) / 2
    torch.testing.assert_close(found.float().detach(), -distance / 2)


def test_the_losss_gradient_agrees_with_finite_differences():
    model = double(DEM(lam=0.3, hidden=4), 3, 2)
    g = rng(5)
    x, s, y = (
        torch.rand(5, 3, generator=g).double(),
        torch.randn(3, 2, generator=g).double(),
        torch.tensor([0, 2, 1, 1, 0]),
    )
    start = [p.detach() + 0.1 for p in model.net.parameters()]  # away from the kinks

    def loss(*weights: Tensor) -> Tensor:
        names = [name for name, _ in model.net.named_parameters()]
        f = torch.func.functional_call(model.net, dict(zip(names, weights, strict=True)), (s,))
        return (x - f[y]).square().sum(1).mean() + 0.3 * (
            weights[0].square().sum() + weights[2].square().sum()
        )

    model.net.load_state_dict(
        dict(zip([name for name, _ in model.net.named_parameters()], start, strict=True))
    )
    assert float(loss(*start)) == pytest.approx(float(model._loss(x, y, s).detach()))
    assert torch.autograd.gradcheck(loss, [p.requires_grad_() for p in start])
    model._loss(x, y, s).backward()
    expected = torch.autograd.grad(loss(*start), start)
    for parameter, gradient in zip(model.net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_constant_feature_stays_0():
    data = small_dataset()
    x = torch.cat([data.features, torch.zeros(len(data), 1)], 1)
    y = torch.searchsorted(data.seen, data.labels[data.trainval])
    model = DEM(epochs=50)
    model._fit(x[data.trainval], y, data.semantics[data.seen])
    with torch.no_grad():
        f = model.net(data.semantics)
    torch.testing.assert_close(f[:, -1], torch.zeros(len(f)), rtol=0, atol=0.02)


def test_one_seen_class_is_learned():
    data = small_dataset(seen=1)
    assert DEM(epochs=3).fit(data).scores(data.features, data.semantics).isfinite().all()


class World(NamedTuple):
    """Seen features, classes and semantics, and those of unseen classes."""

    x: Tensor
    y: Tensor
    s: Tensor
    new_x: Tensor
    new_y: Tensor
    new_s: Tensor


def noisy_world(classes: int = 200, k: int = 60, dim: int = 100, per_class: int = 5) -> World:
    """Features linear in Gaussian semantics, with twice as much noise as signal."""
    g = rng(7)
    s = torch.randn(2 * classes, k, generator=g) / k**0.5
    y = torch.arange(len(s)).repeat_interleave(per_class)
    mean = s[y] @ torch.randn(k, dim, generator=g)
    x = 0.5 + 0.1 * (mean + 2 * torch.randn(len(y), dim, generator=g))
    known = y < classes
    return World(x[known], y[known], s[:classes], x[~known], y[~known] - classes, s[classes:])


def ridge(inputs: Tensor, targets: Tensor, new: Tensor) -> Tensor:
    return torch.from_numpy(Ridge(alpha=1.0).fit(inputs.numpy(), targets.numpy()).predict(new.numpy()))


def accuracy(scores: Tensor, y: Tensor) -> float:
    return float((scores.argmax(1) == y).float().mean())


def test_ridge_from_features_to_semantics_makes_hubs_and_dem_does_not():
    """Shigeto et al. 2015: what is mapped shrinks to the middle, and so do images, towards the classes
    that are near it; classes that are shrunk have no hub among them."""
    w = noisy_world()
    forward = -torch.cdist(ridge(w.x, w.s[w.y], w.new_x), w.new_s)
    reverse = -torch.cdist(w.new_x, ridge(w.s[w.y], w.x, w.new_s))
    dem = DEM(epochs=30, lam=0.01, hidden=256)
    dem._fit(w.x, w.y, w.s)
    with torch.no_grad():
        found = dem._scores(w.new_x, w.new_s)
    assert hubness(forward, k=5) > 5  # 6.4
    assert max(hubness(reverse, k=5), hubness(found, k=5)) < 2  # 1.5 and 0.3
    assert accuracy(forward, w.new_y) < 0.4  # 0.32
    assert min(accuracy(reverse, w.new_y), accuracy(found, w.new_y)) > 0.7  # 0.86 and 0.78
