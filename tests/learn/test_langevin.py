"""Eq. 6 of paper 1 against the linear recursion it becomes on a Gaussian, where all is in closed form.

MALA against a direct computation of its acceptance, and against the densities it must leave as they are.
"""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from helpers import rng
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from zsl_lib.errors import DataError
from zsl_lib.learn import langevin, mala
from zsl_lib.models import Generator, log_joint


def gaussian(mean: float, variance: float):
    return lambda z: -(z - mean).square().sum(1) / (2 * variance)


def two_humps(d: int = 1) -> MixtureSameFamily:
    """0.3 N(−1.5, 0.5² I) + 0.7 N(1, 1): skewed, with a valley that chains cross."""
    means = torch.tensor([-1.5, 1.0], dtype=torch.float64)[:, None].expand(2, d)
    scales = torch.tensor([0.5, 1.0], dtype=torch.float64)[:, None].expand(2, d)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return MixtureSameFamily(Categorical(weights), Independent(Normal(means, scales), 1))


def draws(n: int, seed: int = 0) -> torch.Tensor:
    """Exact draws of two_humps()."""
    g = rng(seed)
    first = torch.rand(n, 1, generator=g, dtype=torch.float64) < 0.3
    u = torch.randn(n, 1, generator=g, dtype=torch.float64)
    return torch.where(first, -1.5 + 0.5 * u, 1.0 + u)


def p_value(z: torch.Tensor) -> float:
    """Kolmogorov–Smirnov test of z [n, 1] against two_humps()."""
    first, second = scipy.stats.norm(-1.5, 0.5), scipy.stats.norm(1.0, 1.0)
    cdf = lambda t: 0.3 * first.cdf(t) + 0.7 * second.cdf(t)  # noqa: E731
    return float(scipy.stats.kstest(z[:, 0].numpy(), cdf).pvalue)


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
    assert not any(t.requires_grad for t in found if t is not None)


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


@pytest.mark.parametrize("sampler", [langevin, mala])
def test_keep_gives_the_state_before_each_step_and_changes_nothing_else(sampler):
    z, options = torch.randn(4, 3, generator=rng()), {"steps": 6, "step_size": 0.9}
    plain = sampler(gaussian(1.0, 0.5), z, **options, generator=rng(9))
    kept = sampler(gaussian(1.0, 0.5), z, **options, generator=rng(9), keep=True)
    assert plain.states is None
    assert kept.states.shape == (6, 4, 3)
    assert torch.equal(kept.states[0], z)
    g, state = rng(9), z
    for i in range(6):
        assert torch.equal(kept.states[i], state)
        state = sampler(gaussian(1.0, 0.5), state, steps=1, step_size=0.9, generator=g).z
    assert torch.equal(kept.z, state)
    assert torch.equal(kept.z, plain.z)
    assert torch.equal(kept.log_prob, plain.log_prob)
    torch.testing.assert_close(kept.log_prob[3], gaussian(1.0, 0.5)(kept.states[3]))
    torch.testing.assert_close(kept.grad_norm[3], ((kept.states[3] - 1.0) / 0.5).norm(dim=1))


@pytest.mark.parametrize("sampler", [langevin, mala])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": -1}, "steps: found -1"),
        ({"steps": 2.5}, "steps: found 2.5"),
        ({"step_size": 0.0}, "step_size: found 0.0"),
        ({"step_size": -0.3}, "step_size: found -0.3"),
        ({"step_size": math.nan}, "step_size: found nan"),
        ({"step_size": math.inf}, "step_size: found inf"),
        ({"z": torch.zeros(3)}, r"z: found torch.float32 of shape \(3,\), expected floating-point states"),
        ({"z": torch.zeros(3, 2, dtype=torch.int64)}, "z: found torch.int64"),
        ({"log_prob": lambda z: z}, r"log_prob: found shape \(3, 2\), expected \(3,\), one a chain"),
        ({"log_prob": lambda z: z.sum()}, r"log_prob: found shape \(\)"),
    ],
)
def test_bad_arguments(sampler, changed, message):
    arguments = {"log_prob": gaussian(0, 1), "z": torch.zeros(3, 2), "steps": 2, "step_size": 0.3} | changed
    with pytest.raises(DataError, match=f"^{sampler.__name__}: {message}"):
        sampler(arguments.pop("log_prob"), arguments.pop("z"), **arguments)


def test_mala_acceptance_against_the_metropolis_hastings_ratio_computed_directly():
    """p(z′) q(z | z′) / p(z) q(z′ | z), with q a multivariate normal of torch.distributions."""
    target, s, n = two_humps(d=2), 1.1, 200
    z = 2 * torch.randn(n, 2, generator=rng(1), dtype=torch.float64)

    def q(a):
        a = a.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(target.log_prob(a).sum(), a)
        return torch.distributions.MultivariateNormal(
            a.detach() + s**2 / 2 * gradient, s**2 * torch.eye(2, dtype=torch.float64)
        )

    g = rng(5)
    proposal = q(z).mean + s * torch.randn(n, 2, generator=g, dtype=torch.float64)
    uniform = torch.rand(n, generator=g, dtype=torch.float64)
    forward = target.log_prob(z) + q(z).log_prob(proposal)
    backward = target.log_prob(proposal) + q(proposal).log_prob(z)
    expected = (backward - forward).exp().clamp(max=1)
    assert float((expected < 0.9).double().mean()) > 0.2, "the test needs proposals that are in doubt"
    found = mala(target.log_prob, z, steps=1, step_size=s, generator=rng(5))
    torch.testing.assert_close(found.acceptance[0], expected)
    torch.testing.assert_close(found.z, torch.where((uniform < expected)[:, None], proposal, z))


@pytest.mark.parametrize("step", [0.5, 1.2])
def test_mala_leaves_a_gaussian_as_it_is_where_eq_6_does_not(step):
    n, variance = 20_000, 0.5
    start = 1.0 + variance**0.5 * torch.randn(n, 2, generator=rng(4), dtype=torch.float64)
    options = {"steps": 60, "step_size": step, "generator": rng(6)}
    z = mala(gaussian(1.0, variance), start, **options).z
    bound = 4.5 * variance * math.sqrt(2 / n)
    torch.testing.assert_close(z.var(0), torch.full((2,), variance).double(), rtol=0, atol=bound)
    bound = 4.5 * math.sqrt(variance / n)
    torch.testing.assert_close(z.mean(0), torch.ones(2).double(), rtol=0, atol=bound)
    uncorrected = langevin(gaussian(1.0, variance), start, **options).z
    assert (uncorrected.var(0) > variance * (1 + 8 * math.sqrt(2 / n))).all(), "else the test shows nothing"


def test_mala_leaves_a_mixture_as_it_is_where_eq_6_does_not():
    start, step = draws(20_000), 1.2
    assert p_value(start) > 1e-3
    options = {"steps": 60, "step_size": step, "generator": rng(6)}
    assert p_value(mala(two_humps().log_prob, start, **options).z) > 1e-3
    assert p_value(langevin(two_humps().log_prob, start, **options).z) < 1e-6


def test_long_mala_runs_from_one_point_have_the_mixture_s_moments_within_their_error():
    """200 independent runs from z = 4; each run's mean of z and z² after warm-up is one observation."""
    start = torch.full((200, 1), 4.0, dtype=torch.float64)
    run = mala(two_humps().log_prob, start, steps=1000, step_size=1.0, generator=rng(), keep=True)
    states = run.states[200:, :, 0]
    mean, square = 0.3 * -1.5 + 0.7, 0.3 * (1.5**2 + 0.25) + 0.7 * 2
    for found, expected in ((states, mean), (states.square(), square)):
        runs = found.mean(0)
        error = float(runs.std()) / math.sqrt(len(runs))
        assert error < 0.03
        assert float(runs.mean()) == pytest.approx(expected, abs=4.5 * error)


def test_detailed_balance_of_mala():
    """From exact draws, as many chains go from cell i to cell j in a step as go back; Eq. 6 breaks this."""
    edges = torch.tensor([-1.5, 0.0, 1.0], dtype=torch.float64)

    def worst(sampler):
        start = draws(200_000)
        after = sampler(two_humps().log_prob, start, steps=1, step_size=1.3, generator=rng(2)).z
        cells = torch.bucketize(start, edges) * 4 + torch.bucketize(after, edges)
        flow = torch.bincount(cells[:, 0], minlength=16).view(4, 4).double()
        i, j = torch.triu_indices(4, 4, offset=1)
        there, back = flow[i, j], flow[j, i]
        assert (there + back > 500).all()
        return float(((there - back) / (there + back).sqrt()).abs().max())  # each about N(0, 1)

    assert worst(mala) < 4.5
    assert worst(langevin) > 8


def test_mala_never_takes_a_proposal_without_a_density():
    """An exponential on z > 0: outside, the log-density is −∞."""

    def log_prob(z):
        return torch.where(z > 0, -z, -torch.inf).sum(1)

    start = -torch.rand(20_000, 1, generator=rng(1), dtype=torch.float64).log()
    z = mala(log_prob, start, steps=40, step_size=0.8, generator=rng()).z
    assert (z > 0).all()
    assert scipy.stats.kstest(z[:, 0].numpy(), "expon").pvalue > 1e-3
    with pytest.raises(DataError, match="mala: log_prob: found a start without a finite value"):
        mala(log_prob, -start, steps=1, step_size=0.8)


def test_mala_stands_still_where_eq_6_diverges():
    z = torch.ones(50, 1, dtype=torch.float64)
    found = mala(gaussian(0, 0.01), z, steps=200, step_size=3.0, generator=rng())
    assert torch.equal(found.z, z)
    assert float(found.acceptance.max()) < 1e-6


def test_mala_takes_nearly_every_small_step_and_fewer_large_ones():
    start = draws(5_000)
    rates = [
        float(mala(two_humps().log_prob, start, steps=5, step_size=s, generator=rng()).acceptance.mean())
        for s in (0.05, 0.5, 1.0, 2.0)
    ]
    assert rates[0] > 0.999
    assert rates == sorted(rates, reverse=True)


def test_mala_without_steps_and_without_the_global_random_state():
    z, before = torch.randn(4, 3, generator=rng()), torch.get_rng_state()
    found = mala(gaussian(0, 1), z, steps=0, step_size=0.3, keep=True)
    assert torch.equal(found.z, z)
    assert found.acceptance.shape == found.log_prob.shape == (0, 4)
    assert found.states.shape == (0, 4, 3)
    kept = z.clone()
    a, b, c = (mala(gaussian(0, 1), z, steps=5, step_size=0.3, generator=rng(s)) for s in (0, 0, 1))
    assert torch.equal(a.z, b.z)
    assert not torch.equal(a.z, c.z)
    assert torch.equal(z, kept)
    assert not z.requires_grad
    assert not any(t.requires_grad for t in a if t is not None)
    assert torch.equal(torch.get_rng_state(), before)
