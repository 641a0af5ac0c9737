"""The GANs: each term's value and gradient, a known Wasserstein distance, and runs that stop and go on."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.gan import (
    GANS,
    Batch,
    FeatureGAN,
    GANConfig,
    critic_terms,
    fitted,
    gan_config,
    generator_terms,
    pivot,
)
from zsl_lib.metrics import evaluate
from zsl_lib.models.critic import Critic
from zsl_lib.models.generator import Generator, linear

TINY = {"hidden": 16, "critic_hidden": 12, "batch_size": 8, "epochs": 3, "head_epochs": 2}
ALL = GANConfig(latent_dim=3, cycle=0.5, pivot=0.5, auxiliary=0.5, **TINY)


def fit(
    config: GANConfig = ALL, dataset: ZSLDataset | None = None, *, seed: int = 0, **options
) -> FeatureGAN:
    dataset = small_dataset() if dataset is None else dataset
    return FeatureGAN(config, seed=seed, device="cpu").fit(dataset, progress=False, **options)


def clockless(model: FeatureGAN) -> list[dict[str, float]]:
    return [{k: v for k, v in e.items() if k != "seconds"} for e in model.history]


def assert_same_run(a: FeatureGAN, b: FeatureGAN) -> None:
    """Bit for bit: weights, both Adams, random state and history but for the clock."""
    for name in ("net", "critic", "heads"):
        for p, q in zip(getattr(a, name).parameters(), getattr(b, name).parameters(), strict=True):
            assert torch.equal(p, q)
    for name in ("_adam", "_critic_adam"):
        states = (getattr(m, name).state.values() for m in (a, b))
        for one, other in zip(*states, strict=True):
            assert all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(a._rng.get_state(), b._rng.get_state())
    assert clockless(a) == clockless(b)


# --- the terms -------------------------------------------------------------------------------------------


def doubled(net: nn.Module) -> nn.Module:
    """In float64, with weights so large that the network bends."""
    for i, p in enumerate(net.double().parameters()):
        p.data = 0.5 * torch.randn(p.shape, generator=rng(i), dtype=torch.float64)
    return net


class World:
    """A critic, a generator, heads and a batch of 6 with 3 classes."""

    def __init__(self) -> None:
        self.critic = doubled(Critic(5, 4, 9, classes=3))
        self.net = doubled(Generator(4, 2, 5, 8))
        self.heads = doubled(nn.ModuleDict({"classification": nn.Linear(5, 3), "cycle": nn.Linear(5, 4)}))
        x, c, self.z, self.mix = (
            torch.rand(6, n, generator=rng(n), dtype=torch.float64) for n in (5, 4, 2, 1)
        )
        self.batch = Batch(x, c, torch.tensor([0, 1, 2, 0, 2, 2]))
        self.means = torch.rand(3, 5, generator=rng(9), dtype=torch.float64)

    def critics(self) -> dict[str, Tensor]:
        return critic_terms(self.critic, self.batch, self.net(self.batch.c, self.z).detach(), self.mix)

    def generators(self) -> dict[str, Tensor]:
        fake = self.net(self.batch.c, self.z)
        return generator_terms(self.critic, self.batch, fake, self.heads, self.means)


def test_the_critics_terms_are_their_formulas():
    w = World()
    x, c, y = w.batch
    fake = w.net(c, w.z).detach()
    terms = w.critics()
    assert set(terms) == {"distance", "penalty", "auxiliary"}
    torch.testing.assert_close(terms["distance"], w.critic(x, c).mean() - w.critic(fake, c).mean())
    between = (w.mix * x + (1 - w.mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(w.critic(between, c).sum(), between)
    torch.testing.assert_close(terms["penalty"], (slope.norm(dim=1) - 1).square().mean())
    log_p = [w.critic.classify(w.critic.activate(v, w.critic.condition(c))).log_softmax(1) for v in (x, fake)]
    halves = [-p.gather(1, y[:, None]).mean() for p in log_p]
    torch.testing.assert_close(terms["auxiliary"], (halves[0] + halves[1]) / 2)


def test_the_generators_terms_are_their_formulas():
    w = World()
    _, c, y = w.batch
    fake, terms = w.net(c, w.z), w.generators()
    assert set(terms) == {"critic", "classification", "cycle", "auxiliary", "pivot"}
    torch.testing.assert_close(terms["critic"], -w.critic(fake, c).mean())
    log_p = w.heads["classification"](fake).log_softmax(1)
    torch.testing.assert_close(terms["classification"], -log_p.gather(1, y[:, None]).mean())
    torch.testing.assert_close(terms["cycle"], (c - w.heads["cycle"](fake)).square().sum() / 6)
    log_p = w.critic.classify(w.critic.activate(fake, w.critic.condition(c))).log_softmax(1)
    torch.testing.assert_close(terms["auxiliary"], -log_p.gather(1, y[:, None]).mean())
    squares = [(fake[y == i].mean(0) - w.means[i]).square().sum() for i in range(3)]
    torch.testing.assert_close(terms["pivot"], torch.stack(squares).mean())


def test_the_pivot_is_over_the_classes_of_the_batch():
    x, y = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([4, 4, 1])
    means = torch.zeros(6, 2)
    assert float(pivot(x, y, means)) == pytest.approx((4 + 25) / 2)


@pytest.mark.parametrize("term", ["distance", "penalty", "auxiliary"])
def test_gradients_of_the_critics_terms_agree_with_finite_differences(term):
    w = World()
    check_gradient(lambda: w.critics()[term], w.critic)


@pytest.mark.parametrize("term", ["critic", "classification", "cycle", "auxiliary", "pivot"])
def test_gradients_of_the_generators_terms_agree_with_finite_differences(term):
    w = World()
    check_gradient(lambda: w.generators()[term], w.net)


def check_gradient(value, net: nn.Module) -> None:
    parameters, some = list(net.parameters()), False
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    for p, gradient in zip(parameters, gradients, strict=True):
        flat, h = p.data.view(-1), 1e-6
        for i in range(0, len(flat), max(1, len(flat) // 9)):
            kept = flat[i].item()
            flat[i] = kept + h
            up = value().item()
            flat[i] = kept - h
            down = value().item()
            flat[i] = kept
            ours = 0.0 if gradient is None else gradient.view(-1)[i].item()
            assert ours == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-7)
            some = some or ours != 0
    assert some


def test_steps_descend_the_weighted_sums_with_adam():
    model = fit(epochs=0)
    data = small_dataset()
    rows = data.trainval[:6]
    batch = Batch(data.features[rows], data.semantics[data.labels[rows]], model._y[:6])
    fake = torch.rand(6, 6, generator=rng(4))
    before, state = copy.deepcopy((model.net, model.critic)), model._rng.get_state()
    found = model.learn_critic(batch, fake)
    model._rng.set_state(state)
    mix = torch.rand(6, 1, generator=model._rng)
    terms = critic_terms(before[1], batch, fake, mix)
    loss = -terms["distance"] + 10 * terms["penalty"] + 0.5 * terms["auxiliary"]
    assert_adam_step(loss, before[1], model.critic, found, terms)

    critic, state = copy.deepcopy(model.critic), model._rng.get_state()
    found = model.learn_generator(batch)
    model._rng.set_state(state)
    made = before[0](batch.c, torch.randn(6, 3, generator=model._rng))
    terms = generator_terms(model.critic, batch, made, model.heads, model._means)
    loss = terms["critic"] + 0.01 * terms["classification"]
    loss = loss + 0.5 * (terms["cycle"] + terms["pivot"] + terms["auxiliary"])
    assert_adam_step(loss, before[0], model.net, found, terms)
    for p, q in zip(critic.parameters(), model.critic.parameters(), strict=True):
        assert torch.equal(p, q), "the generator's step moved the critic"


def assert_adam_step(loss: Tensor, before: nn.Module, after: nn.Module, found: dict, terms: dict) -> None:
    assert set(found) == set(terms)
    for name in terms:
        torch.testing.assert_close(found[name], terms[name].detach())
    gradients = torch.autograd.grad(loss, list(before.parameters()), allow_unused=True)
    for p, q, g in zip(after.parameters(), before.parameters(), gradients, strict=True):
        g = torch.zeros_like(q) if g is None else g
        step = 1e-4 * g / (g.abs() + 1e-8)
        big = g.abs() > 1e-6  # below, rounding of the gradient decides the sign of Adam's first step
        torch.testing.assert_close(p.detach()[big], (q - step).detach()[big], rtol=1e-3, atol=2e-7)


def test_the_critics_distance_approaches_that_of_two_gaussians():
    """W₁(N(0, I), N(m, I)) = ‖m‖. Fresh samples each step, so nothing is fitted but the two laws."""
    m = torch.tensor([1.2, -0.9])  # ‖m‖ = 1.5
    critic = Critic(2, 0, 64, generator=rng())
    adam = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.999))
    g, found = rng(1), []
    for _ in range(400):
        x, fake = torch.randn(2, 256, 2, generator=g)
        batch = Batch(x + m, x.new_empty(256, 0), torch.zeros(256, dtype=torch.long))
        terms = critic_terms(critic, batch, fake, torch.rand(256, 1, generator=g))
        adam.zero_grad()
        (10 * terms["penalty"] - terms["distance"]).backward()
        adam.step()
        found.append(float(terms["distance"].detach()))
    # the penalty is soft: a slope s gains s W − λ (s − 1)², at best with s = 1 + W / 2λ
    assert np.mean(found[-200:]) == pytest.approx(1.5 * (1 + 1.5 / 20), rel=0.05)
    assert np.mean(found[:5]) < 0.3


def test_heads_fit_what_they_are_fitted_to_and_are_frozen():
    x = torch.randn(100, 4, generator=rng())
    target = 0.2 * x[:, :2] + 0.1
    head = fitted(linear(4, 2, rng(2)), F.mse_loss, x, target, 500, rng(3))
    torch.testing.assert_close(head(x), target, rtol=0, atol=0.02)
    assert not any(p.requires_grad for p in head.parameters())
    y = (x[:, 0] > 0).long()
    head = fitted(linear(4, 2, rng(2)), F.cross_entropy, x, y, 300, rng(3))
    assert float((head(x).argmax(1) == y).float().mean()) > 0.9


# --- learning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("fgzsl", {"critic", "classification"}),
        ("gazsl", {"critic", "pivot", "auxiliary", "critic_auxiliary"}),
        ("mcgzsl", {"critic", "classification", "cycle"}),
    ],
)
def test_each_method_reports_its_own_terms(name, terms):
    model = fit(gan_config(name, **TINY))
    keys = set(model.history[-1])
    assert keys == terms | {"epoch", "loss", "penalty", "seconds"}
    assert [e["epoch"] for e in model.history] == [1, 2, 3]
    assert model.config.latent_dim == (100 if name == "gazsl" else 4)
    assert (model.critic.auxiliary is not None) == (name == "gazsl")
    assert model.critic.semantic.shape[1] == (0 if name == "gazsl" else 4)


def test_the_published_settings_can_be_changed_and_others_do_not_exist():
    assert gan_config("fgzsl") == GANConfig()
    assert gan_config("gazsl", batch_size=64) == GANConfig(**(GANS["gazsl"] | {"batch_size": 64}))
    with pytest.raises(DataError, match="gan: found 'wgan', expected one of fgzsl, gazsl, mcgzsl"):
        gan_config("wgan")


@pytest.mark.parametrize("name", ["fgzsl", "gazsl", "mcgzsl"])
def test_each_method_recognises_unseen_classes_of_an_easy_world(name):
    data = small_dataset(seen=20, unseen=4, per_class=12, dim=12, noise=0.1)
    widths = {"hidden": 64, "critic_hidden": 64, "batch_size": 32}
    model = FeatureGAN(gan_config(name, lr=3e-3, epochs=100, **widths), seed=0, device="cpu")
    found = evaluate(SyntheticRecogniser(model, samples=30).fit(data, progress=False), data)
    assert found.T1 > 60, "chance is 25"


def test_the_loss_is_the_mean_distance_of_the_critics_steps():
    model = fit(replace(ALL, lr=0.0), epochs=1)
    again = fit(replace(ALL, lr=0.0), epochs=0)
    values = []

    def kept(batch: Batch, fake: Tensor, learn=again.learn_critic) -> dict[str, Tensor]:
        values.append(learn(batch, fake))
        return values[-1]

    again.learn_critic = kept
    again.fit(small_dataset(), epochs=1, progress=False)
    assert len(values) == math.ceil(30 / 8) * 5
    mean = {name: float(torch.stack([v[name] for v in values]).mean()) for name in values[0]}
    entry = model.history[0]
    found = entry["loss"], entry["penalty"], entry["critic_auxiliary"]
    assert found == pytest.approx((mean["distance"], mean["penalty"], mean["auxiliary"]), rel=1e-5)


def test_bfloat16_gives_the_same_terms_but_for_its_rounding():
    """One step from the same weights, of some width: terms to 2 %, and the weights stay float32."""
    wide = replace(ALL, hidden=256, critic_hidden=256, latent_dim=8)
    data = small_dataset(seen=20, unseen=4, dim=64, semantic_dim=16)
    exact, rounded = (
        fit(replace(wide, precision=p, lr=1e-3), data, epochs=4) for p in ("float32", "bfloat16")
    )
    assert all(p.dtype == torch.float32 for p in [*rounded.net.parameters(), *rounded.critic.parameters()])
    for name, value in exact.history[-1].items():
        if name != "seconds":
            assert rounded.history[-1][name] == pytest.approx(value, rel=0.05, abs=0.02), name
    assert not torch.equal(exact.net.outer.weight, rounded.net.outer.weight)


def test_a_run_that_diverges_has_no_finite_loss():
    model = FeatureGAN(replace(ALL, lr=1e12, epochs=4), device="cpu")
    with pytest.raises(ArithmeticError):
        model.fit(small_dataset(), progress=False)


@pytest.mark.parametrize("where", ["net", "critic"])
def test_one_weight_that_is_not_finite_makes_the_loss_so(where):
    model = fit(epochs=1)
    entry = {"distance": 1.0, "penalty": 0.0}
    assert model._is_finite(entry)
    next(getattr(model, where).parameters()).data.view(-1)[0] = math.inf
    assert not model._is_finite(entry)
    assert not fit(epochs=0)._is_finite(entry | {"penalty": math.nan})


def test_values_under_the_mask_do_not_matter():
    data = small_dataset()
    mask = torch.rand(data.features.shape, generator=rng(9)) < 0.7
    clean, dirty = (
        replace(data, features=data.features.where(mask, value), mask=mask) for value in (0.0, math.nan)
    )
    assert_same_run(fit(dataset=clean), fit(dataset=dirty))
    zeros = replace(data, features=data.features.where(mask, 0.0))
    assert clockless(fit(dataset=clean)) == clockless(fit(dataset=zeros))


def test_samples_are_those_of_the_generator_without_noise():
    data, model = small_dataset(), fit(gan_config("fgzsl", **TINY))
    c = data.semantics[data.unseen]
    made = model.sample(c, 5, rng())
    assert made.shape == (len(data.unseen), 5, 6)
    assert torch.equal(made, model.net.sample(c, 5, generator=rng()))
    assert torch.equal(made, model.sample(c, 5, rng(), noise=True)), "a GAN has no ε"


def test_any_network_can_be_the_generator():
    class Affine(nn.Module):
        def __init__(self, k: int, d: int, dim: int, generator: torch.Generator) -> None:
            super().__init__()
            self.map = linear(k + d, dim, generator)

        def forward(self, c: Tensor, z: Tensor) -> Tensor:
            return self.map(torch.cat([c, z], 1))

    model = FeatureGAN(ALL, device="cpu", network=Affine).fit(small_dataset(), progress=False)
    assert model.sample(small_dataset().semantics, 2).shape == (8, 2, 6)


# --- seeds, runs that stop and go on, inputs ---------------------------------------------------------------


def test_the_seed_decides_everything_and_the_global_states_are_left_alone():
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_same_run(fit(), fit())
    assert not torch.equal(fit().net.outer.weight, fit(seed=1).net.outer.weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


@pytest.mark.parametrize("config", [ALL, *(gan_config(name, **TINY) for name in GANS)])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_resumed_run_is_the_uninterrupted_run(done, config, tmp_path):
    path = tmp_path / "gan.pt"
    fit(config, epochs=done, checkpoint=path)
    assert_same_run(fit(config, checkpoint=path), fit(config))


def test_a_checkpoint_of_another_method_or_setting_is_a_data_error(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(DataError, match="critic_steps"):
        fit(replace(ALL, critic_steps=2), checkpoint=path)
    with pytest.raises(DataError):
        ABP(ABPConfig(latent_dim=3), device="cpu").fit(small_dataset(), checkpoint=path, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", -1),
        ("hidden", 0),
        ("critic_hidden", 0),
        ("critic_steps", 0),
        ("batch_size", 0),
        ("penalty", -1.0),
        ("classification", math.nan),
        ("cycle", -0.1),
        ("pivot", -0.1),
        ("auxiliary", math.inf),
        ("lr", -1.0),
        ("weight_decay", -1.0),
        ("epochs", -1),
        ("head_epochs", -1),
    ],
)
def test_a_setting_out_of_range_is_a_data_error(name, value):
    with pytest.raises(DataError, match=rf"GANConfig.{name}: found {value}"):
        GANConfig(**{name: value})


def test_a_precision_of_another_name_is_a_data_error():
    with pytest.raises(DataError, match="precision: found 'half', expected float32 or bfloat16"):
        GANConfig(precision="half")
