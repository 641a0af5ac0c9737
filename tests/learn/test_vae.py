"""The conditional VAE: its bounds against closed forms, its gradients, and runs that stop and go on."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from zsl_lib.data import ZSLDataset
from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.likelihood import Joint, importance, quadrature
from zsl_lib.learn.vae import (
    CVAE,
    VZSL,
    CVAEConfig,
    VZSLConfig,
    bounds,
    kl_normal,
    kl_to_classes,
    log_normal,
)
from zsl_lib.models.encoder import Autoencoder

SMALL = CVAEConfig(latent_dim=3, hidden=16, encoder_hidden=12, batch_size=8, epochs=4)


def fit(dataset: ZSLDataset | None = None, config: CVAEConfig = SMALL, *, seed: int = 0, **options) -> CVAE:
    dataset = small_dataset() if dataset is None else dataset
    return CVAE(config, seed=seed, device="cpu").fit(dataset, progress=False, **options)


def assert_same_run(a: CVAE, b: CVAE) -> None:
    """Bit for bit: weights of both networks, Adam's state, random state and history but for the clock."""
    for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(p, q)
    for one, other in zip(a._adam.state.values(), b._adam.state.values(), strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(a._rng.get_state(), b._rng.get_state())
    clockless = [[{k: v for k, v in e.items() if k != "seconds"} for e in m.history] for m in (a, b)]
    assert clockless[0] == clockless[1]


# --- densities ---------------------------------------------------------------------------------------


@pytest.fixture
def normals() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means and log-variances of two diagonal normals, [5, 3] each."""
    return tuple(torch.randn(5, 3, generator=rng(i), dtype=torch.float64) for i in range(4))


def test_kl_and_log_density_are_those_of_torch_distributions(normals):
    mean, log_var, to_mean, to_log_var = normals
    p, q = (Independent(Normal(m, (v / 2).exp()), 1) for m, v in ((mean, log_var), (to_mean, to_log_var)))
    torch.testing.assert_close(kl_normal(*normals), kl_divergence(p, q))
    z = torch.randn(7, 5, 3, generator=rng(9), dtype=torch.float64)
    torch.testing.assert_close(log_normal(z, mean, log_var), p.log_prob(z))


def test_the_kl_is_its_monte_carlo_mean(normals):
    mean, log_var, to_mean, to_log_var = normals
    z = mean + (log_var / 2).exp() * torch.randn(40_000, 5, 3, generator=rng(9), dtype=torch.float64)
    draws = log_normal(z, mean, log_var) - log_normal(z, to_mean, to_log_var)
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - kl_normal(*normals)).abs() < 4.5 * error).all()


# --- the bounds on a linear world ------------------------------------------------------------------------


class LinearAutoencoder(nn.Module):
    """A linear-Gaussian world as the generator, with a linear encoder, exact if WᵀW is diagonal."""

    def __init__(self, world: LinearGaussian) -> None:
        super().__init__()
        self.world = world

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return self.world.mean(c) + z @ self.world.W.T

    def encoder(self, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, cov = self.world.posterior(x, c)
        return mean, cov.diagonal().log().expand_as(mean)

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        zero = c.new_zeros(len(c), self.world.W.shape[1])
        return zero, zero


class Shifted(LinearAutoencoder):
    """With an encoder that is off."""

    def encoder(self, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_var = super().encoder(x, c, mask)
        return mean + 0.2, log_var + 0.5


@pytest.fixture
def world() -> tuple[LinearGaussian, Tensor, Tensor]:
    """A world with orthogonal columns in W, and 6 examples x, c."""
    g = rng(3)
    made = linear_gaussian(9, 3, 4, sigma=0.5, generator=g, dtype=torch.float64)
    W = torch.linalg.qr(made.W).Q * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    made = LinearGaussian(W, made.A, made.b, 0.5)
    c = torch.rand(6, 4, generator=g, dtype=torch.float64)
    return made, made.sample(c, g)[0], c


def test_with_the_exact_posterior_each_weight_is_p_and_the_bound_is_tight(world):
    made, x, c = world
    truth = made.log_prob(x, c)
    found = bounds(LinearAutoencoder(made), x, c, 0.5, samples=2000, generator=rng())
    torch.testing.assert_close(found.log_weights, truth.expand(2000, 6))
    torch.testing.assert_close(found.iwae, truth)
    error = found.log_likelihood.std(0) / math.sqrt(2000)
    assert ((found.elbo - truth).abs() < 4.5 * error).all()


def test_the_elbo_by_hand_and_the_gap_as_a_kl(world):
    """E_q log p(x | z) of a normal q in a linear world is elementary; log p − ELBO is KL(q ‖ posterior)."""
    made, x, c = world
    net = Shifted(made)
    mean, log_var = net.encoder(x, c, None)
    square = (x - net(c, mean)).square().sum(1) + (made.W.square() @ log_var.exp().T).sum(0)
    by_hand = -square / (2 * 0.5**2) - 9 / 2 * math.log(2 * math.pi * 0.5**2)
    by_hand = by_hand - kl_normal(mean, log_var, *net.prior(c))
    found = bounds(net, x, c, 0.5, samples=20_000, generator=rng())
    error = found.log_likelihood.std(0) / math.sqrt(20_000)
    assert ((found.elbo - by_hand).abs() < 4.5 * error).all()
    posterior_mean, cov = made.posterior(x, c)
    gap = kl_normal(mean, log_var, posterior_mean, cov.diagonal().log().expand_as(mean))
    torch.testing.assert_close(made.log_prob(x, c) - by_hand, gap)


def test_iwae_is_the_elbo_in_expectation_for_one_draw_and_rises_to_the_likelihood(world):
    made, x, c = world
    found = bounds(Shifted(made), x, c, 0.5, samples=60_000, generator=rng())
    weights, truth = found.log_weights, made.log_prob(x, c)
    one_by_one = weights.view(1, 60_000, 6)  # k = 1, 60,000 times
    error = one_by_one.std(1)[0] / math.sqrt(60_000)
    assert ((one_by_one.mean((0, 1)) - found.elbo).abs() < 5 * error).all()
    means = []
    for k in (1, 5, 25, 125):
        groups = weights[: 60_000 // k * k].view(-1, k, 6)
        means.append((groups.logsumexp(1) - math.log(k)).mean(0))
    assert (torch.stack(means).diff(dim=0) > 0).all()
    assert (means[-1] <= truth + 0.02).all()
    torch.testing.assert_close(means[-1], truth, rtol=0, atol=0.05)
    torch.testing.assert_close(found.iwae, truth, rtol=0, atol=0.05)


def test_it_is_the_importance_sampler_of_the_likelihood_module_with_the_encoder_as_proposal():
    net = Autoencoder(4, 2, 6, 16, 12, generator=rng()).double()
    for p in net.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=rng(p.numel()), dtype=torch.float64)
    x, c = torch.rand(5, 6, generator=rng(1)).double(), torch.rand(5, 4, generator=rng(2)).double()
    mask = torch.rand(5, 6, generator=rng(3)) < 0.7
    joint = Joint(net, x, c, 0.4, mask)
    mean, log_var = (t.detach() for t in net.encoder(x, c, mask))
    other = importance(joint, mean, torch.diag_embed(log_var.exp()), samples=30, dof=None, generator=rng(5))
    found = bounds(net, x, c, 0.4, mask, samples=30, generator=rng(5))
    torch.testing.assert_close(found.iwae.detach(), other.log_prob)
    many = bounds(net, x, c, 0.4, mask, samples=50_000, generator=rng(6)).iwae.detach()
    torch.testing.assert_close(many, quadrature(joint), rtol=0, atol=0.1)


# --- learning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["elbo", "iwae"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_agree_with_finite_differences(kind, masked):
    """In every kind of weight, of the generator and of the encoder."""
    net = Autoencoder(4, 2, 6, 9, 7, generator=rng()).double()
    for p in net.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=rng(p.numel()), dtype=torch.float64)
    x, c = torch.rand(5, 6, generator=rng(1)).double(), torch.rand(5, 4, generator=rng(2)).double()
    mask = torch.rand(5, 6, generator=rng(3)) < 0.7 if masked else None

    def value() -> Tensor:
        return getattr(bounds(net, x, c, 0.4, mask, samples=3, generator=rng(5)), kind).sum()

    gradients = torch.autograd.grad(value(), list(net.parameters()))
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        flat, h = p.data.view(-1), 1e-6
        for i in range(0, len(flat), max(1, len(flat) // 15)):
            kept = flat[i].item()
            flat[i] = kept + h
            up = value().item()
            flat[i] = kept - h
            down = value().item()
            flat[i] = kept
            assert gradient.view(-1)[i].item() == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("k", [1, 5])
def test_a_step_climbs_its_bound_with_adam(k):
    model = fit(config=replace(SMALL, importance_samples=k), epochs=0)
    x, c = torch.rand(5, 6, generator=rng(1)), torch.rand(5, 4, generator=rng(2))
    before = copy.deepcopy(model.net)
    state = model._rng.get_state()
    bound, kl = model.learn_bound(x, c)
    model._rng.set_state(state)
    expected = bounds(before, x, c, SMALL.sigma, samples=k, generator=model._rng)
    torch.testing.assert_close(bound, (expected.elbo if k == 1 else expected.iwae).detach())
    torch.testing.assert_close(kl, expected.kl.detach())
    for p, q in zip(model.net.parameters(), before.parameters(), strict=True):
        step = SMALL.lr * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), (q - step).detach(), rtol=1e-4, atol=1e-7)


class Trainable(nn.Module):
    """x = W z + A c + b with a linear encoder: at the optimum the bound of a linear world is tight."""

    def __init__(self, k: int, d: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.W = nn.Parameter(0.1 * torch.randn(dim, d, generator=generator))
        self.A = nn.Parameter(torch.zeros(dim, k))
        self.b = nn.Parameter(torch.zeros(dim))
        self.to_mean = nn.Parameter(torch.zeros(dim + k + 1, d))
        self.log_var = nn.Parameter(torch.zeros(d))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return c @ self.A.T + self.b + z @ self.W.T

    def encoder(self, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        mean = torch.cat([x, c, torch.ones_like(x[:, :1])], 1) @ self.to_mean
        return mean, self.log_var.expand_as(mean)

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        zero = c.new_zeros(len(c), len(self.log_var))
        return zero, zero


def test_on_a_linear_world_learning_reaches_the_true_likelihood_through_the_bound():
    g = rng(4)
    true = linear_gaussian(8, 2, 3, sigma=0.5, generator=g)
    dataset = true.dataset(seen=10, unseen=2, per_class=50, generator=g)
    x, c = dataset.features[dataset.trainval], dataset.semantics[dataset.labels[dataset.trainval]]
    config = CVAEConfig(latent_dim=2, sigma=0.5, batch_size=40, lr=0.02, epochs=60)
    model = CVAE(config, device="cpu", network=Trainable).fit(dataset, progress=False)
    learned = LinearGaussian(model.net.W.detach(), model.net.A.detach(), model.net.b.detach(), 0.5)
    exact, best = (float(-w.log_prob(x, c).mean()) for w in (learned, true))
    loss = model.history[-1]["loss"]
    assert model.history[0]["loss"] > best + 5, "the start is far from the truth"
    assert exact == pytest.approx(best, abs=0.2)
    assert exact - 0.05 < loss < exact + 0.3


class Priors(Autoencoder):
    """With a prior that depends on the class."""

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        return c[:, :3], -c[:, 1:4]


def test_a_class_conditional_prior_takes_part_in_both_bounds():
    net = Priors(4, 3, 6, 16, 12, generator=rng())
    x, c = torch.rand(5, 6, generator=rng(1)), torch.rand(5, 4, generator=rng(2))
    found = bounds(net, x, c, 0.4, samples=20_000, generator=rng(5))
    mean, log_var = net.encoder(x, c)
    torch.testing.assert_close(found.kl, kl_normal(mean, log_var, *net.prior(c)))
    sampled = found.log_likelihood - found.log_weights
    error = sampled.std(0) / math.sqrt(20_000)
    assert ((sampled.mean(0) - found.kl).abs() < 4.5 * error).all()


def test_the_history_holds_the_loss_and_the_kl():
    model = fit(epochs=30)
    assert [e["epoch"] for e in model.history] == list(range(1, 31))
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    assert all(e["kl"] >= 0 for e in model.history)
    config = replace(SMALL, lr=0.0, batch_size=45)
    still = fit(config=config, epochs=1)
    data = small_dataset()
    x, c = data.features[data.trainval], data.semantics[data.labels[data.trainval]]
    mean, log_var = still.encode(x, c)
    zero = torch.zeros_like(mean)
    expected = kl_normal(mean, log_var, zero, zero).mean().item()
    assert still.history[0]["kl"] == pytest.approx(expected, rel=1e-4)
    joint = Joint(still.net, x, c, config.sigma)
    estimate = importance(joint, mean, torch.diag_embed(log_var.exp()), samples=500, generator=rng())
    assert still.history[0]["loss"] == pytest.approx(-float(estimate.log_prob.mean()), rel=0.2)


def test_generator_and_abps_generator_start_alike():
    ours, abps = fit(epochs=0, seed=3), ABP(ABPConfig(latent_dim=3, hidden=16), seed=3, device="cpu")
    abps.fit(small_dataset(), epochs=0, progress=False)
    assert torch.equal(ours.net.outer.weight, abps.net.outer.weight)


def test_values_under_the_mask_do_not_matter():
    data = small_dataset()
    mask = torch.rand(data.features.shape, generator=rng(9)) < 0.7
    clean, dirty = (
        replace(data, features=data.features.where(mask, value), mask=mask) for value in (0.0, math.nan)
    )
    assert_same_run(fit(clean), fit(dirty))
    assert not torch.equal(fit(clean).net.outer.weight, fit(data).net.outer.weight)


def test_samples_are_those_of_the_generator():
    data, model = small_dataset(), fit()
    c = data.semantics[data.unseen]
    made = model.sample(c, 5, rng())
    assert made.shape == (len(data.unseen), 5, 6)
    assert torch.equal(made, model.net.sample(c, 5, generator=rng()))


# --- seeds, runs that stop and go on, inputs ---------------------------------------------------------------


def test_the_seed_decides_everything_and_the_global_states_are_left_alone():
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_same_run(fit(), fit())
    assert not torch.equal(fit().net.outer.weight, fit(seed=1).net.outer.weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_resumed_run_is_the_uninterrupted_run(done, k, tmp_path):
    config, path = replace(SMALL, importance_samples=k), tmp_path / "vae.pt"
    fit(config=config, epochs=done, checkpoint=path)
    assert_same_run(fit(config=config, checkpoint=path), fit(config=config))


def test_a_checkpoint_of_another_method_or_setting_is_a_data_error(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(DataError, match="importance_samples"):
        fit(config=replace(SMALL, importance_samples=2), checkpoint=path)
    with pytest.raises(DataError):
        ABP(ABPConfig(latent_dim=3), device="cpu").fit(small_dataset(), checkpoint=path, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", 0.0),
        ("sigma", math.inf),
        ("latent_dim", 0),
        ("hidden", 0),
        ("encoder_hidden", 0),
        ("importance_samples", 0),
        ("batch_size", 0),
        ("lr", -1.0),
        ("epochs", -1),
    ],
)
def test_a_setting_out_of_range_is_a_data_error(name, value):
    with pytest.raises(DataError, match=rf"CVAEConfig.{name}: found {value}"):
        CVAEConfig(**{name: value})


def test_a_network_without_an_encoder_is_a_data_error():
    plain = ABP(ABPConfig(hidden=8), device="cpu")._paper_network
    with pytest.raises(DataError, match="network: found Generator, expected an encoder and a prior"):
        CVAE(SMALL, device="cpu", network=plain).fit(small_dataset(), progress=False)


# --- VZSL ------------------------------------------------------------------------------------------------


def vzsl(margin: float = 1.0, epochs: int = 2) -> VZSL:
    config = VZSLConfig(
        latent_dim=3, hidden=16, encoder_hidden=12, batch_size=20, margin=margin, epochs=epochs
    )
    return VZSL(config, seed=1, device="cpu").fit(small_dataset(), progress=False)


def test_kl_to_classes_is_kl_normal_pair_by_pair():
    g = rng(6)
    posterior = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    priors = torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g)
    found = kl_to_classes(posterior, priors)
    for i in range(4):
        each = [p[i].expand(5, 3) for p in posterior]
        torch.testing.assert_close(found[i], kl_normal(*each, *priors))


def test_with_a_margin_of_one_kl_and_margin_are_a_softmax_over_seen_classes():
    """E_q log p(x | z) + log softmax_y(−KL(q ‖ p_c))."""
    model, data = vzsl(), small_dataset()
    y = data.labels[data.trainval]
    x, c = data.features[data.trainval], data.semantics[y]
    found = bounds(model.net, x, c, model.config.sigma, samples=3, generator=rng())
    kl = kl_to_classes(found.posterior, model.net.prior(data.semantics[data.seen]))
    target = torch.searchsorted(data.seen, y)
    by_hand = found.log_likelihood.mean(0) - F.cross_entropy(-kl, target, reduction="none")
    torch.testing.assert_close(model._objective(found), by_hand)


def test_the_margin_pulls_the_priors_of_classes_apart():
    """Where σ makes x say little: a posterior then tells its class only if the margin asks for it."""
    data = small_dataset()
    y = data.labels[data.trainval]
    found = {}
    for margin in (0.0, 1.0):
        config = VZSLConfig(latent_dim=3, hidden=16, encoder_hidden=12, batch_size=20, sigma=1.0, lr=0.01)
        model = VZSL(replace(config, margin=margin), device="cpu").fit(data, epochs=100, progress=False)
        with torch.no_grad():
            posterior = model.encode(data.features[data.trainval], data.semantics[y])
            kl = kl_to_classes(posterior, model.net.prior(data.semantics[data.seen]))
        found[margin] = F.cross_entropy(-kl, torch.searchsorted(data.seen, y)).item()
    assert found[0.0] > 0.9 * math.log(5), "chance"
    assert found[1.0] < 0.5


def test_samples_are_drawn_from_the_class_prior():
    model = vzsl()
    with torch.no_grad():
        model.net.class_prior.weight.zero_()
        model.net.class_prior.bias.copy_(torch.tensor([1.0, 2.0, 3.0, -90.0, -90.0, -90.0]))
        c = small_dataset().semantics[:2]
        expected = model.net(c, torch.tensor([1.0, 2.0, 3.0]).expand(2, 3))
    made = model.sample(c, 4, rng())
    torch.testing.assert_close(made, expected[:, None].expand(2, 4, -1))


def test_vzsl_resumes_as_if_it_had_not_stopped(tmp_path):
    path = tmp_path / "half.pt"
    config = VZSLConfig(latent_dim=3, hidden=16, encoder_hidden=12, epochs=4)
    whole = VZSL(config, device="cpu").fit(small_dataset(), progress=False)
    VZSL(config, device="cpu").fit(small_dataset(), epochs=2, checkpoint=path, progress=False)
    resumed = VZSL(config, device="cpu").fit(small_dataset(), checkpoint=path, progress=False)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("margin", [-0.1, 1.1, math.nan])
def test_a_margin_out_of_range_is_a_data_error(margin):
    with pytest.raises(DataError, match=f"VZSLConfig.margin: found {margin}, expected a number from 0 to 1"):
        VZSLConfig(margin=margin)


def test_learning_that_diverges_is_an_arithmetic_error_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    config = replace(SMALL, lr=1e30)
    with pytest.raises(ArithmeticError, match=r"CVAE.fit: epoch \d+ has loss (nan|inf)"):
        CVAE(config, device="cpu").fit(small_dataset(), epochs=20, checkpoint=path, progress=False)
    if path.exists():
        assert all(math.isfinite(e["loss"]) for e in torch.load(path)["history"])
