"""SynC's classifiers against linear SVMs, its weights by hand, and where it must succeed and fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from sklearn.svm import LinearSVC
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.sync import SYNC, _objective
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate

LAM, SIGMA = 0.05, 0.8


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset()


def exact(sigma: float = SIGMA, lam: float = LAM) -> SYNC:
    return SYNC(lam, sigma, tol=1e-11, max_iter=5000)


def training_parts(d: ZSLDataset) -> tuple[Tensor, Tensor]:
    """X ``[n, D]`` and y ``[n]``, rows of the seen semantics."""
    return d.x(d.trainval).double(), torch.searchsorted(d.seen, d.labels[d.trainval])


def naive_weights(s: Tensor, seen: Tensor, sigma: float) -> Tensor:
    pairs = [(a - b).square().sum() for i, a in enumerate(seen) for b in seen[:i]]
    width = sigma**2 * torch.stack(pairs).mean()
    near = torch.stack([torch.stack([(-(c - b).square().sum() / width).exp() for b in seen]) for c in s])
    return near / near.sum(1, keepdim=True)


def loss(v: Tensor, x: Tensor, y: Tensor, omega: Tensor) -> Tensor:
    """The printed objective, as a function of V, image by image and class by class."""
    w, total = omega @ v, torch.zeros(())
    for row, label in zip(x, y.tolist(), strict=True):
        for c in range(len(w)):
            sign = 1.0 if c == label else -1.0
            total = total + (1 - sign * w[c] @ row).clamp(min=0).square() / len(x)
    return total + LAM / 2 * w.square().sum()


def test_weights_are_a_softmax_of_squared_distances(data):
    seen = data.semantics[data.seen].double()
    model = SYNC(LAM, SIGMA).fit(data)
    expected = naive_weights(data.semantics.double(), seen, SIGMA)
    torch.testing.assert_close(model.weights(data.semantics), expected)


def test_weights_by_hand():
    """Seen classes at 0 and 1, so the mean squared distance is 1; ½ is as near to each; 1 is e⁻⁴ : 1."""
    data = small_dataset(seen=2, unseen=1, semantic_dim=1)
    semantics = torch.empty(3, 1)
    semantics[data.seen], semantics[data.unseen] = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5]])
    data = replace(data, semantics=semantics)
    model = SYNC(LAM, 0.5).fit(data)
    near = np.exp(-4) / (1 + np.exp(-4))
    expected = torch.tensor([[0.5, 0.5], [near, 1 - near]]).double()
    torch.testing.assert_close(model.weights(torch.tensor([[0.5], [1.0]])), expected)


def test_the_printed_objective_is_stationary_at_v(data):
    x, y = training_parts(data)
    omega = naive_weights(data.semantics[data.seen].double(), data.semantics[data.seen].double(), SIGMA)
    v = exact().fit(data).V.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(v, x, y, omega), v)
    zero = torch.zeros_like(v, requires_grad=True)
    (at_zero,) = torch.autograd.grad(loss(zero, x, y, omega), zero)
    assert gradient.norm() < 1e-8 * at_zero.norm()


def test_the_gradient_that_the_solver_uses_is_that_of_the_loss(data):
    x, y = training_parts(data)
    sign = 2.0 * torch.nn.functional.one_hot(y, len(data.seen)) - 1
    p = torch.linalg.qr(torch.randn(5, 3, generator=rng(1), dtype=torch.float64)).Q
    a = torch.randn(3, 6, generator=rng(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: _objective(a, x, sign.double(), p, LAM)[0], a)
    value, gradient = _objective(a, x, sign.double(), p, LAM)
    torch.testing.assert_close(gradient, torch.autograd.grad(value, a)[0])
    torch.testing.assert_close(value, loss(a, x, y, p))


def test_classifiers_of_seen_classes_are_scikit_learns_linear_svms(data):
    """Ω is invertible, so that W is free; liblinear's ½‖w‖² + C Σ hinge² has C = 1 / (n λ)."""
    x, y = training_parts(data)
    other = LinearSVC(C=1 / (len(x) * LAM), fit_intercept=False, dual=False, tol=1e-9, max_iter=10000)
    other.fit(x.numpy(), y.numpy())
    model = exact().fit(data)
    w = model.weights(data.semantics[data.seen]) @ model.V
    np.testing.assert_allclose(w.numpy(), other.coef_, rtol=1e-4, atol=1e-5)


def test_scores_of_a_new_class_are_those_of_its_combination(data):
    model = SYNC().fit(data)
    x = data.x(data.test_unseen)
    seen = data.semantics[data.seen].double()
    w = naive_weights(data.semantics[data.unseen].double(), seen, model.sigma) @ model.V
    found = model.scores(x, data.semantics[data.unseen])
    torch.testing.assert_close(found, x.double() @ w.T)


def test_where_the_weights_are_singular_the_classifiers_keep_to_what_they_can_express(data):
    """Two seen classes of one description must share a classifier, and the loss in V is at its minimum."""
    semantics = data.semantics.clone()
    semantics[data.seen[1]] = semantics[data.seen[0]]
    data = replace(data, semantics=semantics)
    x, y = training_parts(data)
    model, s = exact().fit(data), semantics[data.seen].double()
    w = model.weights(s) @ model.V
    torch.testing.assert_close(w[0], w[1])
    v = model.V.clone().requires_grad_()
    omega = naive_weights(s, s, SIGMA)
    (gradient,) = torch.autograd.grad(loss(v, x, y, omega), v)
    zero = torch.zeros_like(v, requires_grad=True)
    (at_zero,) = torch.autograd.grad(loss(zero, x, y, omega), zero)
    assert gradient.norm() < 1e-8 * at_zero.norm()


def test_looser_tolerance_takes_fewer_steps(data):
    steps = [SYNC(LAM, tol=tol).fit(data).iterations for tol in (1e-1, 1e-4, 1e-8)]
    assert steps == sorted(set(steps))
    assert SYNC(LAM, tol=1e-8, max_iter=2).fit(data).iterations == 2


def circle(sigma: float) -> tuple[SYNC, ZSLDataset]:
    """Ten seen classes on a circle at even angles and ten unseen halfway between; features are semantics."""
    g, angle = rng(3), torch.arange(20) * 2 * torch.pi / 20
    semantics = torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.arange(20).repeat_interleave(30)
    features = semantics[labels] + 0.02 * torch.randn(len(labels), 2, generator=g)
    index = torch.arange(len(labels))
    is_seen, held = labels % 2 == 0, index % 3 == 0
    data = ZSLDataset(
        name="circle",
        features=features,
        labels=labels,
        semantics=semantics,
        class_names=tuple(map(str, range(20))),
        trainval=index[is_seen & ~held],
        test_seen=index[is_seen & held],
        test_unseen=index[~is_seen],
    )
    return SYNC(1e-3, sigma).fit(data), data


def test_classes_between_seen_classes_are_told_apart():
    model, data = circle(0.5)
    assert evaluate(model, data).T1 > 95


def test_with_a_width_of_almost_0_a_new_class_is_a_copy_of_the_nearest_seen_one():
    """So that two new classes with the same neighbour are one to it."""
    model, data = circle(0.05)
    x = data.features[data.test_unseen]
    near = torch.tensor([[1.0, 0.05], [1.0, -0.05]])
    found = model.scores(x, torch.cat([near, data.semantics[:1]]))
    torch.testing.assert_close(found[:, :2], found[:, 2:].expand(-1, 2), rtol=1e-6, atol=1e-6)


def test_nothing_grows_with_the_square_of_the_number_of_images():
    """Of 200,000 images, a matrix with a row and a column each would take 320 GB."""
    data = small_dataset(per_class=40_000)
    assert SYNC(1.0, max_iter=3).fit(data).scores(data.features, data.semantics).isfinite().all()


def test_seen_classes_of_one_description_are_an_error(data):
    data = replace(data, semantics=torch.ones_like(data.semantics))
    with pytest.raises(DataError, match="seen semantics: found all the same, expected different ones"):
        SYNC().fit(data)
