"""Learning from incomplete features (paper 1, §4.2): the masked posterior, examples and dimensions that are
never observed, imputers, and the GAN whose critic sees what is observed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from torch import nn

from zsl_lib import impute
from zsl_lib.data import ZSLDataset, masks, toy
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, CVAE, ABPConfig, CVAEConfig
from zsl_lib.learn.gan import GANConfig
from zsl_lib.learn.masked import MaskedGAN
from zsl_lib.models import Generator, log_joint

SMALL = {"latent_dim": 3, "hidden": 16, "batch_size": 8, "epochs": 2}


def incomplete(ratio: float = 0.5, seed: int = 1) -> ZSLDataset:
    data = small_dataset()
    return masks.hide(data, masks.random(data.features[data.trainval], ratio, rng(seed)))


def all_learners() -> list:
    abp = ABP(ABPConfig(**SMALL, step_size=0.1), device="cpu")
    vae = CVAE(CVAEConfig(**SMALL, encoder_hidden=16), device="cpu")
    gan = MaskedGAN(GANConfig(**SMALL, critic_hidden=16, critic_steps=2, head_epochs=2), device="cpu")
    return [abp, vae, gan]


class World(nn.Module):
    """The mean of a linear-Gaussian world as a network."""

    def __init__(self, world: toy.LinearGaussian) -> None:
        super().__init__()
        self.world, self.unused = world, nn.Parameter(torch.zeros(1))

    def forward(self, c, z):
        return self.world.mean(c) + z @ self.world.W.T


# --- the posterior -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [[0, 1, 2, 3, 4], [0, 2, 3], [1], []])
def test_langevin_with_a_mask_samples_the_posterior_of_the_observed_entries(seen):
    """Against the closed form of the world from which the hidden rows are dropped; the prior without any."""
    world = toy.linear_gaussian(5, 2, 3, generator=rng(2))
    c = torch.rand(1, 3, generator=rng(3))
    x, _ = world.sample(c, rng(4))
    mask = torch.zeros(1, 5, dtype=torch.bool)
    mask[:, seen] = True
    config = ABPConfig(2, sigma=world.sigma, langevin_steps=400, step_size=0.1, epochs=0)
    model = ABP(config, device="cpu", network=lambda *_: World(world)).fit(small_dataset(), progress=False)
    many = [t.expand(3000, -1) for t in (x.where(mask, math.nan), c, mask)]
    z, _ = model.infer(torch.randn(3000, 2, generator=rng(5)), *many, generator=rng(6))
    mean, cov = torch.zeros(1, 2), torch.eye(2)
    if seen:
        dropped = toy.LinearGaussian(world.W[seen], world.A[seen], world.b[seen], world.sigma)
        mean, cov = dropped.posterior(x[:, seen], c)
    scale = cov.diagonal().sqrt()
    assert ((z.mean(0) - mean[0]).abs() < 0.1 * scale).all()
    assert torch.allclose(z.T.cov(), cov, atol=0.1 * float(cov.max()))


def test_less_observed_is_a_wider_posterior():
    world = toy.linear_gaussian(8, 3, 2, generator=rng(1), dtype=torch.float64)
    c, last = torch.rand(1, 2, generator=rng(2), dtype=torch.float64), 0.0
    x, _ = world.sample(c, rng(3))
    for n in (8, 5, 3, 1):
        part = toy.LinearGaussian(world.W[:n], world.A[:n], world.b[:n], world.sigma)
        trace = float(part.posterior(x[:, :n], c)[1].trace())
        assert last < trace < 3
        last = trace


# --- what is never observed ----------------------------------------------------------------------------


def test_an_example_without_an_observed_entry_changes_no_gradient():
    net = Generator(4, 3, 6, hidden=16, generator=rng())
    x, c, z = (torch.rand(5, n, generator=rng(n)) for n in (6, 4, 3))
    mask = torch.rand(5, 6, generator=rng(9)) < 0.5
    mask[2] = False
    kept = torch.tensor([0, 1, 3, 4])

    def gradients(rows):
        value = log_joint(x[rows], net(c[rows], z[rows]), z[rows], 0.3, mask[rows]).sum()
        return torch.autograd.grad(value, list(net.parameters()))

    for a, b in zip(gradients(torch.arange(5)), gradients(kept), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert b.any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_latents_of_examples_without_an_observed_entry_are_the_priors(precision):
    data = small_dataset()
    mask = torch.ones(len(data.trainval), 6, dtype=torch.bool)
    mask[::2] = False
    config = ABPConfig(**SMALL | {"epochs": 40}, step_size=0.3, precision=precision)
    z = []
    model = ABP(config, device="cpu")
    model.fit(masks.hide(data, mask), progress=False, after_epoch=lambda m: z.append(m.z[::2].clone()))
    draws = torch.stack(z[5:])
    assert abs(float(draws.mean())) < 0.1
    assert float(draws.var()) == pytest.approx(1 / (1 - 0.3**2 / 4), abs=0.1)  # the discrete chain's variance


@pytest.mark.parametrize("junk", [0.0, 1e30, math.nan])
def test_learners_never_look_under_the_mask(junk):
    clean = incomplete()
    dirty = replace(clean, features=clean.features.where(clean.mask, junk))
    for a, b in zip(all_learners(), all_learners(), strict=True):
        a.fit(clean, progress=False)
        b.fit(dirty, progress=False)
        for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
            assert torch.equal(p, q)
            assert p.isfinite().all()


@pytest.mark.parametrize("what", ["rows", "columns", "everything", "a class"])
def test_learners_survive_what_is_never_observed(what):
    data = small_dataset()
    mask = torch.ones(len(data.trainval), 6, dtype=torch.bool)
    if what == "a class":
        mask[data.labels[data.trainval] == data.seen[0]] = False
    elif what == "columns":
        mask[:, :2] = False
    else:
        mask[: 12 if what == "rows" else None] = False
    hidden = masks.hide(data, mask).scaled()
    for model in all_learners():
        made = model.fit(hidden, progress=False).sample(data.semantics, 4, rng())
        assert made.isfinite().all()


def test_no_weight_of_a_dimension_moves_that_is_never_observed():
    data = small_dataset()
    mask = torch.ones(len(data.trainval), 6, dtype=torch.bool)
    mask[:, 4] = False
    model = ABP(ABPConfig(**SMALL, step_size=0.1), device="cpu")
    start = model.fit(data, epochs=0).net.outer.weight.detach().clone()
    end = model.fit(masks.hide(data, mask), progress=False).net.outer.weight.detach()
    moved = (end != start).any(1)
    assert moved.tolist() == [True] * 4 + [False, True]


# --- filling in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", impute.METHODS)
def test_what_is_observed_stays_and_the_rest_becomes_finite(method):
    data = incomplete(0.6)
    dirty = replace(data, features=data.features.where(data.mask, math.nan))
    filled = impute.fill(dirty, method)
    assert filled.mask is None
    assert torch.equal(filled.features[data.mask], data.features[data.mask])
    assert filled.features.isfinite().all()
    assert torch.equal(filled.features, impute.fill(data, method).features), "hidden values are not used"


def test_zero_mean_and_class_mean_are_what_they_say():
    data = incomplete(0.4)
    index, labels = data.trainval, data.labels[data.trainval]
    x, mask = data.features[index], data.mask[index]
    assert not impute.fill(data, "zero").features[index][~mask].any()
    mean, by_class = (impute.fill(data, m).features[index] for m in ("mean", "class_mean"))
    for i, k in (~mask).nonzero().tolist():
        column, seen = x[:, k], mask[:, k]
        assert mean[i, k] == pytest.approx(float(column[seen].mean()), abs=1e-5)
        own = seen & (labels == labels[i])
        expected = column[own if own.any() else seen].mean()
        assert by_class[i, k] == pytest.approx(float(expected), abs=1e-5)


def test_knn_takes_the_mean_of_the_five_nearest_that_show_the_dimension():
    """Five examples beside the incomplete one, and many far away."""
    data = small_dataset()
    index = data.trainval
    features = data.features.clone()
    features[index] = 10 + torch.rand(len(index), 6, generator=rng())
    features[index[:6]] = torch.rand(6, 6, generator=rng(1))
    mask = torch.ones(len(index), 6, dtype=torch.bool)
    mask[0, 3] = False
    filled = impute.fill(masks.hide(replace(data, features=features), mask), "knn")
    assert filled.features[index[0], 3] == pytest.approx(float(features[index[1:6], 3].mean()), abs=1e-5)


def test_a_dimension_without_values_and_a_test_example_are_filled_from_training():
    data = small_dataset()
    mask = torch.ones(len(data), 6, dtype=torch.bool)
    mask[data.trainval, 2] = False
    mask[data.test_unseen, 1] = False
    hidden = masks.hide(data, mask, torch.arange(len(data)))
    for method in impute.METHODS:
        assert not impute.fill(hidden, method).features[data.trainval, 2].any()
    filled = impute.fill(hidden, "class_mean").features[data.test_unseen, 1]
    assert torch.allclose(filled, data.features[data.trainval, 1].mean().expand(len(filled)))


def test_complete_data_stay_as_they_are_and_bad_names_are_refused():
    data = small_dataset()
    assert impute.fill(data, "knn") is data
    with pytest.raises(
        DataError, match="fill: method: found 'median', expected one of zero, mean, class_mean, knn"
    ):
        impute.fill(data, "median")
    pictures = replace(data, features=None, images=torch.zeros(72, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match="features: found none"):
        impute.fill(pictures, "zero")


def test_expected_features_are_the_posterior_means_of_a_linear_world():
    world = toy.linear_gaussian(8, 2, 3, generator=rng(2))
    full = world.dataset(per_class=10, generator=rng(3))
    data = masks.hide(full, masks.random(full.features[full.trainval], 0.5, rng(4)))
    config = ABPConfig(2, sigma=world.sigma, langevin_steps=50, step_size=0.1, epochs=0)
    model = ABP(config, device="cpu", network=lambda *_: World(world)).fit(data, progress=False)
    before = model.z.clone()
    found = impute.expected(model, data, visits=200)
    c = data.semantics[data.labels[data.trainval]]
    mask = data.mask[data.trainval]
    for i in range(0, len(c), 20):
        seen = mask[i]
        dropped = toy.LinearGaussian(world.W[seen], world.A[seen], world.b[seen], world.sigma)
        mean, cov = dropped.posterior(data.features[data.trainval[i], seen][None], c[i : i + 1])
        exact = world.mean(c[i : i + 1]) + mean @ world.W.T
        scale = (world.W @ cov @ world.W.T).diagonal().sqrt()
        assert ((found[i] - exact[0]).abs() < 0.35 * scale + 0.02).all()
    assert torch.equal(model.z, before), "training's latents stay"
    with pytest.raises(DataError, match="expected: visits: found 0"):
        impute.expected(model, data, visits=0)


# --- the masked GAN ------------------------------------------------------------------------------------


def test_without_holes_the_masked_gan_is_the_gan():
    data = small_dataset()
    full = replace(data, mask=torch.ones_like(data.features, dtype=torch.bool))
    a, b = all_learners()[2].fit(data, progress=False), all_learners()[2].fit(full, progress=False)
    for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_critic_sees_no_more_of_a_fake_than_of_the_real_one(monkeypatch):
    data, shown = incomplete(), []
    model = all_learners()[2]
    learn = model.learn_critic

    def look(batch, fake):
        shown.append((batch.x, fake, model._observed))
        return learn(batch, fake)

    monkeypatch.setattr(model, "learn_critic", look)
    model.fit(data, progress=False)
    assert len(shown) > 4
    for x, fake, mask in shown:
        assert not x[~mask].any()
        assert not fake[~mask].any()
        assert (x[mask] > 0).all()
    made = model.sample(data.semantics, 50, rng())
    assert (made > 0).any(1).any(0).all(), "synthetic features are complete after training"
