"""DAP: its classifiers against scikit-learn, its posterior against loops and a closed form."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from sklearn.linear_model import LogisticRegression

from zsl_lib.embedding.dap import DAP, logistic
from zsl_lib.errors import DataError


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of different scales, and attributes from rare to frequent."""
    g = np.random.default_rng(0)
    x = g.normal(size=(200, 12)) @ g.normal(size=(12, 12)) * np.geomspace(0.1, 10, 12) + 5
    z = x @ g.normal(size=(12, 5))
    z = z / z.std(0) + g.normal(size=z.shape)
    t = z > [np.quantile(column, q) for column, q in zip(z.T, (0.95, 0.8, 0.5, 0.3, 0.1), strict=True)]
    return x, t.astype(float)


@pytest.mark.parametrize("lam", [0.1, 1.0, 100.0])
def test_each_classifier_is_scikit_learns(problem, lam):
    x, t = problem
    w, b = logistic(x, t, lam, tol=1e-5)
    for m in range(t.shape[1]):
        theirs = LogisticRegression(C=1 / lam, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(
            x, t[:, m]
        )
        np.testing.assert_allclose(w[:, m], theirs.coef_[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(b[m], theirs.intercept_[0], rtol=1e-3, atol=1e-4)


def test_the_printed_objective_is_stationary(problem):
    x, t = (torch.from_numpy(part) for part in problem)
    w, b = (torch.from_numpy(part).requires_grad_() for part in logistic(*problem, lam=0.7, tol=1e-5))
    logits = x @ w + b
    value = (torch.nn.functional.softplus(logits) - t * logits).sum() + 0.35 * w.square().sum()
    gradients = torch.autograd.grad(value, (w, b))
    assert max(float(g.abs().max()) for g in gradients) < 1e-6 * float((x.T @ (t - 0.5)).abs().max())


def test_the_default_tolerance_is_precise_enough_for_scores(problem):
    x, t = problem
    w, b = logistic(x, t, 1.0)
    exact_w, exact_b = logistic(x, t, 1.0, tol=1e-5)
    np.testing.assert_allclose(x @ w + b, x @ exact_w + exact_b, atol=1e-2)


def test_more_features_than_images_and_a_constant_feature():
    g = np.random.default_rng(1)
    x, t = np.c_[g.normal(size=(10, 30)), np.ones(10)], (g.random((10, 3)) > 0.5).astype(float)
    w, b = logistic(x, t, 1.0, tol=1e-6)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, t[:, 0])
    np.testing.assert_allclose((x @ w + b)[:, 0], theirs.decision_function(x), atol=1e-4)
    np.testing.assert_allclose(w[-1], 0, atol=1e-12)


@pytest.mark.parametrize("prior", ["seen", "half"])
def test_scores_are_the_papers_product_in_loops(prior):
    data = small_dataset(seen=6)
    model = DAP(1.0, prior).fit(data)
    x, s = data.features[:4], data.semantics
    mean = s[data.seen].mean(0)
    found = model.scores(x, s)
    for i, c in itertools.product(range(4), range(len(s))):
        product = 1.0
        for k in range(s.shape[1]):  # each varies, so that it is a column of W, too
            share = sum(bool(s[j, k] > mean[k]) for j in data.seen) / len(data.seen)
            assert 0 < share < 1
            logit = sum(float(x[i, d]) * float(model.W[d, k]) for d in range(6)) + float(model.b[k])
            has, p = bool(s[c, k] > mean[k]), 1 / (1 + math.exp(-logit))
            before = share if prior == "seen" else 0.5
            product *= (p if has else 1 - p) / (before if has else 1 - before)
        assert float(found[i, c]) == pytest.approx(math.log(product), abs=1e-6)


def test_the_posterior_is_the_closed_form_where_attributes_are_independent():
    """Every code of three bits is a class, and x_m is ±μ and Gaussian noise: p(c | x) = Π σ(±2μ x_m)."""
    g, mu, each = rng(2), 1.0, 4000
    s = torch.tensor([*itertools.product([0.0, 1.0], repeat=3)])
    y = torch.arange(8).repeat_interleave(each)
    x = mu * (2 * s[y] - 1) + torch.randn(len(y), 3, generator=g)
    model = DAP(lam=1e-3)
    model._fit(x, y, s)
    new = 1.5 * torch.randn(200, 3, generator=g)
    posterior = model._scores(new, s).softmax(1)
    expected = torch.sigmoid(2 * mu * new[:, None] * (2 * s - 1)).prod(2)
    torch.testing.assert_close(posterior, expected.double(), rtol=0, atol=0.02)
    torch.testing.assert_close(model.W, 2 * mu * torch.eye(3).double(), rtol=0, atol=0.1)


def test_attributes_that_depend_on_each_other_are_counted_twice():
    """A copy of an attribute squares its factor, which the independence assumption cannot know."""
    g = rng(3)
    s = torch.tensor([[0.0], [1.0]]).repeat(1, 2)
    y = torch.arange(2).repeat_interleave(2000)
    x = 2 * s[y][:, :1] - 1 + torch.randn(len(y), 1, generator=g)
    twice, once = DAP(), DAP()
    twice._fit(x, y, s)
    once._fit(x, y, s[:, :1])
    torch.testing.assert_close(twice._scores(x, s), 2 * once._scores(x, s[:, :1]), rtol=1e-3, atol=1e-3)


def test_only_the_order_to_the_mean_counts_not_the_scale_of_an_attribute():
    data = small_dataset()
    other = replace(data, semantics=data.semantics * torch.tensor([1.0, 5.0, 0.1, 2.0]))
    a, b = (DAP().fit(d).scores(d.features, d.semantics) for d in (data, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize("prior", ["seen", "half"])
@pytest.mark.parametrize("value", [0.1, 0.3])  # the mean of six times 0.3 rounds to less than 0.3
def test_an_attribute_that_seen_classes_share_has_no_say(value, prior):
    data = small_dataset(seen=6)
    constant = torch.full((len(data.semantics), 1), value)
    constant[data.unseen[0]] = 0.9
    wide = replace(data, semantics=torch.cat([constant, data.semantics], 1))
    a, b = (DAP(prior=prior).fit(d).scores(d.features, d.semantics) for d in (data, wide))
    assert torch.equal(a, b)


def test_without_an_attribute_that_varies_there_is_nothing_to_learn():
    with pytest.raises(DataError, match="DAP: semantics: found no attribute that varies"):
        DAP().fit(small_dataset(seen=1))


def test_an_unknown_prior_is_an_error():
    with pytest.raises(DataError, match=r"DAP\.prior: found uniform, expected seen or half"):
        DAP(prior="uniform")
