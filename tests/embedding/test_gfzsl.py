"""GFZSL's regressions and likelihoods against scikit-learn's and SciPy's, and what each part can do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from scipy.stats import norm
from sklearn.kernel_ridge import KernelRidge
from sklearn.naive_bayes import GaussianNB
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.gfzsl import GFZSL
from zsl_lib.embedding.moments import collect
from zsl_lib.errors import DataError

LAM, LAM_VAR, PRIOR = 0.05, 0.4, 3.0


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset()


def by_class(d: ZSLDataset) -> tuple[Tensor, Tensor]:
    """Means and log-variances ``[S, D]`` of the seen classes, by the definition of each."""
    x, labels = d.x(d.trainval).double(), d.labels[d.trainval]
    own = [x[labels == c] for c in d.seen.tolist()]
    pooled = torch.cat([rows - rows.mean(0) for rows in own]).square().mean(0)
    pooled = pooled + 1e-3 * pooled.mean()
    variances = [
        ((rows - rows.mean(0)).square().sum(0) + PRIOR * pooled) / (len(rows) + PRIOR) for rows in own
    ]
    return torch.stack([rows.mean(0) for rows in own]), torch.stack(variances).log()


def kernel(name: str, a: Tensor, b: Tensor, seen: Tensor) -> Tensor:
    if name == "linear":
        return a @ b.T / seen.norm(dim=1).square().mean()
    return (-torch.cdist(a, b).square() / torch.pdist(seen).square().mean()).exp()


@pytest.mark.parametrize("name", ["linear", "rbf"])
def test_scikit_learns_kernel_ridge_predicts_the_same_gaussians(data, name):
    s, new = data.semantics[data.seen].double(), data.semantics.double()
    found = GFZSL(LAM, LAM_VAR, name, PRIOR).fit(data).gaussians(data.semantics)
    for lam, targets, predicted in zip((LAM, LAM_VAR), by_class(data), found, strict=True):
        ridge = KernelRidge(alpha=lam, kernel="precomputed")
        ridge.fit(kernel(name, s, s, s).numpy(), (targets - targets.mean(0)).numpy())
        expected = ridge.predict(kernel(name, new, s, s).numpy()) + targets.mean(0).numpy()
        np.testing.assert_allclose(predicted.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["linear", "rbf"])
def test_the_printed_objective_is_stationary(data, name):
    s = data.semantics[data.seen].double()
    k = kernel(name, s, s, s)
    model = GFZSL(LAM, LAM_VAR, name, PRIOR).fit(data)
    parts = zip((LAM, LAM_VAR), model._regressions, by_class(data), strict=True)
    for lam, (average, a), m in parts:
        found, zero = a.clone().requires_grad_(), torch.zeros_like(a).requires_grad_()
        torch.testing.assert_close(average, m.mean(0))
        norms = []
        for point in (found, zero):
            value = (m - m.mean(0) - k @ point).square().sum() + lam * (point.T @ k @ point).trace()
            norms.append(torch.autograd.grad(value, point)[0].norm())
        assert norms[0] < 1e-8 * norms[1]


def test_scores_are_log_densities_but_for_a_constant(data):
    model = GFZSL(LAM, LAM_VAR, prior=PRIOR).fit(data)
    x, classes = data.features[:4], data.semantics[:3]
    mean, log_var = (part.numpy() for part in model.gaussians(classes))
    expected = norm.logpdf(x.double().numpy()[:, None], mean, np.exp(log_var / 2)).sum(2)
    constant = x.shape[1] * np.log(2 * np.pi) / 2
    np.testing.assert_allclose(model.scores(x, classes).numpy(), expected + constant, rtol=1e-8, atol=1e-8)


def test_on_seen_classes_without_ridge_and_prior_it_is_gaussian_naive_bayes(data):
    x, y = data.x(data.trainval), data.labels[data.trainval]
    uniform = np.full(len(data.seen), 1 / len(data.seen))
    other = GaussianNB(priors=uniform, var_smoothing=0).fit(x.double().numpy(), y.numpy())
    model = GFZSL(1e-10, 1e-10, "rbf", 1e-10).fit(data)
    test = data.x(data.test_seen)
    probabilities = model.scores(test, data.semantics[data.seen]).softmax(1).numpy()
    np.testing.assert_allclose(
        probabilities, other.predict_proba(test.double().numpy()), rtol=1e-4, atol=1e-9
    )


def test_by_hand():
    """Two classes at 0 and 1 with features 0, 2 and 4, 6: means 1 and 5, each variance 1, pooled 1.001."""
    x, y = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    model = GFZSL(1e-12, 1.0, "rbf", 1.0).fit_moments(
        collect([(x, y)], 2, gram=False), torch.tensor([[0.0], [1.0]])
    )
    mean, log_var = model.gaussians(torch.tensor([[0.0], [0.5], [1.0]]))
    torch.testing.assert_close(mean.flatten(), torch.tensor([1.0, 3.0, 5.0]).double())
    torch.testing.assert_close(log_var.exp(), torch.full((3, 1), (2 + 1.001) / 3).double())


def test_a_feature_that_never_varies_and_one_image_a_class_are_no_division_by_zero():
    x, y = torch.rand(8, 3, generator=rng()), torch.arange(4) % 4
    x[:, 1] = 0.5
    for rows in (x[:4], x):
        part = [(rows, y.repeat(len(rows) // 4))]
        model = GFZSL().fit_moments(collect(part, 4, gram=False), torch.rand(4, 2, generator=rng(1)))
        assert model.scores(rows, torch.rand(5, 2)).isfinite().all()


def grid_classes(kind: str, seed: int = 0) -> ZSLDataset:
    """Classes (u, v) on a grid in [-1, 1]², those of the inside unseen. With ``kind`` "product", the mean of
    both features is ± 3uv; with "variance", all means are 0 and log-variances are ± 3u."""
    g, line = rng(seed), torch.linspace(-1, 1, 7)
    semantics = torch.cartesian_prod(line, line)
    semantics = semantics[semantics.prod(1) != 0]
    inside = (semantics.abs() - 2 / 3).abs().amax(1) < 0.1
    labels = torch.arange(len(semantics)).repeat_interleave(80)
    u, v = semantics[labels].T
    noise = torch.randn(len(labels), 2, generator=g)
    sign = torch.tensor([1.0, -1.0])
    if kind == "product":
        features = 3 * (u * v)[:, None] * sign + 0.1 * noise
    else:
        features = (1.5 * u[:, None] * sign).exp() * noise
    index = torch.arange(len(labels))
    held = index % 80 < 20
    return ZSLDataset(
        name=kind,
        features=features,
        labels=labels,
        semantics=semantics,
        class_names=tuple(map(str, range(len(semantics)))),
        trainval=index[~inside[labels] & ~held],
        test_seen=index[~inside[labels] & held],
        test_unseen=index[inside[labels]],
    )


def accuracy(model: GFZSL, data: ZSLDataset, one: Tensor) -> float:
    """Share of unseen images told right between two unseen classes, one of each value of ``one`` ``[C]``."""
    unseen = data.semantics[data.unseen]
    classes = torch.stack([unseen[~one[data.unseen]][0], unseen[one[data.unseen]][0]])
    found = model.fit(data).scores(data.x(data.test_unseen), classes).argmax(1)
    return float((found == one[data.labels[data.test_unseen]]).double().mean())


def test_means_that_are_a_product_of_attributes_need_the_rbf():
    data = grid_classes("product")
    positive = data.semantics.prod(1) > 0
    assert accuracy(GFZSL(1e-3, kernel="rbf"), data, positive) == 1
    assert accuracy(GFZSL(1e-3, kernel="linear"), data, positive) < 0.65
    mean, _ = GFZSL(1e-3, kernel="rbf").fit(data).gaussians(data.semantics)
    torch.testing.assert_close(mean[:, 0], 3 * data.semantics.prod(1).double(), rtol=0, atol=0.1)


def test_classes_that_differ_in_variance_alone_need_its_regression():
    data = grid_classes("variance")
    positive = data.semantics[:, 0] > 0
    assert accuracy(GFZSL(1e-2, 1e-2, "linear"), data, positive) > 0.8
    assert accuracy(GFZSL(1e-2, 1e9, "linear"), data, positive) < 0.65


def test_seen_classes_of_one_description_are_an_error():
    part = [(torch.rand(6, 2), torch.arange(6) % 3)]
    with pytest.raises(DataError, match="seen semantics: found all the same, expected different ones"):
        GFZSL().fit_moments(collect(part, 3), torch.ones(3, 4))


def test_a_kernel_that_is_none_is_an_error():
    with pytest.raises(DataError, match=r"GFZSL.kernel: found poly, expected linear or rbf"):
        GFZSL(kernel="poly")
