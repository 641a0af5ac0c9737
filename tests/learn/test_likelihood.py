"""Estimators of Eq. 3: against closed form, quadrature and each other, with calibrated error bars."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import rng
from torch import Tensor, nn
from torch.distributions import StudentT

from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import likelihood
from zsl_lib.learn.likelihood import Estimate, Joint, State, annealed, hmc, importance, laplace, quadrature
from zsl_lib.models import Generator


class LinearNet(nn.Module):
    """g(c, z) of a linear-Gaussian world: a plain module without ``condition``."""

    def __init__(self, world: LinearGaussian) -> None:
        super().__init__()
        self.world, self.latent_dim = world, world.W.shape[1]

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return self.world.mean(c) + z @ self.world.W.T


def linear(d: int = 10, n: int = 5, *, dim: int = 16, sigma: float = 0.3) -> tuple[Joint, Tensor]:
    """n examples of a linear world, and their log p(x | c)."""
    g = rng(d)
    world = linear_gaussian(dim, d, 3, sigma=sigma, generator=g, dtype=torch.float64)
    c = torch.rand(n, 3, generator=g, dtype=torch.float64)
    x, _ = world.sample(c, g)
    return Joint(LinearNet(world), x, c, sigma), world.log_prob(x, c)


def bent(
    d: int, n: int = 6, *, dim: int = 8, sigma: float = 0.3, masked: bool = False, scale: float = 0.6
) -> Joint:
    """n examples of a generator with both nonlinearities at work."""
    g = rng(10 + d)
    net = Generator(3, d, dim, hidden=24, generator=g).double()
    for p in net.parameters():
        p.data = scale * torch.randn(p.shape, generator=g, dtype=torch.float64)
    c, z = (torch.randn(n, k, generator=g, dtype=torch.float64) for k in (3, d))
    x = net(c, z).detach() + sigma * torch.randn(n, dim, generator=g, dtype=torch.float64)
    mask = torch.rand(x.shape, generator=g) < 0.7 if masked else None
    return Joint(net, x, c, sigma, mask)


# --- the joint density ---------------------------------------------------------------------------------


def test_the_joint_density_is_normalised_and_that_of_the_linear_world():
    joint, _ = linear(4)
    z = torch.randn(3, 5, 4, generator=rng(1), dtype=torch.float64)
    world = joint.net.world
    for i in range(3):
        torch.testing.assert_close(joint.log_joint(z)[i], world.log_joint(joint.x, z[i], joint.c))
    torch.testing.assert_close(joint.log_prior(z) + joint.log_likelihood(z), joint.log_joint(z))


@pytest.mark.parametrize("masked", [False, True])
def test_memory_bound_and_conditioning_change_no_value(masked):
    joint = bent(2, masked=masked)
    plain = _Plain(joint.net)
    z = torch.randn(7, 6, 2, generator=rng(1), dtype=torch.float64)
    for rows in (1, 13, 10_000):
        other = Joint(plain, joint.x, joint.c, 0.3, joint.mask, latent_dim=2, rows=rows)
        torch.testing.assert_close(other.log_joint(z), joint.log_joint(z))
        torch.testing.assert_close(other.slope(z)[1], joint.slope(z)[1])


class _Plain(nn.Module):
    """Hides a generator's ``condition`` and ``latent_dim``."""

    def __init__(self, net: Generator) -> None:
        super().__init__()
        self.inside = net

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return self.inside(c, z)


def test_c_s_share_is_computed_once(monkeypatch):
    calls = []
    net, condition = bent(2).net, Generator.condition
    monkeypatch.setattr(Generator, "condition", lambda self, c: calls.append(1) or condition(self, c))
    joint = Joint(net, torch.zeros(6, 8).double(), torch.zeros(6, 3).double(), 0.3, rows=1)
    joint.slope(joint.normal(5, rng()))
    joint.log_joint(joint.normal(5, rng()))
    assert len(calls) == 1


def test_the_slope_agrees_with_finite_differences():
    joint = bent(3, masked=True)
    z = torch.randn(2, 6, 3, generator=rng(1), dtype=torch.float64)
    value, gradient = joint.slope(z)
    torch.testing.assert_close(value, joint.log_likelihood(z).detach())
    for k in range(3):
        h = torch.zeros(3, dtype=torch.float64)
        h[k] = 1e-6
        difference = (joint.log_likelihood(z + h) - joint.log_likelihood(z - h)) / 2e-6
        torch.testing.assert_close(gradient[..., k], difference.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_masked_values_do_not_matter_and_the_mask_is_that_of_the_smaller_problem(junk):
    joint = bent(2, n=4, masked=True)
    dirty = Joint(joint.net, joint.x.where(joint.mask, junk), joint.c, 0.3, joint.mask)
    for estimate in (quadrature, lambda j: laplace(j)[1], lambda j: _importance(j).log_prob, _annealed):
        torch.testing.assert_close(estimate(dirty), estimate(joint), rtol=0, atol=0)
    for i in range(4):
        seen, one = joint.mask[i], slice(i, i + 1)
        net = _Columns(joint.net, seen)
        alone = Joint(net, joint.x[one, seen], joint.c[one], 0.3, latent_dim=2)
        torch.testing.assert_close(quadrature(alone), quadrature(joint)[one])


class _Columns(_Plain):
    """Some of a generator's outputs."""

    def __init__(self, net: Generator, seen: Tensor) -> None:
        super().__init__(net)
        self.seen = seen

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return self.inside(c, z)[:, self.seen]


def _importance(joint: Joint, samples: int = 50, seed: int = 0, **options) -> Estimate:
    return importance(joint, *laplace(joint), samples=samples, generator=rng(seed), **options)


def _annealed(joint: Joint) -> Tensor:
    return annealed(joint, chains=4, temperatures=5, generator=rng()).log_prob


# --- quadrature ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2])
def test_quadrature_is_exact_on_the_linear_world(d):
    joint, truth = linear(d)
    torch.testing.assert_close(quadrature(joint), truth, rtol=1e-9, atol=1e-9)


def test_quadrature_counts_the_ends_of_an_axis_half():
    """With no data's say (σ = 10⁶) the integral is that of the prior over the square."""
    joint = Joint(bent(2).net, torch.zeros(1, 8).double(), torch.zeros(1, 3).double(), 1e6)
    constant = 8 * math.log(1e6 * math.sqrt(2 * math.pi))
    inside = math.erf(0.7 / math.sqrt(2)) ** 2
    assert quadrature(joint, limit=0.7, points=401).item() + constant == pytest.approx(
        math.log(inside), abs=1e-5
    )


def test_quadrature_is_for_two_dimensions_at_most():
    with pytest.raises(DataError, match="latent_dim: found 3, expected 1 or 2"):
        quadrature(bent(3))


# --- Laplace -------------------------------------------------------------------------------------------


def test_laplace_is_the_posterior_of_the_linear_world():
    joint, _ = linear(10)
    mean, cov = joint.net.world.posterior(joint.x, joint.c)
    found_mean, found_cov = laplace(joint)
    torch.testing.assert_close(found_mean, mean)
    torch.testing.assert_close(found_cov, cov.expand(5, 10, 10))


class Smooth(nn.Module):
    """A small network without kinks."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        g = rng(5)
        self.a, self.b = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((6, 12), (12, 9)))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(torch.cat([c, z], 1) @ self.a / 2) @ self.b


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [1, 10_000])
def test_laplace_finds_a_mode_and_the_jacobian_there(masked, rows):
    g = rng(3)
    c, z, x = (torch.randn(6, k, generator=g, dtype=torch.float64) for k in (3, 3, 9))
    net = Smooth()
    mask = torch.rand(x.shape, generator=g) < 0.7 if masked else torch.ones(x.shape, dtype=torch.bool)
    joint = Joint(net, net(c, z) + 0.3 * x, c, 0.3, mask if masked else None, rows=rows)
    mean, cov = laplace(joint, steps=100)
    assert (joint.slope(mean[None])[1][0] - mean).abs().max() < 1e-3
    nearby = mean + 0.03 * joint.normal(50, g)
    assert (joint.log_joint(nearby) < joint.log_joint(mean[None])).all(), "a maximum, not a saddle"
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda z, i=i: net(c[i : i + 1], z)[0], mean[i : i + 1])
        jacobian = jacobian[mask[i], 0]
        precision = torch.eye(3) + jacobian.T @ jacobian / 0.3**2
        torch.testing.assert_close(cov[i], torch.linalg.inv(precision))


def test_laplace_never_descends():
    joint = bent(3)
    values = torch.cat([joint.log_joint(laplace(joint, steps=k)[0][None]) for k in (0, 1, 2, 5, 20)])
    assert (values.diff(dim=0) > -1e-12).all()
    assert values[-1].mean() > values[0].mean() + 1


def test_more_starts_find_a_better_mode_where_there_are_several():
    joint = bent(3)
    one, more = (joint.log_joint(laplace(joint, starts=s, generator=rng())[0][None])[0] for s in (1, 8))
    assert (more >= one).all()
    assert (more > one + 0.1).any()


# --- importance sampling -------------------------------------------------------------------------------


def test_importance_sampling_from_the_posterior_itself_has_no_error():
    joint, truth = linear(10)
    found = _importance(joint, dof=None)
    torch.testing.assert_close(found.log_prob, truth)
    assert (found.error < 1e-6).all()
    torch.testing.assert_close(found.ess, torch.full((5,), 50.0).double())


@pytest.mark.parametrize(("dof", "inflate"), [(20, 1.0), (3, 1.0), (None, 1.5), (5, 2.0)])
def test_the_proposals_density_is_right_so_the_mean_weight_is_p(dof, inflate):
    joint, truth = linear(3)
    found = _importance(joint, samples=40_000, dof=dof, inflate=inflate)
    assert (found.error < 0.02).all()
    assert ((found.log_prob - truth).abs() < 4.5 * found.error).all()


def test_student_draws_and_density_are_those_of_an_independent_library():
    white = torch.randn(6, 1, generator=rng(), dtype=torch.float64)
    expected = StudentT(torch.tensor(4.0).double()).log_prob(white[:, 0])
    torch.testing.assert_close(likelihood._log_student(white, 4), expected)
    root = likelihood._root_mean_square(torch.Size([20_000]), 4, white, rng(1))[:, 0]
    assert float((root**2).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / 4 / 20_000))


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_importance_and_annealed_agree_with_quadrature_on_a_bent_network(d, masked):
    joint = bent(d, dim=16, scale=0.4, masked=masked)
    truth = quadrature(joint, points=1201 if d == 1 else 301)
    one = _importance(joint, samples=20_000, inflate=1.5, dof=4)
    two = annealed(joint, chains=300, temperatures=60, generator=rng(1))
    for found in (one, two):
        assert (found.error < 0.1).all()
        assert ((found.log_prob - truth).abs() < 4.5 * found.error + 1e-4).all()


def test_error_bars_are_calibrated_and_the_bias_is_downward():
    """z-scores of many independent estimates have unit variance; their mean is minus half the variance."""
    joint, truth = linear(3, n=1)
    many = Joint(joint.net, joint.x.expand(4000, -1), joint.c.expand(4000, -1), joint.sigma)
    found = _importance(many, samples=60, inflate=2.0, dof=8)
    error = found.log_prob - truth
    score = error / found.error
    assert float(score.std()) == pytest.approx(1, abs=0.1)
    half_variance = float(error.var()) / 2
    assert float(error.mean()) == pytest.approx(-half_variance, abs=4 * float(error.std()) / math.sqrt(4000))
    assert error.mean() < 0


def test_an_estimate_from_known_weights():
    weights = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).double()
    found = Estimate.of(weights.log())
    torch.testing.assert_close(found.log_prob, torch.tensor([2.0, 5.0]).double().log())
    standard_error = weights.std(0) / math.sqrt(2) / weights.mean(0)
    torch.testing.assert_close(found.error, standard_error)
    torch.testing.assert_close(found.ess, torch.tensor([16 / 10, 2.0]).double())


# --- annealed importance sampling ----------------------------------------------------------------------


def test_annealed_estimates_are_calibrated_against_the_truth_at_d_10():
    joint, truth = linear(10, n=1)
    many = Joint(joint.net, joint.x.expand(150, -1), joint.c.expand(150, -1), joint.sigma)
    found = annealed(many, chains=40, temperatures=80, generator=rng())
    score = (found.log_prob - truth) / found.error
    assert float(found.error.mean()) < 0.35
    assert 0.8 < float(score.std()) < 1.4
    assert float((found.log_prob - truth).mean()) == pytest.approx(0, abs=0.1)


def test_more_temperatures_bring_the_estimate_up_to_the_truth():
    joint, truth = linear(10, n=20)
    off = [
        float((annealed(joint, chains=16, temperatures=t, generator=rng()).log_prob - truth).mean())
        for t in (3, 12, 100)
    ]
    assert off[0] < off[1] - 0.5 < off[2] - 0.5
    assert abs(off[2]) < 0.3


def test_the_mean_weight_is_unbiased_with_any_number_of_temperatures_and_any_step():
    """E[w] = p(x | c) exactly: no step size and no schedule may change it."""
    joint, truth = linear(1, n=4, dim=2)
    schedule = torch.tensor([0.1, 0.5, 1.0])
    for options in ({"temperatures": 2, "step_size": 3.0, "leapfrog": 1}, {"temperatures": schedule}):
        found = annealed(joint, chains=20_000, generator=rng(), **options)
        assert (found.error < 0.1).all()
        assert ((found.log_prob - truth).abs() < 4.5 * found.error).all()


def test_importance_and_annealed_agree_at_d_10_on_a_bent_network():
    joint = bent(10, dim=16, scale=0.3)
    one = _importance(joint, samples=20_000, inflate=1.5)
    two = annealed(joint, chains=64, temperatures=150, generator=rng())
    together = (one.error**2 + two.error**2).sqrt()
    assert (together < 0.5).all()
    assert ((one.log_prob - two.log_prob).abs() < 4 * together).all()


@pytest.mark.parametrize("leapfrog", [1, 4])
def test_hamiltonian_steps_leave_the_tempered_posterior_invariant(leapfrog):
    """On the linear world: start in p(z) p(x|z)^β, move, and find the same mean and covariance."""
    joint, _ = linear(2, n=1, dim=3, sigma=0.7)
    world, beta, m = joint.net.world, 0.4, 20_000
    tempered = LinearGaussian(world.W, world.A, world.b, 0.7 / math.sqrt(beta))
    mean, cov = tempered.posterior(joint.x, joint.c)
    z = mean + joint.normal(m, rng()) @ torch.linalg.cholesky(cov).T
    state = State.at(joint, z)
    step = 0.9 * torch.linalg.cholesky(cov)[None]
    for seed in range(3):
        state, chance = hmc(joint, state, step=step, leapfrog=leapfrog, beta=beta, generator=rng(seed + 1))
    assert 0.2 < float(chance.mean()) < 0.999, "some steps are rejected, so that the correction is tested"
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (state.z[:, 0] - mean).T, upper=False)
    torch.testing.assert_close(white.mean(1), torch.zeros(2).double(), rtol=0, atol=4.5 / math.sqrt(m))
    torch.testing.assert_close(torch.cov(white), torch.eye(2).double(), rtol=0, atol=4.5 * math.sqrt(2 / m))
    assert ((state.z - z).abs().mean()) > 0.2, "the chains have moved"
    torch.testing.assert_close(state.log_likelihood, joint.log_likelihood(state.z))


# --- seeds, inputs -------------------------------------------------------------------------------------


def test_the_generator_decides_everything_and_the_global_state_is_left_alone():
    joint, before = bent(2), torch.get_rng_state()
    for estimate in (
        lambda g: importance(joint, *laplace(joint), samples=10, generator=g).log_prob,
        lambda g: annealed(joint, chains=3, temperatures=3, generator=g).log_prob,
    ):
        assert torch.equal(estimate(rng(1)), estimate(rng(1)))
        assert not torch.equal(estimate(rng(1)), estimate(rng(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_estimators_build_no_graph():
    joint = bent(2)
    for found in (quadrature(joint), *laplace(joint), *_importance(joint), _annealed(joint)):
        assert not found.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma: found 0.0, expected a positive number"),
        ({"sigma": float("nan")}, "sigma: found nan"),
        ({"c": torch.zeros(5, 3)}, r"found x \(6, 8\), c \(5, 3\)"),
        ({"x": torch.zeros(6)}, r"found x \(6,\)"),
        ({"mask": torch.ones(6, 7, dtype=torch.bool)}, r"mask: found torch.bool \(6, 7\)"),
        ({"mask": torch.ones(6, 8)}, r"mask: found torch.float32 \(6, 8\), expected torch.bool \(6, 8\)"),
        ({"net": nn.Identity()}, "latent_dim: found None"),
        ({"latent_dim": 0}, "latent_dim: found 0"),
    ],
)
def test_a_joint_of_wrong_parts_is_a_data_error(change, message):
    joint = bent(2)
    parts = {"net": joint.net, "x": joint.x, "c": joint.c, "sigma": 0.3} | change
    with pytest.raises(DataError, match=message):
        Joint(**parts)


def test_latents_of_a_wrong_shape_are_a_data_error():
    with pytest.raises(DataError, match=r"z: found \(6, 2\), expected \[m, 6, 2\]"):
        bent(2).log_joint(torch.zeros(6, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda j: quadrature(j, limit=0),
        lambda j: quadrature(j, points=1),
        lambda j: laplace(j, steps=-1),
        lambda j: laplace(j, starts=0),
        lambda j: _importance(j, samples=1),
        lambda j: _importance(j, inflate=0),
        lambda j: _importance(j, dof=0),
        lambda j: annealed(j, chains=1, temperatures=5),
        lambda j: annealed(j, chains=5, temperatures=0),
        lambda j: annealed(j, chains=5, temperatures=5, step_size=0),
        lambda j: annealed(j, chains=5, temperatures=5, leapfrog=0),
        lambda j: annealed(j, chains=5, temperatures=5, steps_per_temperature=0),
        lambda j: annealed(j, chains=5, temperatures=torch.tensor([0.5, 0.2, 1.0])),
        lambda j: annealed(j, chains=5, temperatures=torch.tensor([0.1, 0.5])),
    ],
)
def test_numbers_out_of_range_are_data_errors(call):
    with pytest.raises(DataError):
        call(bent(2))
