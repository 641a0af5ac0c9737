"""Paper 1, §3, equation by equation: each has a test here or, where a module's tests pin it, a line below.

A reader who doubts an equation finds its check in one place. PINNED names the others; a test looks that they
are still there.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from helpers import rng
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.nn import functional as F

from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.likelihood import Joint, quadrature
from zsl_lib.models import Generator, log_joint
from zsl_lib.models.generator import ancestral_sample, log_likelihood, log_prior

DOUBLE = torch.float64

PINNED = {
    "Eq. 1, by hand": "models/test_generator.py"
    "::test_noise_free_samples_are_g_of_prior_latents_class_by_class",
    "Eq. 2, its constant": "models/test_generator.py"
    "::test_log_joint_is_the_normal_densities_up_to_the_known_constant",
    "Eq. 2, its gradients": "models/test_generator.py::test_gradients_agree_with_finite_differences",
    "Eq. 2 with the mask of §4.2": "models/test_generator.py"
    "::test_masked_log_joint_is_the_density_of_the_observed_entries",
    "Eq. 3, by quadrature": "learn/test_likelihood.py::test_quadrature_is_exact_on_the_linear_world",
    "Eq. 3, by importance sampling": "learn/test_likelihood.py"
    "::test_importance_and_annealed_agree_with_quadrature_on_a_bent_network",
    "Eq. 6, one step": "learn/test_langevin.py::test_one_step_is_eq_6_by_hand",
    "Eq. 6, as printed": "learn/test_langevin.py"
    "::test_the_step_on_the_generator_is_the_formula_printed_in_eq_6",
    "Eq. 6, in training": "learn/test_abp.py"
    "::test_inference_conditions_once_and_gives_the_chain_of_the_full_network",
    "Eq. 7, with Adam": "learn/test_abp.py::test_the_first_learning_step_is_adams",
    "Eq. 8, by differences": "learn/test_abp.py"
    "::test_the_learning_gradient_of_eq_8_agrees_with_finite_differences",
    "Algorithm 1": "learn/test_abp.py::test_learning_brings_the_exact_likelihood_to_that_of_the_true_world",
}


@pytest.mark.parametrize("where", PINNED.values(), ids=PINNED)
def test_an_equation_pinned_elsewhere_still_is(where: str):
    file, name = where.split("::")
    assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


class Linear(nn.Module):
    """g(c, z) = A c + W z + b with the weights of a world, whose densities are in closed form."""

    def __init__(self, world: LinearGaussian) -> None:
        super().__init__()
        self.W, self.A, self.b = (nn.Parameter(p.clone()) for p in (world.W, world.A, world.b))
        self.latent_dim = world.W.shape[1]

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return c @ self.A.T + z @ self.W.T + self.b


def a_world(n: int, *, seed: int = 0, sigma: float = 0.4) -> tuple[LinearGaussian, Tensor, Tensor]:
    """A float64 world (D = 5, d = 2, K = 3) with n examples x ``[n, 5]`` and their c ``[n, 3]``."""
    g = rng(seed)
    world = linear_gaussian(5, 2, 3, sigma=sigma, generator=g, dtype=DOUBLE)
    c = torch.rand(n, 3, generator=g, dtype=DOUBLE)
    return world, world.sample(c, g)[0], c


def a_bent_net(K: int, d: int, D: int, width: int = 9) -> Generator:
    """A float64 generator with weights so large that both nonlinearities act."""
    g = rng(1)
    net = Generator(K, d, D, width, generator=g).double()
    for p in net.parameters():
        p.data = 0.7 * torch.randn(p.shape, generator=g, dtype=DOUBLE)
    return net


# --- Eq. 1: z ~ N(0, I), x = g(c, z) + ε ---------------------------------------------------------------


def test_eq_1_ancestral_samples_of_a_linear_net_have_the_closed_forms_moments():
    """Mean A c + b, covariance WWᵀ + σ² I: entry by entry, in standard errors (Wishart's for the second)."""
    world, _, c = a_world(2)
    n, cov = 100_000, world.covariance()
    x = ancestral_sample(Linear(world), c, n, 2, sigma=world.sigma, generator=rng(5))
    error = ((cov.diagonal().outer(cov.diagonal()) + cov**2) / n).sqrt()
    for i in range(2):
        z_mean = (x[i].mean(0) - world.mean(c[i : i + 1])[0]) / (cov.diagonal() / n).sqrt()
        assert z_mean.abs().max() < 4.5
        assert ((torch.cov(x[i].T) - cov) / error).abs().max() < 4.5


def test_eq_1_divides_the_variance_within_a_class_between_z_and_the_noise():
    """The law of total variance, on a network, with independent draws for each side."""
    net, sigma, n = a_bent_net(4, 3, 6), 0.3, 500
    c = torch.rand(100, 4, generator=rng(2), dtype=DOUBLE)
    whole = net.sample(c, n, sigma=sigma, generator=rng(3)).var(1).mean(1)
    from_z = net.sample(c, n, generator=rng(4)).var(1).mean(1)
    off = whole - from_z - sigma**2
    assert abs(float(off.mean() / off.std() * len(c) ** 0.5)) < 4.5


# --- Eq. 2: the complete-data log-likelihood -----------------------------------------------------------


def test_eq_2_with_its_constant_integrates_to_one_over_x_and_z():
    net, sigma = a_bent_net(2, 1, 1), 0.3
    z = torch.linspace(-8, 8, 1001, dtype=DOUBLE)
    c = torch.rand(1, 2, generator=rng(), dtype=DOUBLE).expand(1001, -1)
    with torch.no_grad():
        mean = net(c, z[:, None])[:, None]  # [1001, 1, 1]
        x = mean + sigma * z[:, None]  # within ±8 σ of each mean: [1001, 1001, 1]
        log_p = log_likelihood(x, mean, sigma) + log_prior(z[:, None])[:, None]
    assert float(log_p.exp().sum() * 0.016 * 0.016 * sigma) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_eq_2_has_the_gradients_that_the_chapter_derives_by_hand(masked):
    """δ = M ∘ (x − g) ∘ 1[m > 0] / σ² and η = Bᵀδ ∘ φ'(h): ∇_z = Wᵀη − z, and outer products in θ."""
    net, sigma, g = a_bent_net(4, 3, 6), 0.3, rng(2)
    x, c, z = (torch.randn(5, k, generator=g, dtype=DOUBLE) for k in (6, 4, 3))
    mask = torch.rand(x.shape, generator=g) < 0.6 if masked else None
    z.requires_grad_()
    log_joint(x, net(c, z), z, sigma, mask).sum().backward()
    with torch.no_grad():
        h = torch.cat([c, z], 1) @ net.inner.weight.T + net.inner.bias
        m = F.leaky_relu(h, 0.2) @ net.outer.weight.T + net.outer.bias
        delta = (x - m.clamp(min=0)) / sigma**2 * (m > 0) * (1 if mask is None else mask)
        eta = (delta @ net.outer.weight) * torch.ones_like(h).where(h > 0, 0.2)
        expected = {
            "inner.weight": eta.T @ torch.cat([c, z], 1),
            "inner.bias": eta.sum(0),
            "outer.weight": delta.T @ F.leaky_relu(h, 0.2),
            "outer.bias": delta.sum(0),
        }
        torch.testing.assert_close(z.grad, eta @ net.inner.weight[:, 4:] - z)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


# --- Eq. 3 and 4: the observed-data log-likelihood -----------------------------------------------------


def test_eq_3_the_mean_of_p_x_given_z_over_the_prior_is_the_closed_form():
    world, x, c = a_world(4, sigma=1.0)
    n, net = 200_000, Linear(world)
    z = torch.randn(n, 1, 2, generator=rng(3), dtype=DOUBLE)
    with torch.no_grad():
        p = log_likelihood(x, net(c, z), world.sigma).exp()  # [n, 4]
    z_scores = (p.mean(0) - world.log_prob(x, c).exp()) / (p.std(0) / n**0.5)
    assert z_scores.abs().max() < 4.5
    assert (p.std(0) / n**0.5 / p.mean(0)).max() < 0.02, "the error is small enough for a test"


def test_eq_4_with_the_entropy_estimates_minus_the_kl_divergence():
    """L(θ)/n + H(q) → −KL(q ‖ p_θ): over 200 samples of 100, standardised, it is unbiased and calibrated."""
    (q, x, c), (other, _, _) = a_world(20_000, seed=0), a_world(1, seed=1)
    t = 0.2  # from q towards the other world
    p = LinearGaussian(*(a + t * (b - a) for a, b in zip(_weights(q), _weights(other), strict=True)), 0.4)
    normal_q = MultivariateNormal(q.mean(c), q.covariance())
    kl = kl_divergence(normal_q, MultivariateNormal(p.mean(c), p.covariance()))
    terms = (p.log_prob(x, c) + normal_q.entropy() + kl).view(200, 100)
    z_scores = terms.mean(1) / (terms.std(1) / 10)
    assert float(kl.mean()) > 0.5
    assert abs(float(z_scores.mean())) < 4.5 / 200**0.5
    assert float(z_scores.std()) == pytest.approx(1, abs=0.25)


def _weights(world: LinearGaussian) -> tuple[Tensor, Tensor, Tensor]:
    return world.W, world.A, world.b


# --- Eq. 5: the gradient is the posterior mean of the complete data's gradient -------------------------


def _expected_gradient(
    world: LinearGaussian, x: Tensor, c: Tensor, mean_z: Tensor, mean_zz: Tensor
) -> list[Tensor]:
    """E ∇ log p(x, z | c) in W, A, b, summed over rows, from E z ``[n, d]`` and E zzᵀ ``[n, d, d]``."""
    r = x - world.mean(c)
    error = (r - mean_z @ world.W.T) / world.sigma**2
    in_w = (r.T @ mean_z - world.W @ mean_zz.sum(0)) / world.sigma**2
    return [in_w, error.T @ c, error.sum(0)]


def test_eq_5_holds_exactly_on_a_linear_generator_and_for_the_posterior_only():
    (_, x, c), (at, _, _) = a_world(20, seed=0), a_world(1, seed=1)
    theta = [p.clone().requires_grad_() for p in _weights(at)]
    exact = torch.autograd.grad(LinearGaussian(*theta, at.sigma).log_prob(x, c).sum(), theta)
    mean, cov = at.posterior(x, c)
    square = mean[:, :, None] * mean[:, None, :]
    torch.testing.assert_close(list(exact), _expected_gradient(at, x, c, mean, cov + square))
    prior = torch.zeros_like(mean), torch.eye(2, dtype=DOUBLE).expand(20, 2, 2)
    for wrong in (prior, (mean, square)):  # z from the prior; z at the mode
        assert not torch.allclose(exact[0], _expected_gradient(at, x, c, *wrong)[0], rtol=0.01)


@pytest.mark.parametrize(("d", "points", "other_points"), [(1, 8001, 6000), (2, 501, 420)])
def test_eq_5_holds_on_a_bent_network_by_quadrature(d, points, other_points):
    """The two sides on different grids: on one grid they would agree however coarse it is.

    Along z the gradient in θ jumps at kinks, so a grid is off by its spacing, which decides the tolerance.
    """
    net, sigma = a_bent_net(3, d, 4), 0.4
    c = torch.rand(1, 3, generator=rng(5), dtype=DOUBLE)
    x = net.sample(c, 1, sigma=sigma, generator=rng(6))[0]
    axis = torch.linspace(-7, 7, points, dtype=DOUBLE)
    z = torch.cartesian_prod(*[axis] * d).view(-1, d)
    log_p = log_joint(x, net(c.expand(len(z), -1), z), z, sigma)
    mean = (log_p.softmax(0).detach() * log_p).sum()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(mean, list(net.parameters()))])

    def log_marginal(step: Tensor) -> float:
        moved = copy.deepcopy(net)
        start = nn.utils.parameters_to_vector(net.parameters()).detach()
        nn.utils.vector_to_parameters(start + step, moved.parameters())
        joint = Joint(moved, x, c, sigma, rows=2**18)
        return float(quadrature(joint, limit=7.5, points=other_points))

    for k in range(3):
        v = 1e-3 * torch.randn(len(gradient), generator=rng(10 + k), dtype=DOUBLE)
        slope = log_marginal(v) - log_marginal(-v)
        assert slope == pytest.approx(float(2 * gradient @ v), abs=0.02 * float(gradient.norm()) * 2e-3)


# --- Eq. 7 and 8: the learning step --------------------------------------------------------------------


def _model(net: nn.Module, sigma: float, lr: float = 1e-3) -> ABP:
    """An ABP that learns ``net``, in float64."""
    model = ABP(ABPConfig(latent_dim=2, sigma=sigma, lr=lr), device="cpu")
    model.net = net
    model._adam = torch.optim.Adam(net.parameters(), lr=lr)
    return model


def test_eq_8_the_learning_steps_gradient_is_the_printed_sum_over_the_batch():
    """−(1/n) Σ (1/σ²)(x_i − g(c_i, z_i)) ∂g/∂θ, with the Jacobian from g alone."""
    net, sigma, g = a_bent_net(4, 2, 6), 0.3, rng(2)
    x, c, z = (torch.randn(5, k, generator=g, dtype=DOUBLE) for k in (6, 4, 2))
    theta = {k: p.detach().clone() for k, p in net.named_parameters()}
    residual = (x - net(c, z)).detach()
    jacobian = torch.func.jacrev(lambda t: torch.func.functional_call(net, t, (c, z)))(theta)
    _model(net, sigma).learn(z, x, c)
    for name, p in net.named_parameters():
        printed = torch.tensordot(residual, jacobian[name], dims=([0, 1], [0, 1])) / sigma**2
        torch.testing.assert_close(p.grad, -printed / len(x))


def test_eq_8_with_one_posterior_sample_has_the_mean_of_eq_5():
    """A learning step's gradient at a single z, averaged over 4,000 draws of all z, in standard errors."""
    (_, x, c), (at, _, _) = a_world(3, seed=0), a_world(1, seed=1)
    theta = [p.clone().requires_grad_() for p in _weights(at)]
    exact = torch.autograd.grad(LinearGaussian(*theta, at.sigma).log_prob(x, c).mean(), theta)
    mean, cov = at.posterior(x, c)
    draws, root = 4_000, torch.linalg.cholesky(cov)
    z = mean + torch.randn(draws, 3, 2, generator=rng(8), dtype=DOUBLE) @ root.T
    model, found = _model(Linear(at), at.sigma, lr=0.0), []
    for one in z:
        model.learn(one, x, c)
        found.append([-p.grad.clone() for p in model.net.parameters()])
    for k, expected in enumerate(exact):
        samples = torch.stack([f[k] for f in found])
        z_scores = (samples.mean(0) - expected) / (samples.std(0) / math.sqrt(draws))
        assert z_scores.abs().max() < 4.5


def test_eq_7_learning_steps_climb_the_log_likelihood_of_the_observed_data():
    """Posterior samples at the current θ, one a visit, and the library's step: L(θ) rises to its maximum."""
    (true, x, c), (other, _, _) = a_world(300, seed=0), a_world(1, seed=1)
    net, curve = Linear(LinearGaussian(0.3 * other.W, true.A, true.b, true.sigma)), []
    model, g = _model(net, true.sigma, lr=0.02), rng(3)
    for _ in range(300):
        at = LinearGaussian(net.W.detach(), net.A.detach(), net.b.detach(), true.sigma)
        curve.append(float(at.log_prob(x, c).mean()))
        mean, cov = at.posterior(x, c)
        z = mean + torch.randn(mean.shape, generator=g, dtype=DOUBLE) @ torch.linalg.cholesky(cov).T
        model.learn(z, x, c)
    best = float(true.log_prob(x, c).mean())
    assert curve[0] < best - 2
    assert curve[0] < curve[20] < curve[60]
    assert curve[-1] == pytest.approx(best, abs=0.1)
