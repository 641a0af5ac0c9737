"""Eq. 5 and Algorithm 2 of paper 2: readings by plain loops, gradients, costs, and what training brings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zsl_lib.attacks import pgd, prototypes
from zsl_lib.embedding.dem import DEM
from zsl_lib.embedding.ldf import LDF
from zsl_lib.errors import DataError
from zsl_lib.learn.poisoned import (
    CombinedConfig,
    CombinedLearner,
    PoisonedConfig,
    PoisonedDEM,
    PoisonedLDF,
    PoisonedLearner,
    worst_table,
)
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.metrics import evaluate
from zsl_lib.poison import PoisonEvaluation

SMALL = {"embedding": 8, "attribute_hidden": 8, "hidden": 8, "batch_size": 16, "epochs": 2, "lr": 3e-3}
BUDGET = {"attribute_scale": 1.0, "radius": 0.5, "law": "fixed"}


class Identity(nn.Module):
    """Features as they are; counts how often it is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.calls = width, 0
        self.map = nn.Linear(width, width)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(width))
            self.map.bias.zero_()

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.map(x.flatten(1)).relu()


@pytest.fixture(scope="module")
def data():
    """Images of 2 x 3 pixels, which are features as bytes."""
    made = small_dataset(seen=6, unseen=4, per_class=18, noise=0.2)
    return replace(made, images=(255 * made.features).byte().reshape(-1, 1, 2, 3), features=None)


def learner(kind=PoisonedLearner, **settings):
    config = PoisonedConfig(**SMALL | BUDGET | settings)
    return kind(config, seed=1, device="cpu", backbone=Identity(6))


def begun(data, **settings) -> PoisonedLearner:
    """Before its first step, in double precision."""
    model = learner(**settings).fit(data, epochs=0, progress=False)
    model.net.double()
    return model


def batch(data, n: int = 9):
    index = data.trainval[:n]
    y = torch.searchsorted(data.seen, data.labels[index])
    return data.images[index].double(), y, data.semantics[data.seen].double()


def weights(model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.net.parameters()])


# --- both readings ---------------------------------------------------------------------------------------


def test_with_alpha_of_one_it_is_clean_training_to_the_bit(data):
    plain = RelationLearner(RelationConfig(**SMALL), seed=1, device="cpu", backbone=Identity(6))
    plain.fit(data, progress=False)
    same = learner(alpha=1.0).fit(data, progress=False)
    assert torch.equal(weights(plain), weights(same))
    assert plain.history == same.history


@pytest.mark.parametrize("reading", ["all", "one", "several"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_at_radius_0_it_is_the_clean_loss(data, reading, alpha):
    model = begun(data, radius=0.0, reading=reading, alpha=alpha)
    x, y, s = batch(data)
    value, scores = model._loss(x, y, s)
    assert value.item() == pytest.approx(F.cross_entropy(model.net(x, s), y).item(), rel=1e-6)
    assert torch.allclose(scores, model.net(x, s))


@pytest.mark.parametrize("threat", ["universal", "per_image"])
@pytest.mark.parametrize("step", [1.0, None])
def test_eq_5_by_a_plain_loop(data, threat, step):
    model, (x, y, s) = begun(data, threat=threat, step=step, attribute_scale=2.0), batch(data)
    net, rho, k = model.net, 0.5 / 2, s.shape[1]
    length = rho * (1.25 / 3 if step is None else step) / k**0.5
    total = 0.0
    for images, labels in [(x, y)] if threat == "universal" else zip(x.split(1), y.split(1), strict=True):
        moved = s.clone()
        for _ in range(3):
            moved.requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(net(images, moved), labels), moved)
            delta = moved.detach() + length * slope.sign() - s
            moved = s + torch.stack([d * min(1.0, rho / max(d.norm().item(), 1e-12)) for d in delta])
        total += F.cross_entropy(net(images, moved), labels).item() * len(images) / len(x)
    expected = 0.5 * F.cross_entropy(net(x, s), y).item() + 0.5 * total
    assert model._loss(x, y, s)[0].item() == pytest.approx(expected, rel=1e-6)


def test_the_own_row_of_each_image_by_a_plain_loop(data):
    model, (x, y, s) = begun(data, threat="per_image", reading="own", alpha=0.0), batch(data)
    total, length = 0.0, 0.5 / s.shape[1] ** 0.5
    for image, label in zip(x.split(1), y.split(1), strict=True):
        moved = s.clone()
        for _ in range(3):
            moved.requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(model.net(image, moved), label), moved)
            delta = moved.detach()[label] + length * slope[label].sign() - s[label]
            moved = s.clone()
            moved[label] = s[label] + delta * min(1.0, 0.5 / delta.norm().item())
        total += F.cross_entropy(model.net(image, moved), label).item() / len(x)
    value, _ = model._loss(x, y, s)
    assert value.item() == pytest.approx(total, rel=1e-6)
    value.backward()
    assert all(p.grad is not None for p in model.net.parameters())


def algorithm_2(net, x, y, s, rho, draws, *, reset):
    """P' of Algorithm 2 as printed, or without its line ``P' <- P``."""
    moved, eps = s.clone(), (rho**2 / s.shape[1]) ** 0.5
    for j in draws:
        if reset:
            moved = s.clone()
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x, moved), y), moved)
        moved = moved.detach()
        delta = moved[j] + eps * slope[j].sign() - s[j]
        moved[j] = s[j] + delta * min(1.0, rho / delta.norm().item())
    return moved


@pytest.mark.parametrize("reading", ["one", "several"])
def test_algorithm_2_by_a_plain_loop(data, reading):
    model, (x, y, s) = begun(data, reading=reading), batch(data)
    found = model._search(model.net.image_embedding(x).detach(), y, s)
    moved = (found != s).any(1).nonzero().flatten().tolist()
    assert len(moved) == {"one": 1, "several": 3}[reading]
    again = torch.Generator().manual_seed(1)  # as the learner's own
    if reading == "one":
        draws = [3, 0, *torch.randint(len(s), (1,), generator=again).tolist()]  # what came before is undone
    else:
        draws = torch.randperm(len(s), generator=again)[:3].tolist()
    expected = algorithm_2(model.net, x, y, s, 0.5, draws, reset=reading == "one")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_each_image_draws_a_prototype_of_its_own(data):
    model, (x, y, s) = begun(data, reading="one", threat="per_image"), batch(data)
    found = model._search(model.net.image_embedding(x).detach(), y, s)
    moved = (found != s).any(2)
    assert found.shape == (len(x), *s.shape)
    assert moved.sum(1).tolist() == [1] * len(x)
    assert len(moved.long().argmax(1).unique()) > 2


def test_noise_moves_every_row_by_the_radius_whatever_the_loss(data):
    model, (x, y, s) = begun(data, reading="noise"), batch(data)
    embedding = model.net.image_embedding(x).detach()
    found = model._search(embedding, y, s) - s
    torch.testing.assert_close(found.norm(dim=1), torch.full((len(s),), 0.5).double(), atol=1e-6, rtol=0)
    again = begun(data, reading="noise")._search(embedding, y.flip(0), s) - s
    assert torch.equal(found, again)


def test_dropout_takes_the_share_of_attributes_and_nothing_else(data):
    model, (x, y, s) = begun(data, reading="dropout", share=0.3), batch(data)
    s = torch.rand(200, 50, generator=rng(0)) + 1
    found = model._search(model.net.image_embedding(x).detach(), y, s)
    assert bool(((found == s) | (found == 0)).all())
    assert (found == 0).double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_points_of_the_data_set_are_the_scale_unless_another_is_set(data):
    points = torch.linspace(1, 4, len(data.semantics), dtype=torch.float64)
    own, (x, y, s) = replace(data, points=points), batch(data)
    for scale, expected in ((None, 0.5 / points[data.seen]), (2.0, torch.full((len(s),), 0.25).double())):
        model = begun(own, attribute_scale=scale, direction="gradient", step=2.0)
        moved = model._search(model.net.image_embedding(x).detach(), y, s) - s
        torch.testing.assert_close(moved.norm(dim=1), expected, rtol=1e-5, atol=0)
    with pytest.raises(DataError, match=r"PoisonedConfig.attribute_scale: found None, expected a number"):
        begun(data, attribute_scale=None)
    with pytest.raises(DataError, match=r"PoisonedDEM.attribute_scale: found None, expected a number"):
        PoisonedDEM(device="cpu").fit(small_dataset())


def test_radii_are_drawn_for_every_batch_within_their_range(data):
    model, (x, y, s) = begun(data, law="truncated normal", direction="gradient"), batch(data)
    embedding = model.net.image_embedding(x).detach()
    lengths = torch.stack([(model._search(embedding, y, s) - s).norm(dim=1).max() for _ in range(20)])
    assert lengths.max() <= 0.5
    assert lengths.std() > 0.05


# --- the gradient ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["concatenation", "product"])
def test_the_gradient_is_that_of_the_maximum(data, combine):
    """Danskin: finite differences of Eq. 5, its maximum searched anew, against backward().

    In a ball so small that no ReLU has a kink at the maximum: there, neither side has one value.
    """
    settings = {"direction": "gradient", "steps": 100, "step": 1.0, "combine": combine, "radius": 0.05}
    model, (x, y, s) = begun(data, **settings), batch(data, 4)
    value, _ = model._loss(x, y, s)
    value.backward()
    towards = {}
    for seed in range(3):
        g, expected = rng(seed), 0.0
        for p in model.net.parameters():
            towards[p] = torch.randn(p.shape, generator=g, dtype=p.dtype)
            expected += (p.grad * towards[p]).sum().item()
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for p in model.net.parameters():
                    p += sign * 1e-4 * towards[p]
            sides.append(model._loss(x, y, s)[0].item())
            with torch.no_grad():
                for p in model.net.parameters():
                    p -= sign * 1e-4 * towards[p]
        assert (sides[0] - sides[1]) / 2e-4 == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_the_search_leaves_no_gradient_in_the_weights(data):
    model, (x, y, s) = begun(data), batch(data)
    model._search(model.net.image_embedding(x).detach(), y, s)
    assert all(p.grad is None for p in model.net.parameters())


# --- both attacks in one objective -----------------------------------------------------------------------


def combined(data, **settings) -> CombinedLearner:
    config = CombinedConfig(**SMALL | BUDGET | {"image_radius": 3.0} | settings)
    model = CombinedLearner(config, seed=1, device="cpu", backbone=Identity(6))
    model.fit(data, epochs=0, progress=False)
    model.net.double()
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_combined_loss_is_half_of_each_attack(data, alpha):
    x, y, s = batch(data)
    value, _ = combined(data, alpha=alpha)._loss(x, y, s)
    model = combined(data)
    table = begun(data, alpha=0.0)._loss(x, y, s)[0].item()
    attacked = pgd(lambda x: model.net(x, s), x, y, radius=3.0, steps=3)
    image = F.cross_entropy(model.net(attacked, s), y).item()
    own = F.cross_entropy(model.net(x, s), y).item()
    assert image > own
    assert table > own
    assert value.item() == pytest.approx(alpha * own + (1 - alpha) / 2 * (table + image), rel=1e-6)


def test_the_combined_learner_is_clean_training_at_alpha_1(data):
    same = CombinedLearner(
        CombinedConfig(**SMALL | BUDGET | {"alpha": 1.0}), seed=1, device="cpu", backbone=Identity(6)
    ).fit(data, progress=False)
    assert torch.equal(weights(same), weights(learner(alpha=1.0).fit(data, progress=False)))


# --- compatibility models --------------------------------------------------------------------------------


def test_the_worst_table_of_a_linear_loss_is_known():
    table, w = torch.rand(4, 5, generator=rng(0)), torch.randn(4, 5, generator=rng(1))
    scale = torch.tensor([1.0, 2.0, 4.0, 8.0])
    options = {"radius": 0.6, "attribute_scale": scale}
    rho = (0.6 / scale)[:, None]
    found = worst_table(lambda p: (w * p).sum(), table, direction="gradient", **options)
    torch.testing.assert_close(found, table + rho * w / w.norm(dim=1, keepdim=True))
    found = worst_table(lambda p: (w * p).sum(), table, **options)
    torch.testing.assert_close(found, table + rho * w.sign() / 5**0.5)
    found = worst_table(lambda p: (w * p).sum(), table, steps=2, step=0.2, **options)
    torch.testing.assert_close(found, table + 0.4 * rho * w.sign() / 5**0.5)
    assert torch.equal(worst_table(lambda p: 0 * p.sum(), table, **options), table)


@pytest.mark.parametrize(("kind", "plain"), [(PoisonedDEM, DEM), (PoisonedLDF, LDF)])
def test_dem_and_ldf_learn_by_eq_5_on_their_own_loss(kind, plain):
    data = small_dataset(seen=6, unseen=3, per_class=12)
    own = {"attribute_scale": 1.0, "radius": 0.3, "law": "fixed"}
    settings = {"epochs": 1, "batch_size": 256, "lr": 1e-12, "seed": 2, "device": "cpu"}
    model = kind(**settings, **own, alpha=0.25).fit(data)
    clean = plain(**settings).fit(data)
    x, y = data.features[data.trainval], torch.searchsorted(data.seen, data.labels[data.trainval])
    s = data.semantics[data.seen]
    worst = worst_table(lambda s: clean._loss(x, y, s), s, radius=0.3)
    expected = 0.25 * clean._loss(x, y, s).item() + 0.75 * clean._loss(x, y, worst).item()
    assert clean._loss(x, y, worst) > clean._loss(x, y, s)
    assert model.history[0] == pytest.approx(expected, rel=1e-5)
    same = kind(**settings | {"lr": 1e-2}, **own, alpha=1.0).fit(data)
    assert same.history == plain(**settings | {"lr": 1e-2}).fit(data).history


# --- the cost ----------------------------------------------------------------------------------------------


class Deep(Identity):
    """With a long way to its features."""

    def __init__(self, layers: int) -> None:
        super().__init__(6)
        self.map = nn.Sequential(*[nn.Linear(6, 6) for _ in range(layers)])


def flops(data, layers: int, **settings) -> int:
    """Of a step, forward and backward."""
    config = PoisonedConfig(**SMALL | BUDGET | settings)
    model = PoisonedLearner(config, seed=1, device="cpu", backbone=Deep(layers))
    model.fit(data, epochs=0, progress=False)
    x, y, s = batch(data)
    with FlopCounterMode(display=False) as counter:
        model._loss(x.byte(), y, s.float())[0].backward()
    return counter.get_total_flops()


def test_the_backbone_costs_what_it_costs_in_clean_training(data):
    """The search and the second term go through the attribute and relation networks alone."""
    added = [flops(data, layers) - flops(data, layers, alpha=1.0) for layers in (1, 30)]
    assert added[0] == added[1]
    classes, k = data.semantics[data.seen].shape
    # a step of the search, forward: two layers of the attribute network and the relation's first for each
    # class, its last for each pair; backward, in what moves, as much
    forward = 2 * classes * 8 * (k + 8 + 8) + 2 * 9 * classes * 8
    assert flops(data, 1, steps=5) - flops(data, 1, steps=3) == 2 * 2 * forward
    everything = flops(data, 1) - flops(data, 1, alpha=1.0)
    assert 3 * 2 * forward < everything < 3 * 2 * forward + 5 * forward + 2 * 9 * 6 * 8


def test_images_go_through_the_backbone_once_a_step(data):
    model = learner(steps=5)
    model.fit(data, epochs=1, progress=False)
    steps = -(-len(data.trainval) // 16)
    assert model.net.backbone.calls == steps


# --- learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["all", "one", "several", "noise", "dropout"])
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(data, reading, tmp_path):
    settings = {"reading": reading, "law": "truncated normal", "epochs": 3}
    straight = learner(**settings).fit(data, progress=False)
    file = tmp_path / "run.pt"
    learner(**settings).fit(data, epochs=1, checkpoint=file, progress=False)
    resumed = learner(**settings).fit(data, checkpoint=file, progress=False)
    assert torch.equal(weights(straight), weights(resumed))
    assert straight.history == resumed.history


def test_a_frozen_backbones_features_are_computed_once(data):
    model = learner(freeze=True)
    model.fit(data, progress=False)
    assert model.net.backbone.calls <= 2
    assert len(model.history) == 2


def test_learning_with_poison_withstands_poison():
    """Against one table for all queries, at a radius beyond that of training; and nothing is lost without."""
    data = small_dataset(seen=12, unseen=4, per_class=24, semantic_dim=8, dim=12, noise=0.1)
    size = {"embedding": 12, "attribute_hidden": 32, "hidden": 32, "epochs": 80, "batch_size": 64, "lr": 1e-2}
    settings = SMALL | BUDGET | size | {"weight_decay": 1e-4, "freeze": True, "radius": 0.15}
    found = {}
    for alpha in (1.0, 0.5):
        config = PoisonedConfig(**settings | {"alpha": alpha})
        model = PoisonedLearner(config, seed=0, device="cpu", backbone=Identity(12)).fit(data, progress=False)
        evaluation = PoisonEvaluation(model, data)
        attacked = evaluation.run(prototypes.ifgsm, threat="universal", which="seen and unseen", radius=0.2)
        found[alpha] = evaluate(model, data).AS, attacked.accuracies.AS
    assert found[1.0][0] > 90
    assert found[0.5][0] > 90
    assert found[0.5][1] > found[1.0][1] + 20, found


# --- settings that do not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, r"PoisonedConfig.alpha: found 1.5, expected a number in \[0, 1\]"),
        ({"alpha": -0.1}, "PoisonedConfig.alpha: found -0.1"),
        ({"radius": -1.0}, "PoisonedConfig.radius: found -1"),
        ({"attribute_scale": 0.0}, "PoisonedConfig.attribute_scale: found 0.0"),
        ({"steps": 0}, "PoisonedConfig.steps: found 0"),
        ({"step": 0.0}, "PoisonedConfig.step: found 0.0"),
        (
            {"reading": "none"},
            "PoisonedConfig.reading: found 'none', expected one of 'all', 'one', 'several'",
        ),
        ({"threat": "none"}, "PoisonedConfig.threat: found 'none'"),
        ({"law": "none"}, "PoisonedConfig.law: found 'none'"),
        ({"direction": "none"}, "PoisonedConfig.direction: found 'none'"),
        ({"reading": "several", "threat": "per_image"}, "PoisonedConfig.threat: found 'per_image'"),
        (
            {"reading": "own"},
            "PoisonedConfig.threat: found 'universal', expected 'per_image' for reading 'own'",
        ),
        ({"reading": "dropout", "threat": "per_image"}, "PoisonedConfig.threat: found 'per_image'"),
        ({"share": 1.0}, r"PoisonedConfig.share: found 1.0, expected a number in \[0, 1\)"),
        ({"share": -0.1}, "PoisonedConfig.share: found -0.1"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(DataError, match=message):
        PoisonedConfig(**settings)
