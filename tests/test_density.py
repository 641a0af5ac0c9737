"""Measures of a generator as a density, on worlds where the truth is known."""

from __future__ import annotations

import pytest
import torch
from helpers import World, rng

from zsl_lib import density
from zsl_lib.data import masks
from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig


@pytest.fixture(scope="module")
def truth():
    g = rng(3)
    world = linear_gaussian(8, 2, 3, sigma=0.4, generator=g)
    data = world.dataset(seen=10, unseen=3, per_class=100, generator=g)
    config = ABPConfig(latent_dim=2, sigma=0.4, step_size=0.1, langevin_steps=20, lr=0.0)
    model = ABP(config, seed=0, device="cpu", network=lambda k, d, dim, rng: World(world))
    return world, data, model.fit(data, epochs=15, progress=False)


def test_the_likelihood_is_the_closed_form(truth):
    world, data, model = truth
    x, c = data.x(data.test_seen), data.semantics[data.labels[data.test_seen]]
    exact = world.log_prob(x, c).mean().item()
    assert density.mean_log_likelihood(model, data, data.test_seen) == pytest.approx(exact, abs=0.02)


def test_another_sigma_is_another_world(truth):
    world, data, model = truth
    other = LinearGaussian(world.W, world.A, world.b, 0.7)
    x, c = data.x(data.test_seen), data.semantics[data.labels[data.test_seen]]
    found = density.mean_log_likelihood(model, data, data.test_seen, sigma=0.7)
    assert found == pytest.approx(other.log_prob(x, c).mean().item(), abs=0.02)


def test_the_fitted_sigma_is_that_of_the_world(truth):
    _, data, model = truth
    assert density.fitted_sigma(model, data, data.trainval) == pytest.approx(0.4, rel=0.03)


def test_without_latents_likelihood_and_sigma_are_those_of_a_regression(truth):
    world, data, _ = truth
    net = World(LinearGaussian(world.W[:, :0], world.A, world.b, 1.0))
    model = ABP(ABPConfig(latent_dim=0), device="cpu", network=lambda *_: net)
    model.fit(data, epochs=0, progress=False)
    x, c = data.x(data.trainval), data.semantics[data.labels[data.trainval]]
    residual = (x - world.mean(c)).square().mean().sqrt().item()
    assert density.fitted_sigma(model, data, data.trainval) == pytest.approx(residual, rel=0.03)
    expected = torch.distributions.Normal(world.mean(c), 0.3).log_prob(x).sum(1).mean().item()
    assert density.mean_log_likelihood(model, data, data.trainval) == pytest.approx(expected, rel=1e-4)
    assert density.latent_gap(model, data) == 0


def test_the_spread_is_one_share_of_the_variance(truth):
    """Without ε a class's variance is tr WWᵀ, of the real tr WWᵀ + Dσ²."""
    world, data, model = truth
    latent = world.W.square().sum().item()
    expected = latent / (latent + 8 * 0.4**2)
    assert density.spread(model, data, data.trainval, samples=3000) == pytest.approx(expected, rel=0.1)


def test_latents_after_long_chains_have_no_gap_and_the_priors_have_one(truth):
    _, data, model = truth
    assert density.latent_gap(model, data) == pytest.approx(0, abs=0.25)
    kept = model.z
    model.z = torch.randn(kept.shape, generator=rng(1))
    assert density.latent_gap(model, data) > 2
    model.z = kept


def test_held_out_rows_are_evenly_spaced():
    index = torch.arange(10, 20)
    assert density.held_out(index, 5).tolist() == [10, 12, 14, 16, 18]
    assert density.held_out(index, 50).tolist() == index.tolist()
    with pytest.raises(DataError, match="held_out: n: found 0"):
        density.held_out(index, 0)


def test_spread_without_a_class_of_five_is_a_data_error(truth):
    _, data, model = truth
    with pytest.raises(DataError, match="no class with 5 examples"):
        density.spread(model, data, data.trainval[:3])


@pytest.mark.parametrize("measure", [density.mean_log_likelihood, density.fitted_sigma, density.spread])
def test_hidden_features_are_a_data_error_and_not_zeros(truth, measure):
    _, data, model = truth
    mask = masks.random(data.features[data.trainval], 0.5, rng(0))
    with pytest.raises(DataError, match=r"mask: found hidden features.*zsl_lib\.impute"):
        measure(model, masks.hide(data, mask), data.trainval)


def test_hidden_features_of_other_examples_do_not_matter(truth):
    _, data, model = truth
    holes = masks.hide(data, masks.random(data.features[data.trainval], 0.5, rng(0)))
    found = density.mean_log_likelihood(model, holes, data.test_seen)
    assert found == density.mean_log_likelihood(model, data, data.test_seen)
