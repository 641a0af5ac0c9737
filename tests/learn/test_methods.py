"""The methods by name."""

from __future__ import annotations

import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.errors import DataError
from zsl_lib.learn.methods import METHODS, learner
from zsl_lib.metrics import evaluate

SHARED = {
    "hidden": 16,
    "encoder_hidden": 12,
    "critic_hidden": 12,
    "langevin_steps": 3,
    "epochs": 2,
    "latent_dim": 3,
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_samples_and_recognises(name):
    data = small_dataset()
    model = learner(name, SHARED, seed=3, device="cpu").fit(data, progress=False)
    assert len(model.history) == 2
    made = model.sample(data.semantics, 4, rng())
    assert made.shape == (8, 4, 6)
    assert made.isfinite().all()
    assert (made >= 0).all()
    found = evaluate(SyntheticRecogniser(model, samples=20).remember(data), data)
    assert all(0 <= value <= 100 for value in found)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_the_same_again_at_the_same_seed(name):
    data = small_dataset()
    one, same, other = (
        learner(name, SHARED, seed=s, device="cpu").fit(data, progress=False) for s in (1, 1, 2)
    )
    samples = [m.sample(data.semantics, 3, rng()) for m in (one, same, other)]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("name", METHODS)
def test_each_method_ends_with_an_error_where_it_diverges(name):
    shared = SHARED | {"epochs": 30}
    with pytest.raises(ArithmeticError, match=r"epoch|step_size"):
        learner(name, shared, device="cpu", lr=1e30).fit(small_dataset(), progress=False)


def test_shared_settings_go_where_they_mean_the_same():
    shared = {"epochs": 7, "sigma": 0.2, "latent_dim": 5, "langevin_steps": 2, "nobody_has": 1}
    abp, fgzsl = (learner(name, shared, device="cpu").config for name in ("abp", "fgzsl"))
    assert (abp.epochs, abp.sigma, abp.latent_dim, abp.langevin_steps) == (7, 0.2, 5, 2)
    assert fgzsl.epochs == 7
    assert fgzsl.latent_dim is None, "a GAN's noise keeps its dimension"
    assert learner("fgzsl", shared, device="cpu", latent_dim=9).config.latent_dim == 9


def test_an_unknown_method_or_setting_is_a_data_error():
    with pytest.raises(DataError, match="method: found 'gan', expected one of abp, cvae, vzsl, fgzsl"):
        learner("gan")
    with pytest.raises(DataError, match="fgzsl: settings: found sigma, expected auxiliary, batch_size"):
        learner("fgzsl", sigma=0.3)
