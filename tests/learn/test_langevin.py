"""Eq. 6 of paper 1 against the linear recursion it becomes on a Gaussian, where all is in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import rng

from zsl_lib.learn import langevin
from zsl_lib.models import Generator, log_joint


def gaussian(mean: float, variance: float):
    return lambda z: -(z - mean).square().sum(1) / (2 * variance)


def test_one_step_is_eq_6_by_hand():
    z, s = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), 0.4
    u = torch.randn(z.shape, generator=rng(3))
    found = langevin(gaussian(1.0, 0.5), z, steps=1, step_size=s, generator=rng(3))
    torch.testing.assert_close(found.z, z + s**2 / 2 * (-(z - 1.0) / 0.5) + s * u)


def test_the_noise_free_step_leaves_out_only_the_noise():
    z, s = torch.tensor([[1.0, -2.0]]), 0.4
    found = langevin(gaussian(1.0, 0.5), z, steps=1, step_size=s, noise=False)
    torch.testing.assert_close(found.z, z + s**2 / 2 * (-(z - 1.0) / 0.5))


@pytest.mark.parametrize(("variance", "step"), [(1.0, 0.3), (0.5, 0.8), (2.0, 1.5)])
@pytest.mark.parametrize("steps", [1, 3, 200])
def test_mean_and_variance_on_a_gaussian_are_those_of_the_exact_recursion(variance, step, steps):
    """z′ − m = a (z − m) + s u with a = 1 − s²/2v. From z = m + 2: mean m + 2aˡ, variance s² Σ a²ᵏ,
    which tends to v / (1 − s²/4v), not to v: the bias of Langevin dynamics without a correction."""
    n, mean = 20_000, -1.0
    start = torch.full((n, 1), mean + 2, dtype=torch.float64)
    z = langevin(gaussian(mean, variance), start, steps=steps, step_size=step, generator=rng(steps)).z
    a = 1 - step**2 / (2 * variance)
    exact = step**2 * (1 - a ** (2 * steps)) / (1 - a**2)
    if steps == 200:
        assert exact == pytest.approx(variance / (1 - step**2 / (4 * variance)), rel=1e-3)
    assert float(z.mean()) == pytest.approx(mean + 2 * a**steps, abs=4.5 * math.sqrt(exact / n))
    assert float(z.var()) == pytest.approx(exact, abs=4.5 * exact * math.sqrt(2 / n))


def test_dimensions_and_chains_are_independent():
    n = 20_000
    z = langevin(gaussian(0, 1), torch.zeros(n, 2), steps=60, step_size=0.5, generator=rng()).z
    bound = 4.5 / math.sqrt(n)
    assert abs(float(torch.corrcoef(z.T)[0, 1])) < bound
    assert abs(float(torch.corrcoef(torch.stack([z[:-1, 0], z[1:, 0]]))[0, 1])) < bound


def test_without_noise_the_chain_ends_in_the_mode():
    z = 5 * torch.randn(20, 3, generator=rng(), dtype=torch.float64)
    found = langevin(gaussian(2.0, 0.5), z, steps=200, step_size=0.5, noise=False)
    torch.testing.assert_close(found.z, torch.full_like(z, 2.0))
    assert (found.log_prob.diff(dim=0) >= 0).all(), "a small step of gradient ascent never descends"


def test_the_trace_holds_log_density_and_gradient_norm_before_each_step():
    log_prob, z = gaussian(1.0, 0.5), torch.randn(4, 3, generator=rng())
    g, states = rng(9), [z]
    for _ in range(5):
        states.append(langevin(log_prob, states[-1], steps=1, step_size=0.3, generator=g).z)
    found = langevin(log_prob, z, steps=5, step_size=0.3, generator=rng(9))
    assert torch.equal(found.z, states[-1])
    assert found.log_prob.shape == found.grad_norm.shape == (5, 4)
    torch.testing.assert_close(found.log_prob, torch.stack([log_prob(s) for s in states[:-1]]))
    norms = torch.stack([((s - 1.0) / 0.5).norm(dim=1) for s in states[:-1]])
    torch.testing.assert_close(found.grad_norm, norms)


def test_no_steps_give_the_start_and_an_empty_trace():
    z = torch.randn(4, 3, generator=rng())
    found = langevin(gaussian(0, 1), z, steps=0, step_size=0.3)
    assert torch.equal(found.z, z)
    assert found.log_prob.shape == found.grad_norm.shape == (0, 4)


def test_the_start_is_not_changed_and_the_result_carries_no_graph():
    z = torch.randn(4, 3, generator=rng())
    kept = z.clone()
    found = langevin(gaussian(0, 1), z, steps=3, step_size=0.3, generator=rng())
    assert torch.equal(z, kept)
    assert not z.requires_grad
    assert not any(t.requires_grad for t in found)


def test_an_explicit_generator_makes_it_reproducible_without_the_global_random_state():
    z, before = torch.zeros(4, 3), torch.get_rng_state()
    a, b, c = (langevin(gaussian(0, 1), z, steps=5, step_size=0.3, generator=rng(s)).z for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_too_large_for_the_curvature_is_an_arithmetic_error():
    """|1 − s²/2v| > 1 makes the recursion grow without bound."""
    with pytest.raises(ArithmeticError, match="step_size 3"):
        langevin(gaussian(0, 0.01), torch.ones(2, 1), steps=200, step_size=3.0, generator=rng())


def test_the_step_on_the_generator_is_the_formula_printed_in_eq_6():
    """(1/σ²)(X − g) ∂g/∂Z − Z, with the Jacobian from forward evaluation of g alone."""
    sigma, s, g = 0.3, 0.2, rng()
    net = Generator(4, 3, 6, hidden=9, generator=g).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    x, c, z = (torch.randn(5, d, generator=g, dtype=torch.float64) for d in (6, 4, 3))
    steps = langevin(lambda z: log_joint(x, net(c, z), z, sigma), z, steps=1, step_size=s, noise=False)
    for i in range(5):

        def mean(z_i, i=i):
            return net(c[i : i + 1], z_i[None])[0]

        jacobian = torch.func.jacrev(mean)(z[i])  # [D, d]
        drift = (x[i] - mean(z[i])) @ jacobian / sigma**2 - z[i]
        torch.testing.assert_close(steps.z[i], (z[i] + s**2 / 2 * drift).detach())
        torch.testing.assert_close(steps.grad_norm[0, i], drift.norm().detach())
