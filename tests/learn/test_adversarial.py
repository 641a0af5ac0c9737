"""Eq. 4 and Algorithm 1 of paper 2: values, gradients, costs, and what training by them brings about."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from helpers import rng
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zsl_lib.attacks import fgsm, pgd
from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.ldf import LDF
from zsl_lib.errors import DataError
from zsl_lib.learn.adversarial import (
    AdversarialConfig,
    AdversarialDEM,
    AdversarialLDF,
    AdversarialLearner,
    adversarial_loss,
    ascend,
    draw_radius,
    replay,
)
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.metrics import evaluate
from zsl_lib.models.backbone import SmallResNet

SMALL = {"embedding": 8, "attribute_hidden": 8, "hidden": 8, "batch_size": 8, "epochs": 2, "lr": 3e-3}


def backbone(seed: int = 0) -> SmallResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(5, (4, 4, 8, 8)).eval()


def image_dataset(per_class: int = 6, seed: int = 0) -> ZSLDataset:
    """Eight classes of 8 x 8 images, a bright 4 x 4 quarter for each of three attributes, with noise."""
    g = rng(seed)
    semantics = torch.tensor(list(product([0.0, 1.0], repeat=3)))
    labels = torch.arange(8).repeat_interleave(per_class)[torch.randperm(8 * per_class, generator=g)]
    images = torch.zeros(len(labels), 8, 8)
    corners = [(0, 0), (0, 4), (4, 0)]
    for k, (i, j) in enumerate(corners):
        images[:, i : i + 4, j : j + 4] = 150 * semantics[labels, k][:, None, None]
    images = (images + 40 * torch.rand(images.shape, generator=g)).byte()[:, None]
    unseen = torch.isin(labels, torch.tensor([3, 6]))
    rank = torch.zeros(len(labels), dtype=torch.int64)
    for c in range(8):
        rank[labels == c] = torch.arange(per_class)
    return ZSLDataset(
        name="quarters",
        images=images,
        labels=labels,
        semantics=semantics,
        class_names=tuple("abcdefgh"),
        trainval=(~unseen & (rank > 1)).nonzero().flatten(),
        test_seen=(~unseen & (rank <= 1)).nonzero().flatten(),
        test_unseen=unseen.nonzero().flatten(),
    )


def learner(**settings):
    known = AdversarialConfig(**SMALL | settings)
    return AdversarialLearner(known, seed=1, device="cpu", backbone=backbone())


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def convolutional(classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, classes)
        )


def batch(n: int = 7):
    g = rng(3)
    return 255 * torch.rand(n, 1, 8, 8, generator=g), torch.randint(3, (n,), generator=g)


def cross_entropy(net, y):
    return lambda x: F.cross_entropy(net(x / 255), y)


def gradients(value: torch.Tensor, net: nn.Module) -> list[torch.Tensor]:
    net.zero_grad()
    value.backward()
    return [p.grad.clone() for p in net.parameters()]


# --- the loss ------------------------------------------------------------------------------------------


def test_with_alpha_of_one_it_is_clean_training_to_the_bit():
    data = image_dataset()
    plain = RelationLearner(RelationConfig(**SMALL), seed=1, device="cpu", backbone=backbone())
    plain.fit(data, progress=False)
    same = learner(alpha=1.0).fit(data, progress=False)
    assert torch.equal(weights(plain.net), weights(same.net))
    for key, value in plain.net.state_dict().items():
        assert torch.equal(value, same.net.state_dict()[key]), key
    assert plain.history == same.history


@pytest.mark.parametrize("scheme", ["reuse", "plain", "fast", "noise"])
def test_at_radius_0_it_is_the_clean_loss(scheme):
    net, (x, y) = convolutional(), batch()
    loss = cross_entropy(net, y)
    clean = gradients(loss(x), net)
    value = adversarial_loss(loss, x, model=net, radius=0.0, scheme=scheme, generator=rng())
    assert value.item() == pytest.approx(loss(x).item(), rel=1e-6)
    for g, c in zip(gradients(value, net), clean, strict=True):
        torch.testing.assert_close(g, c)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_value_is_eq_4(alpha):
    net, (x, y) = convolutional().eval(), batch()
    loss = cross_entropy(net, y)
    attacked = pgd(lambda x: net(x / 255), x, y, radius=40.0, steps=3)
    expected = alpha * loss(x) + (1 - alpha) * loss(attacked)
    found = adversarial_loss(loss, x, model=net, radius=40.0, alpha=alpha)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(attacked) > 1.05 * loss(x)
    for a, b in zip(gradients(found, net), gradients(expected, net), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_to_reuse_the_clean_gradient_changes_nothing(training, steps):
    found = []
    for scheme in ("plain", "reuse"):
        net, (x, y) = convolutional().train(training), batch()
        loss = cross_entropy(net, y)
        value = adversarial_loss(loss, x, model=net, radius=20.0, steps=steps, scheme=scheme)
        found.append([value.detach(), *gradients(value, net), *net.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_search_is_the_attack_that_evaluates():
    net, (x, y) = convolutional().eval(), batch()
    radius = torch.rand(len(x), generator=rng()) * 30
    expected = pgd(lambda x: net(x / 255), x, y, radius=radius, steps=5)
    options = {"model": net, "radius": radius.reshape(-1, 1, 1, 1), "start": x}
    found = ascend(cross_entropy(net, y), x, steps=5, **options)
    assert torch.equal(found, expected)
    one = ascend(cross_entropy(net, y), x, steps=1, **options)
    assert torch.equal(one, fgsm(lambda x: net(x / 255), x, y, radius=radius))


@pytest.mark.parametrize("scheme", ["reuse", "plain", "fast", "noise"])
def test_every_attacked_image_is_within_ball_and_range(scheme):
    net, (x, y) = convolutional(), batch()
    met = []

    def loss(x):
        met.append(x.detach())
        return F.cross_entropy(net(x / 255), y)

    adversarial_loss(loss, x, model=net, radius=50.0, scheme=scheme, generator=rng())
    assert max((m - x).abs().max().item() for m in met) == pytest.approx(50, abs=1e-4)
    assert min(m.min().item() for m in met) >= 0
    assert max(m.max().item() for m in met) <= 255


def test_its_gradient_is_that_of_the_maximum():
    """Danskin. Cross-entropy of linear scores is convex in x, so its maximum is at one of 16 corners."""
    g = rng(5)
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / 40)
    x, y = 60 + 100 * torch.rand(1, 4, generator=g, dtype=torch.float64), torch.tensor([1])
    corners = torch.tensor(list(product([-1.0, 1.0], repeat=4)), dtype=torch.float64)

    def maximum(net):
        with torch.no_grad():
            return F.cross_entropy(net(x + 30 * corners), y.expand(16), reduction="none").max().item()

    value = adversarial_loss(lambda x: F.cross_entropy(net(x), y), x, model=net, radius=30.0, alpha=0.0)
    assert value.item() == pytest.approx(maximum(net), rel=1e-12)
    for p, slope in zip(net.parameters(), gradients(value, net), strict=True):
        for index in product(*map(range, p.shape)):
            ends = []
            for h in (1e-5, -1e-5):
                with torch.no_grad():
                    p[index] += h
                    ends.append(maximum(net))
                    p[index] -= h
            assert slope[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_a_loss_may_couple_the_images_of_a_batch():
    x = batch()[0]
    net = nn.Linear(1, 1)

    def spread(x):
        return net(x.mean((2, 3)) / 255).var()

    clean = spread(x).item()
    found = adversarial_loss(spread, x, model=net, radius=20.0, alpha=0.0).item()
    assert found > clean


@pytest.mark.parametrize(
    ("scheme", "alpha", "units"),
    [("clean", 1, 3), ("plain", 0.5, 12), ("reuse", 0.5, 10), ("fast", 0.5, 8), ("noise", 0.5, 6),
     ("reuse", 0.0, 9)],
)  # fmt: skip
def test_passes_cost_what_the_table_says(scheme, alpha, units):
    """Operations counted by torch: nearly all are in one layer between two thin ones."""
    net = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3))
    x, y = 255 * torch.rand(8, 4, generator=rng()), torch.zeros(8, dtype=torch.int64)
    forward = FlopCounterMode(display=False)
    with forward, torch.no_grad():
        net(x)
    kind = "reuse" if scheme == "clean" else scheme
    with FlopCounterMode(display=False) as counter:
        loss = cross_entropy(net, y)
        adversarial_loss(loss, x, model=net, radius=4.0, alpha=alpha, scheme=kind, generator=rng()).backward()
    assert counter.get_total_flops() / forward.get_total_flops() == pytest.approx(units, rel=0.03)


# --- what it leaves alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["reuse", "plain", "fast", "noise"])
def test_only_the_clean_and_the_attacked_pass_move_batchnorm(scheme):
    net, (x, y) = convolutional().train(), batch()
    norm = net[1]
    adversarial_loss(cross_entropy(net, y), x, model=net, radius=20.0, scheme=scheme, generator=rng())
    assert norm.num_batches_tracked == 2
    assert norm.track_running_stats
    assert norm.training
    assert all(p.grad is None for p in net.parameters())


def test_batchnorm_that_remembers_would_remember_the_search():
    """The guard of the search matters: without it the statistics would be others."""
    net, (x, y) = convolutional().train(), batch()
    adversarial_loss(cross_entropy(net, y), x, model=net, radius=20.0, scheme="plain", steps=3)
    unguarded = convolutional().train()
    loss = cross_entropy(unguarded, y)
    pgd(lambda x: unguarded(x / 255), x, y, radius=20.0, steps=3)
    loss(x)
    assert not torch.equal(net[1].running_mean, unguarded[1].running_mean)


def test_in_evaluation_mode_nothing_is_remembered():
    net, (x, y) = convolutional().eval(), batch()
    before = [b.clone() for b in net.buffers()]
    adversarial_loss(cross_entropy(net, y), x, model=net, radius=20.0).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, net.buffers(), strict=True))


def test_a_search_in_low_precision_is_nearly_as_strong():
    net, (x, y) = convolutional().eval(), batch(60)
    loss = cross_entropy(net, y)
    clean, full, low = (
        loss(x).item(),
        *(
            adversarial_loss(loss, x, model=net, radius=20.0, alpha=0.0, inner=inner).item()
            for inner in ("float32", "bfloat16")
        ),
    )
    assert low - clean == pytest.approx(full - clean, rel=0.05)
    assert low != full


# --- the radius ----------------------------------------------------------------------------------------


def test_radii_follow_the_truncated_normal():
    found = draw_radius(4.0, rng(), 20_000)
    law = stats.truncnorm(0, 2, scale=2)
    assert found.min() >= 0
    assert found.max() <= 4
    assert found.mean().item() == pytest.approx(law.mean(), abs=0.02)
    assert stats.kstest(found.double().numpy(), law.cdf).pvalue > 0.01
    assert (
        stats.kstest(found.double().numpy(), stats.truncnorm(0, 4 / 2**0.5, scale=2**0.5).cdf).pvalue < 1e-6
    )


def test_a_largest_radius_of_0_is_0():
    assert draw_radius(0.0, rng()).item() == 0


# --- the learner ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["reuse", "fast", "noise", "free"])
def test_to_resume_is_as_if_nothing_had_stopped(tmp_path, scheme):
    data, settings = image_dataset(), {"scheme": scheme, "alpha": 0.0 if scheme == "free" else 0.5}
    whole = learner(**settings, epochs=3).fit(data, progress=False)
    file = tmp_path / "run.pt"
    learner(**settings, epochs=3).fit(data, epochs=1, checkpoint=file, progress=False)
    parts = learner(**settings, epochs=3).fit(data, checkpoint=file, progress=False)
    assert torch.equal(weights(whole.net), weights(parts.net))
    assert whole.history == parts.history


def test_free_training_takes_a_step_a_replay_and_keeps_its_perturbation():
    data = image_dataset()
    model = learner(scheme="free", alpha=0.0, replays=3, law="fixed", radius=7.0, epochs=1)
    model.fit(data, progress=False)
    batches = -(-len(data.trainval) // 8)
    assert {int(s["step"]) for s in model._adam.state.values()} == {3 * batches}
    assert model._delta.abs().max() <= 7
    assert model._delta.abs().max() > 6
    assert model.net.backbone.stem[1].num_batches_tracked == 3 * batches


def test_a_replay_by_hand():
    """L = 2 w mean(x): the slope in each pixel is w's sign, and that in w is twice the mean of x + δ."""
    net = nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, -1.0)
    x, delta = torch.full((2, 3), 100.0), torch.tensor([[1.0, 0.0, -3.0]]).repeat(2, 1)
    value, new = replay(lambda x: 2 * net.weight.sum() * x.mean(), x, delta, model=net, radius=2.0)
    value.backward()
    at = x + delta.clamp(-2, 2)
    assert value.item() == pytest.approx(-2 * at.mean().item())
    assert net.weight.grad.item() == pytest.approx(2 * at.mean().item())
    assert torch.equal(new, torch.tensor([[-1.0, -2.0, -2.0]]).repeat(2, 1))


def test_every_scheme_sees_the_same_batches():
    """Radii come from a generator of their own: controls differ in nothing else."""
    data, states = image_dataset(), []
    for settings in ({"alpha": 1.0}, {"scheme": "noise"}, {"scheme": "fast", "alpha": 0.0}):
        states.append(learner(**settings).fit(data, progress=False)._rng.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_a_frozen_backbone_is_attacked_through_but_not_moved():
    data = image_dataset()
    model = learner(freeze=True).fit(data, progress=False)
    for key, value in backbone().state_dict().items():
        assert torch.equal(model.net.backbone.state_dict()[key], value), key


@pytest.fixture(scope="module")
def fragile():
    """Class, the sign of a bright patch, is right in 9 of 10 images; forty faint pixels tell it always."""
    g = rng(8)
    y = torch.randint(2, (600,), generator=g)
    right = torch.rand(600, generator=g) < 0.9
    x = 127 + 8 * torch.randn(600, 1, 8, 8, generator=g)
    sign = 2.0 * y - 1
    x[:, 0, :, 3:] += 6 * sign[:, None, None]
    x[:, 0, :2, :2] += 60 * torch.where(right, sign, -sign)[:, None, None]
    return x.clamp(0, 255), y


@pytest.mark.parametrize(("alpha", "least", "most"), [(1.0, 0, 40), (0.5, 75, 100), (0.0, 80, 100)])
def test_training_makes_robust_where_that_can_be(fragile, alpha, least, most):
    x, y = fragile
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)

    def loss(x, y=y[:400]):
        return F.cross_entropy(net((x - 127) / 20), y)

    for _ in range(150):
        optimiser.zero_grad()
        adversarial_loss(loss, x[:400], model=net, radius=12.0, alpha=alpha).backward()
        optimiser.step()

    def scores(x):
        return net((x - 127) / 20)

    attacked = pgd(scores, x[400:], y[400:], radius=12.0)
    accuracy = 100 * (scores(attacked).argmax(1) == y[400:]).double().mean().item()
    assert least <= accuracy <= most


@pytest.mark.parametrize("kind", [AdversarialDEM, AdversarialLDF])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_dem_and_ldf_learn_end_to_end(kind, alpha):
    data = image_dataset(per_class=12)
    model = kind(
        alpha=alpha, radius=8.0, epochs=30, batch_size=16, lr=3e-3, device="cpu", backbone=backbone()
    )
    found = evaluate(model.fit(data), data)
    assert found.T1 > 85  # chance: 50
    assert found.AS > 60  # chance: 12.5
    x = data.images[data.test_unseen]
    torch.testing.assert_close(
        model.score_function(data.semantics)(x.float()).detach(), model.scores(x, data.semantics)
    )
    there = (x / 255).requires_grad_()
    (slope,) = torch.autograd.grad(model._compare(there, data.semantics)[:, 0].sum(), there)
    at = x.float().requires_grad_()
    (found,) = torch.autograd.grad(model.score_function(data.semantics)(at)[:, 0].sum(), at)
    torch.testing.assert_close(255 * found, slope, rtol=1e-4, atol=1e-5)
    attacked = pgd(model.score_function(data.semantics), x.float(), data.labels[data.test_unseen], radius=8.0)
    assert attacked.shape == x.shape


def test_the_attack_on_ldf_maximises_all_of_its_loss():
    data = image_dataset(per_class=12)
    model = AdversarialLDF(epochs=2, batch_size=16, device="cpu", backbone=backbone()).fit(data)
    x, y = data.images[data.trainval][:16].float(), data.labels[data.trainval][:16]
    s = data.semantics
    with torch.no_grad():
        clean = LDF._loss(model, x / 255, y, s).item()
    found = adversarial_loss(
        lambda x: LDF._loss(model, x / 255, y, s), x, model=model.net, radius=8.0, alpha=0.0
    )
    assert found.item() > clean


def test_dem_s_squares_shrink_the_features_when_the_image_network_learns_too():
    data, spread = image_dataset(per_class=12), {}
    x = data.images[data.trainval]
    settings = {"alpha": 1.0, "lam": 0.0, "epochs": 15, "batch_size": 16, "lr": 3e-3, "device": "cpu"}
    for objective in ("squares", "softmax"):
        model = AdversarialDEM(objective=objective, backbone=backbone(), **settings).fit(data)
        spread[objective] = model.net.theta.extract(x).var(0).sum().item()
        falls = model.history[-1] / model.history[0]
        assert falls < (0.1 if objective == "squares" else 0.9)
    assert spread["squares"] < 0.2 * spread["softmax"]


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": -0.1}, "alpha"),
        ({"radius": -1.0}, "radius"),
        ({"steps": 0}, "steps"),
        ({"scheme": "slow"}, "scheme"),
        ({"inner": "int8"}, "inner"),
    ],
)
def test_bad_settings_are_named(settings, words):
    net, (x, y) = convolutional(), batch()
    with pytest.raises(DataError, match=words):
        adversarial_loss(cross_entropy(net, y), x, model=net, **{"radius": 1.0} | settings)
    with pytest.raises(DataError, match=words):
        AdversarialConfig(**settings)
    with pytest.raises(DataError, match=words):
        AdversarialLDF(**settings)


def test_bad_images_and_losses_are_named():
    net, (x, y) = convolutional(), batch()
    with pytest.raises(DataError, match="255"):
        adversarial_loss(cross_entropy(net, y), x + 100, model=net, radius=1.0)
    for scheme in ("reuse", "plain"):
        with pytest.raises(DataError, match="gradient"):
            adversarial_loss(
                lambda x: net(x.round().detach()).mean(), x, model=net, radius=1.0, scheme=scheme
            )
    with pytest.raises(DataError, match="generator"):
        adversarial_loss(cross_entropy(net, y), x, model=net, radius=1.0, scheme="fast")
    with pytest.raises(DataError, match="free"):
        AdversarialConfig(scheme="free", alpha=0.5)
    data = image_dataset()
    data = replace(data, features=torch.rand(len(data), 8))
    with pytest.raises(DataError, match="features"):
        AdversarialLDF(backbone=backbone()).fit(data)
