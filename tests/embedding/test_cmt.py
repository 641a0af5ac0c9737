"""CMT: the loss by finite differences, and the detector by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from zsl_lib.embedding.cmt import CMT
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate, predict


def fitted(x: Tensor, y: Tensor, s: Tensor, **settings: float) -> CMT:
    """A detector for images that are mapped to themselves: f(x) = x, so Gaussians can be seen."""

    class Identity(CMT):
        def _network(self, x: Tensor, s: Tensor, rng: torch.Generator) -> nn.Module:
            self.mean = torch.zeros(x.shape[1])
            layer = nn.Linear(2, 2, bias=False)
            layer.weight.data.copy_(torch.eye(2))
            return layer

    model = Identity(epochs=1, lr=1e-30, weight_decay=0, **settings)
    model._fit(x, y, s)
    return model


SEEN = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
NEW = torch.tensor([[4.0, 0.0]])
X = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [12.0, 0.0], [10.0, 2.0]])  # distances 1 1 1; 2 2
Y = torch.tensor([0, 0, 0, 1, 1])


def test_the_gaussians_are_those_of_the_mapped_images():
    model = fitted(X, Y, SEEN)
    torch.testing.assert_close(model.variance, torch.tensor([0.5, 2.0]))  # 1 / 2 and 4 / 2: K is 2
    torch.testing.assert_close(model.seen, SEEN)


def test_novelty_is_minus_the_largest_log_density_but_for_a_constant():
    model = fitted(X, Y, SEEN)
    points = 6 * torch.randn(20, 2, generator=rng(1))
    densities = [multivariate_normal(m, v).logpdf(points) for m, v in ((SEEN[0], 0.5), (SEEN[1], 2.0))]
    expected = torch.from_numpy(-np.max(densities, 0) - math.log(2 * math.pi))
    torch.testing.assert_close(model.novelty(points).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_threshold_is_the_quantile_of_training_images():
    """ν is 1 + log 0.5 for the first class's three images and 1 + log 2 for the other's two."""
    low, high = 1 + math.log(0.5), 1 + math.log(2)
    for keep, expected in ((0.0, low), (0.5, low), (0.75, high), (0.625, (low + high) / 2)):
        assert float(fitted(X, Y, SEEN, keep=keep).threshold) == pytest.approx(expected, abs=1e-5)


def test_the_detector_decides_who_competes():
    model = fitted(X, Y, SEEN, keep=0.9)  # novel: farther than √(2 log 2) · … of both classes
    both = torch.cat([SEEN, NEW])
    images = torch.tensor([[0.9, 0.0], [1.6, 0.0], [3.9, 0.0], [7.5, 0.0], [6.5, 0.0]])
    novel = model.novelty(images) > model.threshold
    radius = [math.sqrt(2 * v * (1 + math.log(2) - math.log(v))) for v in (0.5, 2.0)]
    by_hand = [abs(p) > radius[0] and abs(10 - p) > radius[1] for p in (0.9, 1.6, 3.9, 7.5, 6.5)]
    assert novel.tolist() == by_hand == [False, True, True, True, True]
    found = model._scores(images, both).argmax(1).tolist()
    assert found == [0, 2, 2, 2, 2]
    plain = fitted(X, Y, SEEN, keep=1)._scores(images, both)
    torch.testing.assert_close(plain, -torch.cdist(images, both))
    assert plain.argmax(1).tolist() == [0, 0, 2, 1, 2]


def test_within_either_kind_the_nearest_still_wins():
    model = fitted(X, Y, SEEN, keep=0.9)
    both = torch.cat([SEEN, NEW, torch.tensor([[-3.0, 0.0], [5.0, 5.0]])])
    images = torch.cat([X[:2], 4 * torch.randn(30, 2, generator=rng(2))])
    distances = torch.cdist(images, both)
    novel = model.novelty(images) > model.threshold
    assert novel.any()
    assert not novel.all()
    expected = torch.where(novel, 2 + distances[:, 2:].argmin(1), distances[:, :2].argmin(1))
    assert torch.equal(model._scores(images, both).argmax(1), expected)


@pytest.mark.parametrize("kind", ["seen", "unseen"])
def test_candidates_of_one_kind_only_are_not_touched(kind):
    data = small_dataset()
    x, s = data.features, data.semantics[getattr(data, kind)]
    on, off = (CMT(keep=keep).fit(data).scores(x, s) for keep in (0.1, 1))
    assert torch.equal(on, off)


def test_keep_is_the_share_of_training_images_named_seen():
    data = small_dataset(per_class=60, noise=1.0)
    x = data.features[data.trainval]
    for keep in (0.3, 0.9):
        said = predict(CMT(keep=keep).fit(data), x, data.semantics, data.candidates)
        assert float(torch.isin(said, data.seen).float().mean()) == pytest.approx(keep, abs=0.02)
    with pytest.raises(DataError, match=r"CMT.keep: found 1.5, expected a share, at most 1"):
        CMT(keep=1.5)


def test_the_losss_gradient_agrees_with_finite_differences():
    g = rng(3)
    x, s = torch.rand(6, 4, generator=g).double(), torch.randn(3, 2, generator=g).double()
    y = torch.tensor([0, 1, 2, 2, 1, 0])
    model = CMT(hidden=3)
    model.net = model._network(x, s, rng(4)).double()
    names = [name for name, _ in model.net.named_parameters()]

    def loss(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        f = torch.tanh((x - x.mean(0)) @ w1.T + b1) @ w2.T + b2
        return (f - s[y]).square().sum() / 6

    weights = [p.detach().clone().requires_grad_() for p in model.net.parameters()]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert torch.autograd.gradcheck(loss, weights)
    model._loss(x, y, s).backward()
    for parameter, gradient in zip(
        model.net.parameters(), torch.autograd.grad(loss(*weights), weights), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_constant_offset_of_features_changes_nothing():
    data = small_dataset()
    moved = replace(data, features=data.features + 3)
    a, b = (CMT().fit(d).scores(d.features, d.semantics[d.unseen]) for d in (data, moved))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{"seen": 1}, {"per_class": 3}, {"noise": 0.0}])
def test_one_class_few_images_or_equal_images_give_no_nan(settings):
    data = small_dataset(**settings)
    model = CMT().fit(data)
    assert model.scores(data.features, data.semantics).isfinite().all()
    assert all(0 <= value <= 100 for value in evaluate(model, data))
