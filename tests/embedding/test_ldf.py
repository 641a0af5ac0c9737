"""LDF: its triplets against loops, its prototypes against scikit-learn, and images end to end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from sklearn.linear_model import Ridge
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.ldf import LDF, triplet
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate
from zsl_lib.models.backbone import SmallResNet, hangul_backbone


def naive_triplet(v: Tensor, y: Tensor, margin: float) -> float:
    hinges = []
    for i in range(len(v)):
        for j in range(len(v)):
            for k in range(len(v)):
                if i != j and y[i] == y[j] and y[i] != y[k]:
                    near, far = (float((v[i] - v[other]).square().sum()) for other in (j, k))
                    hinges.append(max(0.0, margin + near - far))
    return sum(hinges) / len(hinges)


@pytest.mark.parametrize("margin", [0.0, 1.0, 20.0])
def test_triplets_are_all_triplets_in_loops(margin):
    v, y = torch.randn(12, 3, generator=rng(1)).double(), torch.arange(12) % 4
    y[0] = 9  # a class of one image has no pair, and is far from all others' pairs
    assert float(triplet(v, y, margin)) == pytest.approx(naive_triplet(v, y, margin))


@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2], [0]])
def test_a_batch_without_a_triplet_has_loss_0_and_gradient_0(y):
    v = torch.randn(len(y), 3, generator=rng(2), requires_grad=True)
    loss = triplet(v, torch.tensor(y), 1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(v.grad, torch.zeros_like(v))


def test_the_triplets_gradient_agrees_with_finite_differences():
    v = torch.randn(8, 3, generator=rng(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: triplet(v, torch.arange(8) % 3, 1.0), v)


def test_the_loss_is_the_softmax_of_both_spaces_and_the_triplets():
    g = rng(4)
    x, s, y = torch.rand(6, 5, generator=g), torch.randn(3, 2, generator=g), torch.arange(6) % 3
    model = LDF(margin=2.0)
    model.net = model._network(x, s, rng(5))
    w, b = model.heads.weight.detach(), model.heads.bias.detach()
    u, v = x @ w[:2].T + b[:2], x @ w[2:].T + b[2:]
    expected = naive_triplet(v, y, 2.0)
    for i in range(6):
        expected -= math.log(float((u[i] @ s[y[i]]).exp() / sum((u[i] @ c).exp() for c in s))) / 6
    assert float(model._loss(x, y, s).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def fitted() -> tuple[LDF, ZSLDataset]:
    data = small_dataset()
    return LDF(lam=0.3, epochs=5).fit(data), data


def parts(model: LDF, data: ZSLDataset, x: Tensor) -> tuple[Tensor, Tensor]:
    w, b = model.heads.weight.detach(), model.heads.bias.detach()
    both = x @ w.T + b
    return both[:, :4], both[:, 4:]


def test_a_seen_class_has_the_mean_of_its_images(fitted):
    model, data = fitted
    for row, c in enumerate(data.seen):
        own = data.trainval[data.labels[data.trainval] == c]
        expected = parts(model, data, data.features[own])[1].mean(0)
        torch.testing.assert_close(model.prototypes[row], expected)
        torch.testing.assert_close(model._latent(data.semantics[c][None])[0], expected)


def test_latent_attributes_have_mean_0_over_training_images(fitted):
    model, data = fitted
    mean = parts(model, data, data.features[data.trainval])[1].mean(0)
    torch.testing.assert_close(mean, torch.zeros(4), rtol=0, atol=1e-6)


def test_an_unseen_class_has_scikit_learns_ridge_of_seen_ones(fitted):
    model, data = fitted
    s, new = (data.semantics[part].double().numpy() for part in (data.seen, data.unseen))
    beta = Ridge(alpha=0.3, fit_intercept=False).fit(s.T, new.T).coef_
    expected = torch.from_numpy(beta).float() @ model.prototypes
    torch.testing.assert_close(model._latent(data.semantics[data.unseen]), expected, rtol=1e-4, atol=1e-5)


def test_scores_are_the_sum_of_both_compatibilities(fitted):
    model, data = fitted
    u, v = parts(model, data, data.features)
    expected = torch.cat([u, v], 1) @ torch.cat([data.semantics, model._latent(data.semantics)], 1).T
    torch.testing.assert_close(model.scores(data.features, data.semantics), expected)


def test_latent_attributes_tell_apart_classes_that_descriptions_cannot():
    """Seen classes of (nearly) one description: given attributes fail, prototypes of images do not."""
    data = small_dataset(seen=4, noise=0.05)
    same = data.semantics[data.seen[0]] + 1e-4 * torch.rand(4, 4, generator=rng(6))
    blind = replace(data, semantics=data.semantics.index_copy(0, data.seen, same))
    model = LDF(epochs=100, lr=0.01).fit(blind)
    x, y = data.features[data.test_seen], torch.searchsorted(data.seen, data.labels[data.test_seen])
    u, v = parts(model, blind, x)
    assert float((u @ same.T).std(1).max()) < 0.01
    nearest = torch.cdist(v, model.prototypes).argmin(1)
    assert float((nearest == y).float().mean()) > 0.9


@pytest.mark.parametrize("settings", [{"seen": 1}, {"per_class": 3}])
def test_one_class_or_few_images_give_no_nan(settings):
    data = small_dataset(**settings)
    assert LDF(epochs=3).fit(data).scores(data.features, data.semantics).isfinite().all()


def drawings(per_class: int = 6) -> ZSLDataset:
    """Images 32 x 32 in which each of five bars is there or not: the attributes."""
    codes = [c for c in range(32) if c.bit_count() in (2, 3)]
    s = torch.tensor([[float(c >> k & 1) for k in range(5)] for c in codes])
    labels = torch.arange(len(s)).repeat_interleave(per_class)
    images = torch.zeros(len(labels), 1, 32, 32)
    for k in range(5):
        images[:, 0, 6 * k + 1 : 6 * k + 4, 4:28] = s[labels, k][:, None, None]
    images += 0.2 * torch.rand(images.shape, generator=rng(8))
    index = torch.arange(len(labels))
    seen, held = labels < 16, index % per_class == 0
    return ZSLDataset(
        name="drawings",
        images=(images / 1.2 * 255).to(torch.uint8),
        labels=labels,
        semantics=s,
        class_names=tuple(map(str, codes)),
        trainval=index[seen & ~held],
        test_seen=index[seen & held],
        test_unseen=index[~seen],
    )


@pytest.mark.parametrize("given", [False, True])
def test_images_train_a_copy_of_the_backbone_end_to_end(given):
    data, backbone = drawings(), hangul_backbone()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    model = LDF(backbone=backbone if given else None, epochs=5, batch_size=16).fit(data)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert isinstance(model.theta, SmallResNet)
    assert not torch.equal(model.theta.stem[0].weight, before["stem.0.weight"])
    assert model.history[-1] < 0.6 * model.history[0]
    assert evaluate(model, data).T1 > 80  # 25 by chance
    x = data.x(data.test_unseen)
    torch.testing.assert_close(model.scores(x[:3], data.semantics), model.scores(x, data.semantics)[:3])
    assert not model.theta.training


def test_a_backbone_for_features_is_an_error():
    with pytest.raises(DataError, match=r"features: found features, expected none \(None\), but images"):
        LDF(backbone=hangul_backbone()).fit(small_dataset())
