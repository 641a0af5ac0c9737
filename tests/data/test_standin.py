"""Features drawn around a classifier's rows: the model behind them, and the problem made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from zsl_lib.data import wordnet
from zsl_lib.data.standin import ClassNormals, hold_out, stand_in
from zsl_lib.errors import DataError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def normals() -> ClassNormals:
    return ClassNormals(torch.randn(12, 5, generator=rng()), 0.7)


def moments(normals: ClassNormals) -> tuple[np.ndarray, np.ndarray]:
    """Means ``[C, D]`` and covariance ``[D, D]`` as the formulas have them."""
    w = normals.rows.numpy()
    sigma = normals.a**2 * w.T @ w / len(w)
    return w @ sigma, sigma


def test_draws_have_the_means_and_the_covariance_of_the_formulas(normals):
    means, sigma = moments(normals)
    x = normals.sample(torch.full((200_000,), 3), rng(1)).double().numpy()
    assert np.allclose(x.mean(0), means[3], atol=0.02 * np.sqrt(sigma.max()))
    assert np.allclose(np.cov(x.T), sigma, atol=0.02 * sigma.max())


def test_the_classifier_is_bayes_rule(normals):
    means, sigma = moments(normals)
    x = normals.sample(torch.arange(12).repeat(20), rng(2))
    exact = np.stack([multivariate_normal(m, sigma).logpdf(x.numpy()) for m in means], axis=1)
    scores = normals.scores(x).numpy()
    gaps = scores - scores[:, :1] - (exact - exact[:, :1])  # the term of x alone cancels
    assert np.abs(gaps).max() < 1e-3 * np.abs(exact).max()


def test_bayes_rule_is_right_as_often_as_asked_for(normals):
    labels = torch.randint(12, (20_000,), generator=rng(3))
    right = (normals.scores(normals.sample(labels, rng(4))).argmax(1) == labels).double().mean()
    assert float(right) == pytest.approx(0.7, abs=0.02)
    easier = ClassNormals(normals.rows.float(), 0.95)
    assert easier.a > normals.a


def test_fewer_components_leave_fewer_directions():
    few = ClassNormals(torch.randn(12, 5, generator=rng()), 0.5, components=2)
    x = few.sample(torch.arange(12).repeat(10), rng(1))
    assert int(torch.linalg.matrix_rank(x, rtol=1e-4)) == 2
    with pytest.raises(DataError, match="ClassNormals: components: found 6, expected 1 to 5"):
        ClassNormals(torch.randn(12, 5), 0.5, components=6)


def test_linear_discriminant_analysis_finds_the_rows_again(normals):
    labels = torch.arange(12).repeat(20_000)
    lda = LinearDiscriminantAnalysis().fit(normals.sample(labels, rng(5)).numpy(), labels.numpy())
    found = lda.coef_ - lda.coef_.mean(0)
    assert np.corrcoef(found.ravel(), normals.rows.numpy().ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("rows", "accuracy", "message"),
    [
        (torch.ones(1, 3), 0.5, "ClassNormals: rows: found"),
        (torch.full((2, 3), torch.nan), 0.7, "ClassNormals: rows: found"),
        (torch.ones(4, 3), 0.5, "ClassNormals: rows: found .* not all the same"),
        (torch.eye(4), 0.25, "ClassNormals: accuracy: found 0.25, expected between 1/4 and 1"),
        (torch.eye(4), 1.0, "ClassNormals: accuracy: found 1.0"),
    ],
)
def test_rows_and_accuracies_that_cannot_be(rows, accuracy, message):
    with pytest.raises(DataError, match=message):
        ClassNormals(rows, accuracy)


def test_held_out_classes_are_near_and_far():
    hierarchy = wordnet.load()
    chosen = hold_out(hierarchy, single=150, in_subtrees=60)
    kept = set(hierarchy.seen) - set(chosen)
    far = [d for w, d in hierarchy.distances(kept).items() if w in chosen]
    assert len(far) == len(chosen) >= 210
    assert min(far) == 2  # none of the 1,000 is above another
    assert sum(d == 2 for d in far) > 50
    assert sum(d > 2 for d in far) > 50
    assert chosen == hold_out(hierarchy, single=150, in_subtrees=60)
    assert chosen != hold_out(hierarchy, single=150, in_subtrees=60, seed=1)
    with pytest.raises(DataError, match="hold_out: found 2000 single and 0 in subtrees, of 1000"):
        hold_out(hierarchy, single=2000, in_subtrees=0)
    with pytest.raises(DataError, match="hold_out: found 0 single and 1001 in subtrees"):
        hold_out(hierarchy, single=0, in_subtrees=1001)


def test_a_problem_of_drawn_features(normals):
    unseen = torch.arange(12) % 3 == 0
    names = [f"c{i}" for i in range(12)]
    semantics = torch.randn(12, 4, generator=rng())
    d = stand_in(normals, semantics, names, unseen, per_class=7, test_seen=2, test_unseen=(3, 9))
    assert torch.equal(d.unseen, unseen.nonzero().flatten())
    assert torch.bincount(d.labels[d.trainval])[d.seen].tolist() == [7] * 8
    assert torch.bincount(d.labels[d.test_seen])[d.seen].tolist() == [2] * 8
    counts = torch.bincount(d.labels[d.test_unseen])[d.unseen]
    assert (counts.min() >= 3, counts.max() <= 9, len(counts.unique()) > 1) == (True, True, True)
    again = stand_in(normals, semantics, names, unseen, per_class=7, test_seen=2, test_unseen=(3, 9))
    assert torch.equal(d.features, again.features)
    with pytest.raises(DataError, match=r"stand_in: found test_unseen=\(0, 9\)"):
        stand_in(normals, semantics, names, unseen, test_unseen=(0, 9))
    with pytest.raises(DataError, match=r"stand_in: found .* 0 of 12 classes unseen"):
        stand_in(normals, semantics, names, torch.zeros(12, dtype=torch.bool))
