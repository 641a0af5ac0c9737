"""LATEM: with one map DeViSE, with more what no bilinear form can do."""

from __future__ import annotations

import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding import latem
from zsl_lib.embedding.ale import ALE
from zsl_lib.embedding.devise import DeViSE
from zsl_lib.embedding.latem import LATEM
from zsl_lib.embedding.ranking import Maps
from zsl_lib.embedding.sje import SJE
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate


def opposite_clusters() -> ZSLDataset:
    """Each of two seen classes is a cluster and its mirror image, around ±(1, 1) and ±(1, −1)."""
    g, per_cluster = rng(1), 20
    centres = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).repeat_interleave(per_cluster, 0)
    half = centres + 0.2 * torch.randn(centres.shape, generator=g)
    features, labels = torch.cat([half, -half]), torch.arange(2).repeat_interleave(per_cluster).repeat(2)
    index = torch.arange(len(labels) + 1)
    held = index[:-1] % 4 == 0
    return ZSLDataset(
        name="opposite clusters",
        features=torch.cat([features, torch.zeros(1, 2)]),
        labels=torch.cat([labels, torch.tensor([2])]),
        semantics=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        class_names=("up", "down", "none"),
        trainval=index[:-1][~held],
        test_seen=index[:-1][held],
        test_unseen=index[-1:],
    )


def seen_accuracy(model, data: ZSLDataset) -> float:
    scores = model.fit(data).scores(data.features[data.test_seen], data.semantics[:2])
    return float((scores.argmax(1) == data.labels[data.test_seen]).double().mean())


def test_one_map_from_the_same_start_is_devise_with_its_margin(monkeypatch):
    monkeypatch.setattr(latem, "SPREAD", 0.0)
    data = small_dataset()
    one = LATEM(maps=1, lr=0.5, epochs=4).fit(data)
    other = DeViSE(margin=1.0, lr=0.5, epochs=4).fit(data)
    assert len(data.trainval) <= one.batch_size, "one batch: its order does not matter"
    torch.testing.assert_close(one.net.W, other.net.W)
    assert one.history == pytest.approx(other.history)
    assert other.net.W.abs().max() > 0.1


def test_equal_maps_stay_equal_and_are_one(monkeypatch):
    """Why they must differ at the start: the best of equal maps is all of them, and each gets its share."""
    monkeypatch.setattr(latem, "SPREAD", 0.0)
    data = small_dataset()
    assert len(data.trainval) <= LATEM().batch_size, "one batch: its order does not matter"
    W = LATEM(maps=3, lr=1.5, epochs=4).fit(data).net.W
    assert torch.equal(W[0], W[1])
    assert torch.equal(W[0], W[2])
    torch.testing.assert_close(W[0], LATEM(maps=1, lr=0.5, epochs=4).fit(data).net.W[0])


def test_two_maps_solve_what_no_bilinear_form_can():
    """A form that is right at x is wrong at −x, and each test image comes with its mirror image."""
    data = opposite_clusters()
    assert seen_accuracy(LATEM(maps=4, epochs=100), data) == 1
    for method in (DeViSE, SJE, ALE):
        assert seen_accuracy(method(epochs=100), data) == 0.5


def test_the_best_map_is_chosen_for_each_image_and_class():
    W = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    net = Maps(torch.zeros(2), W)
    x, s = torch.tensor([[3.0, 4.0], [-3.0, 4.0]]), torch.eye(2)
    torch.testing.assert_close(net.each(x, s)[0], torch.tensor([[0.6, 0.0], [-0.6, 0.0]]))
    torch.testing.assert_close(net(x, s), torch.tensor([[0.6, 1.6], [0.0, 1.6]]))


def test_a_violation_moves_the_best_map_of_each_of_its_two_classes():
    W = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    model = LATEM()
    model.net = Maps(torch.zeros(2), W)
    x, y, s = torch.tensor([[0.6, 0.8]]), torch.tensor([0]), torch.eye(2)
    model._loss(x, y, s).backward()
    expected = torch.tensor([[[-0.6, 0.0], [-0.8, 0.0]], [[0.0, 0.6], [0.0, 0.8]]])
    torch.testing.assert_close(model.net.W.grad, expected)


def test_the_start_is_drawn_from_the_seed():
    data = small_dataset()
    assert evaluate(LATEM(seed=3).fit(data), data) == evaluate(LATEM(seed=3).fit(data), data)


@pytest.mark.parametrize("maps", [0, 1.5])
def test_the_number_of_maps_is_a_whole_one(maps):
    with pytest.raises(DataError, match=rf"LATEM.maps: found {maps}, expected a whole number of 1 or more"):
        LATEM(maps=maps)
