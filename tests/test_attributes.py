"""Probes of attributes and their predictability: by hand, against scikit-learn, on planted attributes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from zsl_lib.attributes import Probes, binary, class_pairs, fit_probes, predictability, shuffled
from zsl_lib.embedding.dap import DAP
from zsl_lib.errors import DataError


def world(*, classes=30, per_class=12, dim=60, seed=0):
    """Classes with a random mean each. Attribute 0 is the sign of the mean's first entry, 1 is a coin's."""
    g = rng(seed)
    means = torch.randn(classes, dim, generator=g)
    means[:, 0] = torch.where(means[:, 0] > 0, 2.0, -2.0)
    labels = torch.arange(classes).repeat_interleave(per_class)
    x = means[labels] + 0.5 * torch.randn(len(labels), dim, generator=g)
    coin = torch.rand(classes, generator=g).argsort() < classes // 2
    return x, labels, torch.stack([means[:, 0] > 0, coin], 1)


def auc_of(probes, x, labels, table, **options):
    return predictability(probes.logits(x), labels, table, generator=rng(), **options)["auc"]


def test_binary_is_more_than_the_mean_of_the_given_classes():
    table = torch.tensor([[0.0, 1.0], [1.0, 1.0], [9.0, 2.0]])
    assert binary(table, torch.tensor([0, 1])).tolist() == [[False, False], [True, False], [True, True]]


def test_shuffled_deals_rows_out_within_groups():
    table = torch.arange(20).reshape(10, 2)
    groups = torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5])
    made = shuffled(table, *groups, generator=rng(1))
    for group in groups:
        assert sorted(made[group].tolist()) == table[group].tolist()
    assert not torch.equal(made, table)
    assert torch.equal(made[[7, 8, 9]], table[[7, 8, 9]])
    assert torch.equal(table, torch.arange(20).reshape(10, 2))


def test_probes_are_scikit_learns_logistic_regressions():
    x, labels, table = world(dim=5)
    probes = fit_probes(x, labels, table, lam=4.0)
    for j in range(2):
        one = LogisticRegression(C=1 / 4.0, tol=1e-8, max_iter=5000).fit(x.numpy(), table[labels, j].numpy())
        assert np.allclose(one.coef_[0], probes.W[:, j], atol=2e-3)
        assert np.allclose(one.predict_proba(x.numpy())[:, 1], probes.probabilities(x)[:, j], atol=2e-3)


def test_evidence_gives_daps_scores_but_for_a_constant_of_the_image():
    data = small_dataset(seen=8, per_class=12).scaled()
    dap = DAP(lam=2.0).fit(data)
    table = binary(data.semantics, data.seen)
    x = data.features[data.test_unseen]
    probes = fit_probes(data.x(data.trainval), data.labels[data.trainval], table, lam=2.0)
    gap = dap.scores(x, data.semantics) - probes.evidence(x) @ table.double().T
    assert torch.allclose(gap, gap[:, :1].expand_as(gap), atol=1e-6)


def test_constant_attributes_have_no_probe_and_say_nothing():
    x, labels, table = world(dim=5)
    table = torch.cat([table, torch.ones(30, 1, dtype=torch.bool), torch.zeros(30, 1, dtype=torch.bool)], 1)
    probes = fit_probes(x, labels, table)
    assert probes.constant.tolist() == [False, False, True, True]
    assert probes.prior[2:].tolist() == [1, 0]
    assert probes.logits(x)[:, 2:].isnan().all()
    assert probes.logits(x)[:, :2].isfinite().all()
    assert (probes.evidence(x)[:, 2:] == 0).all()
    found = predictability(probes.logits(x), labels, table, generator=rng())
    assert found.loc[2:, ["accuracy", "balanced", "auc", "low", "high"]].isna().all(axis=None)
    assert found["majority"].tolist()[2:] == [100, 100]
    assert found["have"].tolist()[2:] == [30, 0]


def test_measures_by_hand():
    # classes 0 and 1 have it; 2, with three images, and 3 lack it
    logit = torch.tensor([2.0, -1.0, 1.0, 0.5, -2.0, -1.0, 3.0])
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    table = torch.tensor([[True], [True], [False], [False]])
    pairs = class_pairs(logit, labels, table[:, 0])
    # class 0: 2.0 beats all three of class 2; -1.0 beats one and ties with one
    assert torch.allclose(pairs, torch.tensor([[(3 + 1.5) / 6, 0], [1, 0]], dtype=torch.float64))
    found = predictability(logit[:, None], labels, table, generator=rng()).iloc[0]
    assert found["have"] == 2
    assert found["classes"] == 4
    assert found["auc"] == pytest.approx(100 * 1.75 / 4)
    assert found["accuracy"] == pytest.approx(100 * (1 / 2 + 1 + 2 / 3 + 0) / 4)
    assert found["balanced"] == pytest.approx(100 * (3 / 4 + 1 / 3) / 2)
    assert found["majority"] == 50


def test_measures_are_scikit_learns_with_classes_that_count_alike():
    g = rng(3)
    labels = torch.randint(9, (200,), generator=g)
    table = torch.rand(9, 4, generator=g) < 0.4
    logits = torch.randn(200, 4, generator=g).mul(2).round().div(2)  # ties
    found = predictability(logits, labels, table, generator=rng(), resamples=1)
    weight = 1 / torch.bincount(labels)[labels].double().numpy()
    for j in range(4):
        truth = table[labels, j].numpy()
        auc = roc_auc_score(truth, logits[:, j].numpy(), sample_weight=weight)
        balanced = balanced_accuracy_score(truth, logits[:, j].numpy() > 0, sample_weight=weight)
        assert found.loc[j, "auc"] == pytest.approx(100 * auc)
        assert found.loc[j, "balanced"] == pytest.approx(100 * balanced)


def test_only_classes_with_images_count():
    table = torch.tensor([[True], [False], [False], [True]])
    found = predictability(
        torch.tensor([[1.0], [0.0]]), torch.tensor([0, 1]), table, generator=rng(), resamples=1
    ).iloc[0]
    assert (found["have"], found["classes"], found["auc"]) == (1, 2, 100)
    assert math.isnan(found["low"])  # one class of a kind says nothing of others


def test_bootstrap_draws_classes_not_images():
    # within a class all images agree: 400 images of 8 classes are worth 8
    g = rng(5)
    of_class = torch.randn(8, 1, generator=g)
    table = torch.tensor([[True], [False]] * 4)
    few, many = (
        predictability(of_class[labels], labels, table, generator=rng(), resamples=4000).iloc[0]
        for labels in (torch.arange(8), torch.arange(8).repeat_interleave(50))
    )
    assert few.tolist() == pytest.approx(many.tolist())
    draws = np.random.default_rng(0)
    pairs = class_pairs(of_class[:, 0].double(), torch.arange(8), table[:, 0]).numpy()
    naive = [100 * pairs[np.ix_(*draws.integers(4, size=(2, 4)))].mean() for _ in range(4000)]
    assert few["low"] == pytest.approx(np.quantile(naive, 0.025), abs=4)
    assert few["high"] == pytest.approx(np.quantile(naive, 0.975), abs=4)
    assert few["low"] < few["auc"] < few["high"]


def test_a_visible_attribute_is_predicted_on_new_classes_a_coins_is_not():
    x, labels, table = world()
    learned, new = labels < 20, labels >= 20
    probes = fit_probes(x[learned][::2], labels[learned][::2], table, lam=1.0)
    same = auc_of(probes, x[learned][1::2], labels[learned][1::2], table)
    other = auc_of(probes, x[new], labels[new], table)
    assert same.min() > 95  # new images of known classes: even the coin's
    assert other[0] > 95
    assert other[1] < 75


def test_shuffled_rows_are_predictable_on_learned_classes_alone():
    x, labels, table = world(classes=60)
    learned, new = labels < 30, labels >= 30
    same, other = [], []
    for seed in range(5):
        made = shuffled(table, torch.arange(30), torch.arange(30, 60), generator=rng(seed))
        probes = fit_probes(x[learned][::2], labels[learned][::2], made, lam=1.0)
        same.append(auc_of(probes, x[learned][1::2], labels[learned][1::2], made, resamples=1).mean())
        other.append(auc_of(probes, x[new], labels[new], made, resamples=1).mean())
    assert np.mean(same) > 95
    assert 40 < np.mean(other) < 60


def test_the_same_generator_gives_the_same_interval():
    x, labels, table = world(dim=3)
    logits = fit_probes(x, labels, table).logits(x)
    first, second = (predictability(logits, labels, table, generator=rng(2)) for _ in range(2))
    assert first.equals(second)


X, Y = torch.randn(4, 2, generator=rng()), torch.tensor([0, 0, 1, 1])
TABLE = torch.tensor([[True, False], [False, False]])


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"x": torch.zeros(4, 1, 2, 2)}, "x"),
        ({"x": X[:0], "labels": Y[:0]}, "x"),
        ({"x": X.clone().fill_(torch.nan)}, "x"),
        ({"labels": Y[:3]}, "labels"),
        ({"labels": Y.int()}, "labels"),
        ({"labels": Y + 1}, "labels"),
        ({"labels": Y - 1}, "labels"),
        ({"table": TABLE.float()}, "table"),
        ({"table": TABLE[:, 1:]}, "table"),
        ({"lam": 0.0}, "lam"),
        ({"lam": math.nan}, "lam"),
    ],
)
def test_bad_input_of_probes_is_named(changes, where):
    with pytest.raises(DataError, match=f"^{where}: ") as error:
        fit_probes(**({"x": X, "labels": Y, "table": TABLE} | changes))
    assert error.value.where == where


@pytest.mark.parametrize("x", [torch.zeros(3, 3), torch.full((3, 2), torch.inf)])
def test_probes_check_what_they_are_asked_about(x):
    probes = Probes(torch.zeros(2, 1), torch.zeros(1), torch.tensor([0.5]))
    with pytest.raises(DataError, match=r"^x: "):
        probes.probabilities(x)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"logits": X[:, :1]}, "logits"),
        ({"logits": X.clone().fill_(torch.inf)}, "logits"),
        ({"logits": torch.tensor([[0.0, torch.nan]] + [[0.0, 0.0]] * 3)}, "logits"),
        ({"labels": Y[:3]}, "labels"),
        ({"table": TABLE.float()}, "table"),
        ({"labels": Y * 0}, "predictability"),
        ({"resamples": 0}, "predictability"),
        ({"level": 1.0}, "predictability"),
    ],
)
def test_bad_input_of_predictability_is_named(changes, where):
    with pytest.raises(DataError, match=f"^{where}: "):
        predictability(**({"logits": X, "labels": Y, "table": TABLE, "generator": rng()} | changes))


@pytest.mark.parametrize(
    ("table", "classes", "where"),
    [
        (torch.tensor([[torch.nan]]), torch.tensor([0]), "table"),
        (torch.zeros(2), torch.tensor([0]), "table"),
        (torch.zeros(2, 1), torch.tensor([], dtype=torch.int64), "classes"),
    ],
)
def test_bad_input_of_binary_is_named(table, classes, where):
    with pytest.raises(DataError, match=f"^{where}: "):
        binary(table, classes)
