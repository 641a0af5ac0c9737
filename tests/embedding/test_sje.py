"""SJE: values by hand, and the multi-class SVM that it is for one-hot semantics."""

from __future__ import annotations

import pytest
import torch
from helpers import rng
from sklearn.svm import LinearSVC
from torch.nn.functional import normalize

from zsl_lib.embedding.ranking import Maps
from zsl_lib.embedding.sje import SJE


def test_loss_by_hand():
    found = SJE()._combine(torch.tensor([[0.0, 0.5, 0.25], [0.0, 0.0, 0.0]]))
    assert found.tolist() == [0.5, 0.0]


def test_only_the_most_violating_class_moves():
    v = torch.tensor([[0.0, 0.5, 0.25]], requires_grad=True)
    (gradient,) = torch.autograd.grad(SJE()._combine(v).sum(), v)
    assert gradient.tolist() == [[0.0, 1.0, 0.0]]


def test_for_one_hot_semantics_it_is_crammer_and_singers_svm():
    """min ½ |W|² + C Σᵢ maxᵥ is n C times the mean loss with weight decay 1 / (n C)."""
    g, n, classes, decay = rng(3), 120, 4, 0.01
    y = torch.arange(n) % classes
    x = torch.eye(6)[y] + 0.5 * torch.randn(n, 6, generator=g)
    s = torch.eye(classes)
    model = SJE(lr=0.1, epochs=3000, batch_size=n, weight_decay=decay)
    model._fit(x, y, s)
    svm = LinearSVC(
        C=1 / (n * decay), multi_class="crammer_singer", fit_intercept=False, max_iter=100_000, tol=1e-8
    )
    unit = normalize(x - x.mean(0))
    svm.fit(unit.double().numpy(), y.numpy())

    def objective() -> float:
        return (model._loss(x, y, s) + decay / 2 * model.net.W.square().sum()).item()

    ours = objective()
    scores = model._scores(x, s)
    model.net = Maps(x.mean(0), torch.from_numpy(svm.coef_.T.copy()).float()[None])
    best = objective()
    assert best < 0.7  # 1 at W = 0
    assert ours == pytest.approx(best, rel=2e-3)
    assert ours > best * (1 - 1e-5)
    torch.testing.assert_close(scores, model._scores(x, s), rtol=0, atol=0.1)
