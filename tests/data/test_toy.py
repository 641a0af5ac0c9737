"""The linear-Gaussian world against independent computations of the same densities."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsl_lib.data import load, toy
from zsl_lib.errors import DataError

DOUBLE = torch.float64


def make(seed: int, dim: int = 5, latent: int = 2, attributes: int = 3, sigma: float = 0.4):
    """A float64 world with 4 examples: ``(world, x, z, c)``."""
    rng = torch.Generator().manual_seed(seed)
    world = toy.linear_gaussian(dim, latent, attributes, sigma=sigma, generator=rng, dtype=DOUBLE)
    c = torch.rand(4, attributes, generator=rng, dtype=DOUBLE)
    x, z = world.sample(c, rng)
    return world, x, z, c


sizes = {
    "seed": st.integers(0, 2**32 - 1),
    "dim": st.integers(1, 6),
    "latent": st.integers(1, 8),
    "sigma": st.floats(0.05, 3),
}


@settings(deadline=None)
@given(**sizes)
def test_log_density_against_scipy(seed, dim, latent, sigma):
    world, x, _, c = make(seed, dim, latent, sigma=sigma)
    cov = world.W.numpy() @ world.W.numpy().T + sigma**2 * np.eye(dim)
    mean = c.numpy() @ world.A.numpy().T + world.b.numpy()
    expected = [
        scipy.stats.multivariate_normal(m, cov).logpdf(row) for m, row in zip(mean, x.numpy(), strict=True)
    ]
    np.testing.assert_allclose(world.log_prob(x, c).numpy(), expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(**sizes)
def test_posterior_against_conditioning_of_the_joint_gaussian(seed, dim, latent, sigma):
    """(z, x) is Gaussian with Cov[z, x] = Wᵀ; condition it on x by Schur's complement."""
    world, x, _, c = make(seed, dim, latent, sigma=sigma)
    w = world.W.numpy()
    gain = w.T @ np.linalg.inv(w @ w.T + sigma**2 * np.eye(dim))
    mean, cov = world.posterior(x, c)
    np.testing.assert_allclose(mean.numpy(), (x - world.mean(c)).numpy() @ gain.T, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(cov.numpy(), np.eye(latent) - gain @ w, rtol=1e-6, atol=1e-7)


def test_joint_is_marginal_times_posterior():
    world, x, z, c = make(3)
    mean, cov = world.posterior(x, c)
    log_z = [
        scipy.stats.multivariate_normal(m, cov.numpy()).logpdf(row)
        for m, row in zip(mean.numpy(), z.numpy(), strict=True)
    ]
    total = world.log_prob(x, c).numpy() + np.array(log_z)
    np.testing.assert_allclose(world.log_joint(x, z, c).numpy(), total, rtol=1e-10)


def test_gradient_of_joint_vanishes_at_the_posterior_mean():
    world, x, _, c = make(4)
    z = world.posterior(x, c)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(world.log_joint(x, z, c).sum(), z)
    assert gradient.abs().max() < 1e-10


def test_sample_moments():
    world, _, _, c = make(5, dim=3)
    x, z = world.sample(c[:1].expand(200_000, -1), torch.Generator().manual_seed(0))
    assert x.dtype == z.dtype == DOUBLE
    np.testing.assert_allclose(x.mean(0).numpy(), world.mean(c[:1])[0].numpy(), atol=0.02)
    np.testing.assert_allclose(torch.cov(x.T).numpy(), world.covariance().numpy(), atol=0.05)
    np.testing.assert_allclose(torch.cov(z.T).numpy(), np.eye(2), atol=0.02)


def test_same_generator_state_same_sample():
    world, _, _, c = make(6)
    a, b = (world.sample(c, torch.Generator().manual_seed(1))[0] for _ in range(2))
    assert torch.equal(a, b)


def test_dataset_of_a_float64_world():
    world, *_ = make(7)
    d = world.dataset(4, 2, per_class=10, generator=torch.Generator().manual_seed(0))
    assert d.features.dtype == d.semantics.dtype == torch.float32
    assert [len(i) for i in (d.trainval, d.test_seen, d.test_unseen)] == [32, 8, 20]
    assert d.instances["z"].shape == (60, 2)
    x = d.semantics.double()[d.labels] @ world.A.T + torch.tensor(d.instances["z"]) @ world.W.T + world.b
    assert (d.features - x).std().item() == pytest.approx(world.sigma, rel=0.15)  # only ε is left


def test_load_toy():
    d = load("toy")
    assert repr(d) == repr(load("toy"))
    assert torch.equal(d.features, load("toy").features)
    assert (d.name, len(d), d.features.shape[1], d.semantics.shape) == ("toy", 720, 16, (18, 8))
    assert (len(d.seen), len(d.unseen)) == (12, 6)
    assert len(d.tuning_split().unseen) == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: load("toy", images=True), "toy: images: found images=True, expected images=False"),
        (lambda: load("toy", semantics="sent"), "toy: semantics: found 'sent', expected 'att'"),
        (lambda: make(0, latent=0), "linear_gaussian: found dim 5, latent 0.*expected positive"),
        (lambda: make(0, sigma=0.0), "LinearGaussian: sigma: found 0.0, expected a positive number"),
        (
            lambda: toy.LinearGaussian(torch.ones(3, 2), torch.ones(2, 3), torch.ones(3), 1.0),
            r"LinearGaussian: found W \(3, 2\), A \(2, 3\), b \(3,\), expected W \[D, d\]",
        ),
        (
            lambda: make(0)[0].dataset(1, 2, generator=torch.Generator()),
            "LinearGaussian.dataset: found 1 seen, 2 unseen, 40 a class, expected at least 2, 2 and 5",
        ),
    ],
)
def test_bad_arguments(call, text):
    with pytest.raises(DataError, match=text):
        call()
