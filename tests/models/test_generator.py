"""The generator of paper 1: Eq. 1, Eq. 2 and the mask of §4.2."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from helpers import rng
from torch.distributions import Normal

from zsl_lib.errors import DataError
from zsl_lib.models import Generator, log_joint, log_likelihood, log_prior

K, D_Z, D_X, N, SIGMA = 5, 3, 7, 4, 0.3


@pytest.fixture
def net() -> Generator:
    """Float64, with weights large enough that both nonlinearities act."""
    g = rng(1)
    made = Generator(K, D_Z, D_X, hidden=11, generator=g).double()
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return made


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, c, z in float64."""
    g = rng(2)
    return tuple(torch.randn(N, d, generator=g, dtype=torch.float64) for d in (D_X, K, D_Z))


def test_parameter_count_is_the_papers_table_3():
    net = Generator(312, 10, 2048, hidden=4096)
    assert sum(p.numel() for p in net.parameters()) == 9_713_664  # "9.71M"


def test_forward_is_the_mlp_on_the_concatenated_input(net, batch):
    _, c, z = batch
    hidden = torch.cat([c, z], 1) @ net.inner.weight.T + net.inner.bias
    hidden = hidden.where(hidden > 0, 0.2 * hidden)
    expected = (hidden @ net.outer.weight.T + net.outer.bias).clamp(min=0)
    torch.testing.assert_close(net(c, z), expected)
    assert (expected == 0).any(), "the output's ReLU should act in this test"
    assert (expected > 0).any()


def test_initial_weights_have_the_documented_scale_and_zero_biases():
    net = Generator(200, 10, 300, hidden=400, generator=rng())
    for layer in (net.inner, net.outer):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()


def test_same_seed_same_weights_and_other_seed_others():
    a, b, c = (Generator(K, D_Z, D_X, hidden=8, generator=rng(s)).inner.weight for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_construction_and_sampling_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    net = Generator(K, D_Z, D_X, hidden=8, generator=rng())
    net.sample(torch.rand(2, K, generator=rng()), 3, sigma=0.1, generator=rng())
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_free_samples_are_g_of_prior_latents_class_by_class(net):
    c = torch.randn(2, K, generator=rng(3), dtype=torch.float64)
    found = net.sample(c, 4, generator=rng(5))
    z = torch.randn(8, D_Z, generator=rng(5), dtype=torch.float64).view(2, 4, D_Z)
    assert found.shape == (2, 4, D_X)
    assert not found.requires_grad
    for i in range(2):
        torch.testing.assert_close(found[i], net(c[i].expand(4, K), z[i]))


def test_sample_noise_has_mean_zero_and_standard_deviation_sigma(net):
    c, n = torch.randn(2, K, generator=rng(3), dtype=torch.float64), 20_000
    noise = net.sample(c, n, sigma=0.7, generator=rng(5)) - net.sample(c, n, generator=rng(5))
    count = noise.numel()
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.7 / math.sqrt(count))
    assert float(noise.std()) == pytest.approx(0.7, abs=5 * 0.7 / math.sqrt(2 * count))


def test_sample_mean_is_the_mean_over_the_prior():
    """One linear unit with output w z + a c + b > 0, so the mean and variance of Eq. 1 are known."""
    net = Generator(1, 1, 1, hidden=1).double()
    for p, value in zip(net.parameters(), ([[2.0, 0.1]], [3.0], [[1.0]], [0.5]), strict=True):
        p.data = torch.tensor(value, dtype=torch.float64)
    n, sigma = 100_000, 0.2
    x = net.sample(torch.tensor([[1.0]], dtype=torch.float64), n, sigma=sigma, generator=rng()).flatten()
    variance = 0.1**2 + sigma**2
    assert float(x.mean()) == pytest.approx(5.5, abs=5 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / n))


def test_log_joint_is_the_normal_densities_up_to_the_known_constant(net, batch):
    x, c, z = batch
    exact = Normal(net(c, z), SIGMA).log_prob(x).sum(1) + Normal(0.0, 1.0).log_prob(z).sum(1)
    constant = -D_X * math.log(SIGMA * math.sqrt(2 * math.pi)) - D_Z * math.log(2 * math.pi) / 2
    torch.testing.assert_close(log_joint(x, net(c, z), z, SIGMA) + constant, exact)


def test_masked_log_joint_is_the_density_of_the_observed_entries(net, batch):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5
    found = log_joint(x, net(c, z), z, SIGMA, mask)
    for i in range(N):
        seen = mask[i]
        exact = log_joint(x[i : i + 1, seen], net(c, z)[i : i + 1, seen], z[i : i + 1], SIGMA)
        torch.testing.assert_close(found[i : i + 1], exact)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_values_under_the_mask_change_neither_the_value_nor_a_gradient(net, batch, junk):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5

    def value_and_gradients(x):
        at = z.clone().requires_grad_()
        value = log_joint(x, net(c, at), at, SIGMA, mask)
        return value, *torch.autograd.grad(value.sum(), [at, *net.parameters()])

    clean, dirty = value_and_gradients(x), value_and_gradients(x.where(mask, junk))
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert all(a.isfinite().all() for a in dirty)


def test_gradient_is_exactly_zero_in_masked_entries(net, batch):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5
    mean = net(c, z).detach().requires_grad_()
    x = x.clone().requires_grad_()
    for gradient in torch.autograd.grad(log_joint(x, mean, z, SIGMA, mask).sum(), [x, mean]):
        assert not gradient[~mask].any()
        assert gradient[mask].all()


def test_a_row_with_nothing_observed_has_only_the_priors_energy(net, batch):
    x, c, z = batch
    mask = torch.ones(x.shape, dtype=torch.bool)
    mask[1] = False
    z = z.clone().requires_grad_()
    value = log_joint(x, net(c, z), z, SIGMA, mask)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(value[1], -z[1].square().sum() / 2)
    torch.testing.assert_close(gradient[1], -z[1].detach())


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_agree_with_finite_differences(net, batch, masked):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5 if masked else None
    names = [name for name, _ in net.named_parameters()]

    def energy(z, *weights):
        mean = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (c, z))
        return log_joint(x, mean, z, SIGMA, mask)

    inputs = [z.clone().requires_grad_(), *copy.deepcopy(net).parameters()]
    assert torch.autograd.gradcheck(energy, inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_log_likelihood_and_log_prior_are_normal_densities(net, batch, masked):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5 if masked else torch.ones(x.shape, dtype=torch.bool)
    entries = Normal(net(c, z), SIGMA).log_prob(x).where(mask, 0.0)
    found = log_likelihood(x, net(c, z), SIGMA, mask if masked else None)
    torch.testing.assert_close(found, entries.sum(1))
    torch.testing.assert_close(log_prior(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_densities_take_leading_dimensions(net, batch):
    x, c, z = batch
    many = torch.stack([z, 2 * z])
    means = torch.stack([net(c, z), net(c, 2 * z)])
    found = log_likelihood(x, means, SIGMA) + log_prior(many)
    for i in range(2):
        torch.testing.assert_close(found[i], log_likelihood(x, means[i], SIGMA) + log_prior(many[i]))


def test_the_complete_data_log_likelihood_differs_by_the_same_constant_everywhere(net, batch):
    x, c, z = batch
    mask = torch.rand(x.shape, generator=rng(7)) < 0.5
    difference = log_likelihood(x, net(c, z), SIGMA, mask) + log_prior(z)
    difference = difference - log_joint(x, net(c, z), z, SIGMA, mask)
    constant = -mask.sum(1) * math.log(SIGMA * math.sqrt(2 * math.pi)) - D_Z * math.log(2 * math.pi) / 2
    torch.testing.assert_close(difference, constant.double())


@pytest.mark.parametrize(
    ("n", "sigma", "message"), [(0, 0.0, "samples a class"), (2, -1.0, "sigma: found -1.0")]
)
def test_a_sample_out_of_range_is_a_data_error(n, sigma, message):
    with pytest.raises(DataError, match=message):
        Generator(4, 3, 6, hidden=8).sample(torch.zeros(2, 4), n, sigma=sigma)
