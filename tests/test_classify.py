"""k-NN, softmax and the recogniser on synthetic features, against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor

from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser, knn
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate


def blobs(n: int = 240, dim: int = 3, spread: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes with labels 2, 5 and 11, so that the best softmax is finite."""
    g = np.random.default_rng(0)
    y = g.choice([2, 5, 11], n)
    centre = {2: 0.0, 5: 1.5, 11: -1.5}
    x = np.array([centre[c] for c in y])[:, None] * np.array([1, 0.5, -0.5]) + g.normal(0, spread, (n, dim))
    return x.astype(np.float32), y


# --- k-NN ----------------------------------------------------------------------------------------------


def test_knn_is_the_vote_of_the_k_most_cosine_similar():
    (x, y), queries = blobs(), np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    expected = []
    for q in queries:
        cosine = [float(q @ r / (np.linalg.norm(q) * np.linalg.norm(r))) for r in x]
        nearest = sorted(range(len(x)), key=lambda i: -cosine[i])[:7]
        expected.append([sum(y[i] == c for i in nearest) / 7 for c in (2, 5, 11)])
    np.testing.assert_allclose(knn(7).fit(x, y).predict_proba(queries), expected, atol=1e-12)


def test_knn_does_not_see_the_length_of_a_feature():
    x, y = blobs()
    scale = np.random.default_rng(2).uniform(0.1, 10, (len(x), 1)).astype(np.float32)
    a, b = knn(5).fit(x, y), knn(5).fit(x * scale, y)
    np.testing.assert_array_equal(a.predict(x[:50]), b.predict(x[:50] * 3))


def test_the_papers_k_is_the_default():
    assert knn().n_neighbors == 20


# --- softmax -------------------------------------------------------------------------------------------


def test_softmax_approaches_the_loss_of_sklearns_logistic_regression():
    x, y = blobs()
    exact = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(x, y)
    best = log_loss(y, exact.predict_proba(x))
    short, long = (SoftmaxClassifier(epochs=n, lr=0.02, device="cpu").fit(x, y) for n in (5, 600))
    assert log_loss(y, long.predict_proba(x)) == pytest.approx(best, rel=1e-3)
    assert log_loss(y, short.predict_proba(x)) > best * 1.05
    np.testing.assert_allclose(long.predict_proba(x), exact.predict_proba(x), atol=0.02)


def test_softmax_follows_sklearns_conventions():
    made = SoftmaxClassifier(epochs=3, lr=0.1, seed=4, device="cpu")
    assert clone(made).get_params() == made.get_params()
    assert made.set_params(epochs=5).epochs == 5
    x, y = blobs()
    assert made.fit(x, y) is made
    assert made.score(x, y) == pytest.approx((made.predict(x) == y).mean())
    assert not hasattr(clone(made), "weight_")


def test_softmax_keeps_labels_that_are_not_contiguous():
    x, y = blobs()
    made = SoftmaxClassifier(epochs=100, lr=0.02, device="cpu").fit(x, y)
    assert made.classes_.tolist() == [2, 5, 11]
    assert set(made.predict(x).tolist()) == {2, 5, 11}
    assert made.score(x, y) > 0.6


def test_softmax_probabilities_are_those_of_its_weights_and_sum_to_one():
    x, y = blobs()
    made = SoftmaxClassifier(epochs=3, device="cpu").fit(x, y)
    found = made.predict_proba(x)
    logits = x @ made.weight_.detach().numpy().T + made.bias_.detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_softmax_is_decided_by_its_seed_and_leaves_the_global_random_state_alone():
    x, y = blobs()
    before = torch.get_rng_state()
    a, b, c = (
        SoftmaxClassifier(epochs=3, seed=s, device="cpu").fit(x, y).predict_proba(x) for s in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


# --- the recogniser ------------------------------------------------------------------------------------


class Oracle:
    """Synthetic features at the true mean of a class, found by its semantics."""

    def __init__(self, dataset: ZSLDataset, spread: float = 0.05) -> None:
        self.dataset, self.spread, self.options = dataset, spread, None

    def fit(self, dataset: ZSLDataset, **options: object) -> None:
        self.options = options

    def sample(self, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        d, out = self.dataset, []
        for row in semantics:
            c = int((d.semantics == row).all(1).nonzero())
            mean = d.features[d.labels == c].mean(0)
            out.append(mean + self.spread * torch.randn(n, len(mean), generator=generator))
        return torch.stack(out)


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset(seen=4, unseen=4, per_class=12, noise=0.2)


@pytest.fixture
def recogniser(data) -> SyntheticRecogniser:
    made = SyntheticRecogniser(Oracle(data), samples=25, zsl=knn(5), gzsl=SoftmaxClassifier(device="cpu"))
    return made.fit(data)


def test_seen_classes_are_real_features_and_the_others_synthetic(data, recogniser):
    classes = torch.cat([data.unseen[:2], data.seen, data.unseen[2:]])
    x, y = recogniser.training_set(data.semantics[classes])
    assert x.shape == (len(data.trainval) + 4 * 25, 6)
    for i, c in enumerate(classes):
        if c in data.seen:
            real = data.features[data.trainval[data.labels[data.trainval] == c]]
            assert torch.equal(x[y == i], real)
        else:
            assert (y == i).sum() == 25
            assert not torch.isin(x[y == i], data.features).any()


def test_no_test_feature_is_ever_learned_from(data, recogniser):
    x, _ = recogniser.training_set(data.semantics)
    test = data.features[torch.cat([data.test_seen, data.test_unseen])]
    assert not (x[:, None] == test).all(2).any()


def test_zsl_scores_are_votes_of_knn_and_gzsl_scores_probabilities_of_softmax(data, recogniser):
    x = data.features[data.test_unseen]
    for classes, classifier in (
        (data.unseen, knn(5)),
        (data.labels.unique(), SoftmaxClassifier(device="cpu")),
    ):
        semantics = data.semantics[classes]
        features, labels = recogniser.training_set(semantics)
        expected = classifier.fit(features.numpy(), labels.numpy()).predict_proba(x.numpy())
        found = recogniser.scores(x, semantics)
        assert found.shape == (len(x), len(classes))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_default_classifiers_are_the_papers():
    made = SyntheticRecogniser(Oracle(small_dataset()), seed=3)
    assert (made.samples, made.zsl.n_neighbors, made.zsl.metric) == (300, 20, "cosine")
    assert made.gzsl.get_params() == SoftmaxClassifier(seed=3).get_params()


def test_permuting_the_candidates_permutes_the_scores_of_knn(data, recogniser):
    order = torch.randperm(len(data.unseen), generator=rng(1))
    x, semantics = data.features[data.test_unseen], data.semantics[data.unseen]
    found, permuted = recogniser.scores(x, semantics), recogniser.scores(x, semantics[order])
    torch.testing.assert_close(permuted, found[:, order])


def test_scores_can_be_asked_for_twice(data, recogniser):
    x, semantics = data.features[data.test_unseen], data.semantics[data.unseen]
    assert torch.equal(recogniser.scores(x, semantics), recogniser.scores(x, semantics))


def test_the_seed_decides_the_synthetic_features(data):
    semantics = data.semantics[data.unseen]
    a, b, c = (
        SyntheticRecogniser(Oracle(data), samples=4, seed=s).remember(data).training_set(semantics)[0]
        for s in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_options_of_fit_go_to_the_model(data):
    model = Oracle(data)
    SyntheticRecogniser(model).fit(data, epochs=3)
    assert model.options == {"epochs": 3}


def test_scores_before_fit_are_a_data_error(data):
    with pytest.raises(DataError, match=r"SyntheticRecogniser\.scores: found no data"):
        SyntheticRecogniser(Oracle(data)).scores(data.features, data.semantics)


def test_synthetic_features_at_the_true_means_recognise_almost_everything(data):
    made = SyntheticRecogniser(Oracle(data), samples=9, zsl=knn(5), gzsl=knn(5))
    found = evaluate(made.fit(data), data)
    assert found.T1 > 80
    assert found.H > 70
