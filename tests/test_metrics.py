"""T1, AU, AS and H against scikit-learn and against numbers worked out by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import small_dataset
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch import Tensor

from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser, knn
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.metrics import (
    evaluate,
    flat_hit,
    flat_hits,
    h_by_epoch,
    harmonic_mean,
    hubness,
    per_class_accuracy,
    predict,
)


class Table:
    """Features are the scores themselves: entry c of x is the score of the class with semantics e_c."""

    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        return x @ semantics.T


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=60))
def test_per_class_accuracy_is_sklearns_balanced_accuracy(pairs):
    labels, predictions = torch.tensor(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a predicted class that no example has
        expected = balanced_accuracy_score(labels.numpy(), predictions.numpy()) * 100
    assert per_class_accuracy(labels, predictions) == pytest.approx(expected)


def test_classes_count_alike_and_absent_classes_not_at_all():
    labels = torch.tensor([7, 7, 7, 7, 2])
    predictions = torch.tensor([7, 7, 7, 5, 7])
    assert per_class_accuracy(labels, predictions) == pytest.approx((75 + 0) / 2)


def test_one_class_gives_plain_accuracy():
    assert per_class_accuracy(torch.tensor([3, 3, 3]), torch.tensor([3, 3, 0])) == pytest.approx(200 / 3)


@pytest.mark.parametrize(("labels", "predictions"), [([0, 1], [0]), ([], []), ([0], [0, 0])])
def test_unequal_or_empty_input_is_a_data_error(labels, predictions):
    with pytest.raises(DataError, match="per_class_accuracy"):
        per_class_accuracy(torch.tensor(labels), torch.tensor(predictions))


@pytest.mark.parametrize(("a", "b", "h"), [(0, 0, 0), (0, 80, 0), (50, 50, 50), (25, 75, 37.5)])
def test_harmonic_mean_by_hand(a, b, h):
    assert harmonic_mean(a, b) == pytest.approx(h)
    assert harmonic_mean(b, a) == pytest.approx(h)


@pytest.mark.parametrize(
    ("au", "as_", "printed"),
    [(47.0, 54.8, 50.6), (57.3, 67.1, 61.8), (45.3, 36.8, 40.6)],
    ids=["CUB", "AwA1", "SUN"],
)
def test_harmonic_mean_is_that_of_the_papers_table_2(au, as_, printed):
    """Row "Ours" of paper 1. AwA2 is left out: its printed 62.6 is not the harmonic mean of 55.3, 72.6."""
    assert harmonic_mean(au, as_) == pytest.approx(printed, abs=0.1)  # AU and AS are rounded too


def test_the_papers_h_on_awa2_does_not_follow_from_its_au_and_as():
    smallest, largest = harmonic_mean(55.25, 72.55), harmonic_mean(55.35, 72.65)
    assert 62.7 < smallest < largest < 62.9  # the paper prints 62.6


@pytest.fixture
def by_hand() -> ZSLDataset:
    """Classes 0 and 2 are seen, 1 and 3 unseen; 4 is neither and scores high without being a candidate."""
    features, labels = zip(
        ([0, 0, 0, 0, 0], 0),  # trainval
        ([0, 0, 0, 0, 0], 2),
        ([0, 2, 0, 1, 9], 1),  # test_unseen: right, right
        ([5, 2, 0, 1, 9], 1),  # right among unseen, taken for 0 among all
        ([0, 1, 0, 2, 0], 1),  # wrong, wrong
        ([3, 1, 0, 1, 0], 1),  # a tie: the first, which is right; taken for 0 among all
        ([0, 1, 0, 4, 0], 3),  # right, right
        ([4, 0, 1, 0, 0], 0),  # test_seen: right
        ([0, 4, 1, 0, 0], 0),  # taken for the unseen 1
        ([2, 2, 2, 2, 0], 0),  # a tie: the first, which is right
        ([0, 0, 1, 3, 0], 2),  # taken for 3
        strict=True,
    )
    return ZSLDataset(
        name="by hand",
        features=torch.tensor(features, dtype=torch.float32),
        labels=torch.tensor(labels),
        semantics=torch.eye(5),
        class_names=tuple("01234"),
        trainval=torch.tensor([0, 1]),
        test_unseen=torch.arange(2, 7),
        test_seen=torch.arange(7, 11),
    )


def test_evaluate_by_hand(by_hand):
    t1, au, as_ = (3 / 4 + 1) / 2, (1 / 4 + 1) / 2, (2 / 3 + 0) / 2
    expected = {"T1": t1 * 100, "AU": au * 100, "AS": as_ * 100, "H": 200 * au * as_ / (au + as_)}
    assert evaluate(Table(), by_hand)._asdict() == pytest.approx(expected)


def test_evaluate_does_not_depend_on_the_order_of_examples(by_hand):
    order = torch.randperm(len(by_hand), generator=torch.Generator().manual_seed(0))
    where = order.argsort()
    sets = {k: where[getattr(by_hand, k)] for k in ("trainval", "test_seen", "test_unseen")}
    shuffled = ZSLDataset(
        name="shuffled",
        features=by_hand.features[order],
        labels=by_hand.labels[order],
        semantics=by_hand.semantics,
        class_names=by_hand.class_names,
        **sets,
    )
    assert evaluate(Table(), shuffled) == pytest.approx(evaluate(Table(), by_hand))


def test_predict_gives_class_labels_and_ties_go_to_the_first():
    x = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 2], [1, 1, 1, 1]])
    found = predict(Table(), x, torch.eye(4), torch.tensor([1, 2, 3]))
    assert found.tolist() == [1, 3, 1]


def test_scores_of_the_wrong_shape_are_a_data_error():
    class Transposed(Table):
        def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
            return super().scores(x, semantics).T

    with pytest.raises(DataError, match=r"scores: found \(\d+, \d+\), expected \(\d+, \d+\)"):
        evaluate(Transposed(), small_dataset(dim=4, semantic_dim=4))


# --- H along the softmax's epochs ------------------------------------------------------------------------


class Means:
    """A generator for the made-up data: the class's true mean and noise."""

    def sample(self, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        made = semantics[:, None, :].expand(-1, n, -1)
        return torch.cat([made, made[..., :2]], -1) + 0.1 * torch.randn(
            *made.shape[:2], 6, generator=generator
        )


def test_h_by_epoch_ends_at_the_evaluated_h_and_has_one_value_an_epoch():
    data = small_dataset()
    recogniser = SyntheticRecogniser(Means(), samples=20, gzsl=SoftmaxClassifier(epochs=7)).remember(data)
    found = h_by_epoch(recogniser, data)
    assert len(found) == 7
    assert len(set(found)) > 1
    assert found[-1] == pytest.approx(evaluate(recogniser, data).H)


def test_h_by_epoch_needs_a_softmax():
    recogniser = SyntheticRecogniser(Means(), gzsl=knn()).remember(small_dataset())
    with pytest.raises(DataError, match="gzsl: found KNeighborsClassifier, expected a SoftmaxClassifier"):
        h_by_epoch(recogniser, small_dataset())


def test_hubness_is_the_skewness_of_how_often_classes_are_named():
    everyone = torch.eye(4).repeat(3, 1)
    assert hubness(everyone) == 0.0
    hub = torch.zeros(12, 4)
    hub[:, 2] = 1.0
    counts = torch.tensor([0.0, 0.0, 12.0, 0.0])
    gap = counts - counts.mean()
    assert hubness(hub) == pytest.approx(float((gap**3).mean() / (gap**2).mean() ** 1.5))
    assert hubness(hub, k=4) == 0.0


@pytest.mark.parametrize("k", [0, 5])
def test_hubness_of_more_neighbours_than_classes_is_an_error(k):
    with pytest.raises(DataError, match=f"hubness: k: found {k}, expected 1 to 4"):
        hubness(torch.eye(4), k)


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20])
def test_flat_hit_is_sklearns_top_k_accuracy(k):
    generator = torch.Generator().manual_seed(k)
    scores = torch.randn(200, 30, generator=generator)
    labels = torch.randint(30, (200,), generator=generator)
    scores[torch.arange(200), labels] += 1
    expected = top_k_accuracy_score(labels, scores.numpy(), k=k, labels=range(30))
    assert flat_hit(scores, labels, k) == pytest.approx(100 * expected)


def test_flat_hit_counts_images_and_per_class_counts_classes():
    scores = torch.eye(3)[[0, 0, 0, 2]]
    labels = torch.tensor([0, 0, 0, 1])
    assert flat_hit(scores, labels) == pytest.approx(75)
    assert flat_hit(scores, labels, per_class=True) == pytest.approx(50)
    assert flat_hits(scores, labels, [3, 1], per_class=True) == pytest.approx([100, 50])


@pytest.mark.parametrize("k", [1, 3, 7])
def test_a_tie_counts_by_chance(k):
    assert flat_hit(torch.zeros(5, 7), torch.arange(5), k) == pytest.approx(100 * k / 7)
    scores = torch.tensor([[3.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0]])
    by_hand = {1: 0, 3: 200 / 3, 7: 100}[k]
    assert flat_hit(scores, torch.tensor([2]), k) == pytest.approx(by_hand)


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_flat_hit_grows_with_k_and_a_tie_is_the_mean_over_orders(seed, k):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(3, (6, 8), generator=generator).float()
    labels = torch.randint(8, (6,), generator=generator)
    found = flat_hits(scores, labels, range(1, 9))
    assert found == sorted(found)
    assert found[-1] == 100
    broken = scores.repeat(500, 1) + 0.5 * torch.rand(3000, 8, generator=generator)  # ties at random
    assert flat_hit(broken, labels.repeat(500), k) == pytest.approx(found[k - 1], abs=6)


def test_a_masked_candidate_is_no_hit():
    scores = torch.tensor([[1.0, -torch.inf, -torch.inf]])
    assert flat_hit(scores, torch.tensor([1]), 3) == 0
    assert flat_hit(scores, torch.tensor([0]), 1) == 100


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 1, "flat_hit: found scores"),
        (torch.zeros(2, 3), torch.tensor([0]), 1, "flat_hit: found scores"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), 1, "flat_hit: found scores"),
        (torch.zeros(1, 3), torch.tensor([0]), 0, "flat_hit: k: found 0, expected 1 to 3"),
        (torch.zeros(1, 3), torch.tensor([0]), 4, "flat_hit: k: found 4, expected 1 to 3"),
        (torch.zeros(1, 3), torch.tensor([3]), 1, "flat_hit: labels: found 3..3, expected 0..2"),
        (torch.zeros(1, 3), torch.tensor([-1]), 1, "flat_hit: labels: found -1..-1"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), 1, "flat_hit: scores: found NaN"),
    ],
)
def test_flat_hit_of_what_does_not_fit(scores, labels, k, message):
    with pytest.raises(DataError, match=message):
        flat_hit(scores, labels, k)
