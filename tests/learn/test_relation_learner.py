"""Learning the relation network on clean images: planted problems, the loss, checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn

from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.metrics import evaluate

QUICK = RelationConfig(
    embedding=16,
    attribute_hidden=16,
    hidden=32,
    lr=3e-3,
    backbone_lr=1.0,
    weight_decay=1e-5,
    batch_size=32,
    epochs=3,
)


class Pixels(nn.Module):
    """A backbone in a blink: a linear map of 16 pixels and a ReLU."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(1, 16, 4, bias=False)
        self.calls = 0
        nn.init.eye_(self.map.weight.data.view(16, 16))

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.map(x).relu().flatten(1)


def bars(*, seed: int = 0, shuffled: bool = False) -> ZSLDataset:
    """Images of 4 x 4 whose rows are light where the class has the row's attribute; 11 seen of 15 classes."""
    g = rng(seed)
    semantics = torch.tensor([[b >> k & 1 for k in range(4)] for b in range(1, 16)]).float()
    labels = torch.arange(15).repeat_interleave(24)
    rows = 40 + 160 * semantics[labels] + 20 * torch.randn(len(labels), 4, generator=g)
    images = rows[:, None, :, None].expand(-1, 1, 4, 4).clamp(0, 255).byte()
    unseen = torch.isin(labels, torch.tensor([4, 8, 10, 12]))  # codes 5, 9, 11, 13
    held = torch.arange(len(labels)) % 4 == 0
    if shuffled:
        images = images[torch.randperm(len(images), generator=g)]
    return ZSLDataset(
        name="bars",
        images=images,
        labels=labels,
        semantics=semantics,
        class_names=tuple(f"{b:04b}" for b in range(1, 16)),
        trainval=(~unseen & ~held).nonzero().flatten(),
        test_seen=(~unseen & held).nonzero().flatten(),
        test_unseen=unseen.nonzero().flatten(),
    )


def learner(config: RelationConfig = QUICK, **options) -> RelationLearner:
    return RelationLearner(config, device="cpu", **{"backbone": Pixels()} | options)


@pytest.fixture(scope="module")
def data() -> ZSLDataset:
    return bars()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_planted_problem_is_solved(data, freeze):
    model = learner(replace(QUICK, epochs=40, freeze=freeze)).fit(data, progress=False)
    found = evaluate(model, data)
    assert found.T1 > 90  # chance: 25
    assert found.AS > 90
    assert model.history[-1]["loss"] < 0.2 * model.history[0]["loss"]
    assert model.history[-1]["accuracy"] > 95


def test_what_has_no_answer_is_not_found():
    data = bars(shuffled=True)
    model = learner(replace(QUICK, epochs=10)).fit(data, progress=False)
    assert evaluate(model, data).T1 < 50


@pytest.mark.parametrize("combine", ["product", "elementwise"])
def test_products_learn_too(data, combine):
    model = learner(replace(QUICK, epochs=20, combine=combine)).fit(data, progress=False)
    assert model.history[-1]["accuracy"] > 90


def test_the_loss_is_eq_3_with_its_minus_sign(data):
    model = learner(replace(QUICK, temperature=2.0)).fit(data, epochs=1, progress=False)
    images, s = data.images[:5], data.semantics[data.seen]
    y = torch.tensor([0, 3, 1, 2, 0])
    with torch.no_grad():
        loss, scores = model._loss(images, y, s)
        r = model.net.relation(model.net.image_embedding(images), model.net.attribute_embedding(s))
    p = (r / 2).exp() / (r / 2).exp().sum(1, keepdim=True)  # Eq. 2
    q = torch.eye(len(s))[y]
    torch.testing.assert_close(loss, -(q * p.log()).sum(1).mean())
    torch.testing.assert_close(scores, r / 2)


def test_scores_are_those_of_the_network_and_differentiable_for_an_attack(data):
    model = learner().fit(data, progress=False)
    x = data.images[:7].float().requires_grad_()
    scores = model.score_function(data.semantics)(x)
    torch.testing.assert_close(scores.detach(), model.scores(data.images[:7], data.semantics, batch=3))
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), x)
    (plain,) = torch.autograd.grad(model.net(x, data.semantics)[:, 0].sum(), x)
    torch.testing.assert_close(gradient, plain)
    assert gradient.abs().sum() > 0
    assert not model.net.training


def test_the_rate_falls_by_a_tenth_after_every_few_epochs(data):
    config = replace(QUICK, lr=0.01, every=2, epochs=5)
    model = learner(config).fit(data, progress=False)
    found = [entry["lr"] for entry in model.history]
    assert found == pytest.approx([0.01, 0.01, 0.009, 0.009, 0.0081])


def test_the_backbone_has_a_rate_of_its_own(data):
    moved = []
    for share in (1.0, 0.01):
        backbone = Pixels()
        trained = learner(replace(QUICK, weight_decay=0.0, backbone_lr=share), backbone=backbone)
        trained.fit(data, epochs=1, progress=False)
        moved.append((trained.net.backbone.map.weight - backbone.map.weight).abs().max().item())
    assert 0 < moved[1] < 0.05 * moved[0]


@pytest.mark.parametrize("changes", [{"noise": 8.0}, {"freeze": True}])
def test_a_run_that_resumes_is_the_run_that_did_not_stop(data, tmp_path, changes):
    config = replace(QUICK, every=1, **changes)
    whole = learner(config).fit(data, progress=False)
    learner(config).fit(data, epochs=1, checkpoint=tmp_path / "a.pt", progress=False)
    resumed = learner(config).fit(data, checkpoint=tmp_path / "a.pt", progress=False)
    assert resumed.history == whole.history
    for a, b in zip(whole.net.state_dict().values(), resumed.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_start_is_refused(data, tmp_path):
    learner().fit(data, epochs=1, checkpoint=tmp_path / "a.pt", progress=False)
    other = Pixels()
    nn.init.ones_(other.map.weight)
    with pytest.raises(DataError, match="data"):
        learner(backbone=other).fit(data, checkpoint=tmp_path / "a.pt", progress=False)
    with pytest.raises(DataError, match="noise"):
        learner(replace(QUICK, noise=1.0)).fit(data, checkpoint=tmp_path / "a.pt", progress=False)


def test_the_callers_backbone_stays_and_a_frozen_one_runs_once_an_image(data):
    backbone = Pixels()
    before = backbone.map.weight.clone()
    trained = learner(backbone=backbone).fit(data, progress=False).net.backbone
    assert torch.equal(backbone.map.weight, before)
    assert not torch.equal(trained.map.weight, before)
    frozen = learner(replace(QUICK, freeze=True), backbone=backbone).fit(data, progress=False).net.backbone
    assert torch.equal(frozen.map.weight, before)
    assert frozen.calls == 1  # one batch, before the first epoch


def test_a_frozen_backbones_features_serve_as_well_as_images(data):
    config = replace(QUICK, freeze=True)
    features = Pixels().features(data.images[:]).detach()
    by_images = learner(config).fit(data, progress=False)
    by_features = learner(config).fit(replace(data, images=None, features=features), progress=False)
    assert by_images.history == by_features.history
    scores = [m.scores(x, data.semantics) for m, x in ((by_images, data.images), (by_features, features))]
    torch.testing.assert_close(*scores)


def test_noise_is_uniform_within_its_bound_and_the_image(data):
    model = learner(replace(QUICK, noise=30.0)).fit(data, epochs=1, progress=False)
    images = torch.full((500, 1, 4, 4), 128, dtype=torch.uint8)
    moved = model._noisy(images) - 128
    assert moved.abs().max() <= 30
    assert moved.std() == pytest.approx(30 / 3**0.5, rel=0.02)
    assert model._noisy(torch.zeros_like(images)).min() >= 0


def test_a_subclass_changes_the_loss_alone(data):
    class Reversed(RelationLearner):
        NEEDS_PIXELS = True

        def _loss(self, images, labels, semantics):
            assert images.ndim == 4
            assert semantics.shape == (11, 4)
            loss, scores = super()._loss(images, labels, semantics)
            return loss.neg().exp(), scores

    k = replace(QUICK, freeze=True, epochs=5)
    model = Reversed(k, device="cpu", backbone=Pixels()).fit(data, progress=False)
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    assert model.history[-1]["accuracy"] < 10


def test_half_precision_is_near(data):
    full, half = (
        learner(replace(QUICK, precision=p)).fit(data, progress=False) for p in ("float32", "bfloat16")
    )
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)
    assert half.scores(data.images[:4], data.semantics).dtype == torch.float32


def test_it_leaves_the_global_random_state_alone(data):
    model, before = learner(replace(QUICK, noise=2.0)), torch.get_rng_state()
    model.fit(data, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_no_number_stops(data):
    with pytest.raises(ArithmeticError, match="smaller learning rate"):
        learner(replace(QUICK, lr=1e30)).fit(data, progress=False)


def test_what_cannot_be_learned_from():
    with pytest.raises(DataError, match="made-up: images"):
        learner().fit(small_dataset(), progress=False)
    with pytest.raises(DataError, match="made-up: images"):
        learner(replace(QUICK, freeze=True, noise=1.0)).fit(small_dataset(), progress=False)


def test_what_cannot_be_scored(data):
    with pytest.raises(DataError, match="fit"):
        learner().scores(data.images, data.semantics)
    model = learner().fit(data, epochs=1, progress=False)
    with pytest.raises(DataError, match="semantics"):
        model.scores(data.images, data.semantics[:, :3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"decay": -1.0},
        {"noise": -1.0},
        {"epochs": 0},
        {"temperature": 0.0},
        {"precision": "int8"},
    ],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(DataError, match=f"RelationConfig.{next(iter(wrong))}"):
        RelationConfig(**wrong)
