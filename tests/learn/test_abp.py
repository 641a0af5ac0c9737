"""Algorithm 1 of paper 1: its gradients, its posterior, its likelihood, and runs that stop and go on."""

from __future__ import annotations

import copy
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn

from zsl_lib.data import ZSLDataset
from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig, abp
from zsl_lib.models import log_joint

SMALL = ABPConfig(latent_dim=3, hidden=16, langevin_steps=3, step_size=0.1, batch_size=8, epochs=4)


def fit(
    dataset: ZSLDataset | None = None, config: ABPConfig = SMALL, *, seed: int = 0, network=None, **options
) -> ABP:
    dataset = small_dataset() if dataset is None else dataset
    return ABP(config, seed=seed, device="cpu", network=network).fit(dataset, progress=False, **options)


def assert_same_run(a: ABP, b: ABP) -> None:
    """Bit for bit: weights, latents, Adam's state, random state and history but for the clock."""
    assert_same_weights(a, b)
    assert torch.equal(a.z, b.z)
    assert torch.equal(a._rng.get_state(), b._rng.get_state())
    for one, other in zip(a._adam.state.values(), b._adam.state.values(), strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert without_clock(a) == without_clock(b)


def assert_same_weights(a: ABP, b: ABP) -> None:
    for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(p, q)


def without_clock(model: ABP) -> list[dict[str, float]]:
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in model.history]


# --- the algorithm -------------------------------------------------------------------------------------


def test_the_learning_gradient_of_eq_8_agrees_with_finite_differences():
    """Ours is Eq. 8 over n, with its sign changed for a minimiser. The weights are moved one by one."""
    model, g = fit(epochs=0), rng(1)
    net = model.net.double()
    for p in net.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=g, dtype=torch.float64)
    x, c, z = (torch.randn(5, d, generator=g, dtype=torch.float64) for d in (6, 4, 3))
    before = copy.deepcopy(net)
    model.learn(z, x, c)

    @torch.no_grad()
    def eq_8_objective(at: nn.Module) -> float:
        return float((x - at(c, z)).square().sum() / (2 * SMALL.sigma**2) / len(x))

    for p, q in zip(net.parameters(), before.parameters(), strict=True):
        flat, gradient, h = q.data.view(-1), p.grad.view(-1), 1e-6
        for i in range(0, len(flat), max(1, len(flat) // 20)):
            kept = flat[i].item()
            flat[i] = kept + h
            up = eq_8_objective(before)
            flat[i] = kept - h
            down = eq_8_objective(before)
            flat[i] = kept
            assert gradient[i].item() == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-6)


def test_the_first_learning_step_is_adams():
    """Adam's first step is lr · gradient / (|gradient| + 1e-8), whatever the gradient's scale."""
    model, g = fit(epochs=0), rng(1)
    x, c, z = (torch.rand(5, d, generator=g) for d in (6, 4, 3))
    before = copy.deepcopy(model.net)
    model.learn(z, x, c)
    for p, q in zip(model.net.parameters(), before.parameters(), strict=True):
        step = SMALL.lr * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), (q - step).detach(), rtol=1e-4, atol=1e-7)


def test_inference_conditions_once_and_gives_the_chain_of_the_full_network():
    model, g = fit(epochs=0), rng(1)
    x, c, z = (torch.rand(5, d, generator=g) for d in (6, 4, 3))
    model._rng.manual_seed(5)
    found, trace = model.infer(z, x, c)
    expected = abp.langevin(
        lambda z: log_joint(x, model.net(c, z), z, SMALL.sigma),
        z,
        steps=SMALL.langevin_steps,
        step_size=SMALL.step_size,
        generator=rng(5),
    )
    torch.testing.assert_close(found, expected.z)
    torch.testing.assert_close(trace, expected.log_prob)
    assert all(p.grad is None for p in model.net.parameters()), "inference leaves the weights alone"


class LinearNet(nn.Module):
    """x = W z + A c + b in place of the network, so that likelihood and posterior are in closed form."""

    def __init__(self, k: int, d: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.W = nn.Parameter(0.1 * torch.randn(dim, d, generator=generator))
        self.A = nn.Parameter(torch.zeros(dim, k))
        self.b = nn.Parameter(torch.zeros(dim))

    def condition(self, c: Tensor) -> Tensor:
        return c @ self.A.T + self.b

    def decode(self, from_c: Tensor, z: Tensor) -> Tensor:
        return from_c + z @ self.W.T

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        return self.decode(self.condition(c), z)

    def world(self, sigma: float) -> LinearGaussian:
        return LinearGaussian(self.W.detach(), self.A.detach(), self.b.detach(), sigma)


@pytest.fixture
def world() -> tuple[LinearGaussian, ZSLDataset]:
    g = rng(4)
    made = linear_gaussian(8, 2, 3, sigma=0.5, generator=g)
    return made, made.dataset(seen=10, unseen=2, per_class=50, generator=g)


def test_learning_brings_the_exact_likelihood_to_that_of_the_true_world(world):
    true, dataset = world
    x, c = dataset.features[dataset.trainval], dataset.semantics[dataset.labels[dataset.trainval]]
    loss = []  # exact negative log-likelihood, nats an example

    def measure(model: ABP) -> None:
        loss.append(float(-model.net.world(true.sigma).log_prob(x, c).mean()))

    config = ABPConfig(
        latent_dim=2, sigma=true.sigma, langevin_steps=10, step_size=0.2, batch_size=40, lr=0.02, epochs=40
    )
    fit(dataset, config, network=LinearNet, after_epoch=measure)
    best = float(-true.log_prob(x, c).mean())
    assert loss[0] > loss[4] > loss[9] > loss[19]
    assert loss[0] > best + 5, "the start is far from the truth"
    assert loss[-1] == pytest.approx(best, abs=0.2)


def test_persistent_latents_are_samples_of_each_rows_own_posterior(world, monkeypatch):
    """The weights stay at the truth. On a Gaussian posterior of precision P the chain's stationary law is
    N(posterior mean, P⁻¹ (I − s²P/4)⁻¹), so whitened latents are standard normal, row by row."""
    true, dataset = world
    dataset = replace(dataset, trainval=dataset.trainval[torch.randperm(400, generator=rng())])
    config = ABPConfig(latent_dim=2, sigma=true.sigma, step_size=0.3, langevin_steps=10, lr=0.0)
    model = fit(dataset, config, network=LinearNet, epochs=0)
    monkeypatch.setattr(ABP, "_start", lambda *_: None)  # go on from the weights put in below
    with torch.no_grad():
        for name in ("W", "A", "b"):
            getattr(model.net, name).copy_(getattr(true, name))
    whitened = []
    for _ in range(5):
        model.fit(dataset, epochs=len(model.history) + 4, progress=False)
        x, c = dataset.features[dataset.trainval], dataset.semantics[dataset.labels[dataset.trainval]]
        mean, cov = true.posterior(x, c)
        discretised = cov @ torch.linalg.inv(torch.eye(2) - config.step_size**2 / 4 * torch.linalg.inv(cov))
        root = torch.linalg.cholesky(discretised)
        whitened.append(torch.linalg.solve_triangular(root, (model.z - mean).T, upper=False).T)
    found, n = torch.cat(whitened), 5 * 400
    torch.testing.assert_close(found.mean(0), torch.zeros(2), rtol=0, atol=4.5 / math.sqrt(n))
    torch.testing.assert_close(torch.cov(found.T), torch.eye(2), rtol=0, atol=4.5 * math.sqrt(2 / n))


def test_with_the_papers_network_learning_reduces_the_likelihood_found_by_quadrature():
    """One latent dimension, so Eq. 3 is an integral over a line."""
    dataset = small_dataset(per_class=15)
    config = replace(SMALL, latent_dim=1, sigma=0.15, batch_size=10, langevin_steps=5, step_size=0.1)
    x, c = dataset.features[dataset.trainval], dataset.semantics[dataset.labels[dataset.trainval]]
    nodes, weights = (torch.from_numpy(a).float() for a in np.polynomial.hermite_e.hermegauss(60))

    @torch.no_grad()
    def exact_loss(model: ABP) -> float:
        log_p = torch.stack(
            [-(x - model.net(c, z.expand(len(x), 1))).square().sum(1) / (2 * 0.15**2) for z in nodes]
        )
        log_w = (weights / math.sqrt(2 * math.pi)).log()[:, None]
        return float(-(log_p + log_w).logsumexp(0).mean())

    loss = [exact_loss(fit(dataset, config, epochs=0))]
    fit(dataset, config, epochs=30, after_epoch=lambda model: loss.append(exact_loss(model)))
    assert loss[0] > loss[5] > loss[15] > loss[30]
    assert loss[30] < loss[0] / 2


def test_a_batch_moves_the_latents_of_its_own_rows_and_no_others():
    class OneBatch(ABP):
        def infer(self, z, x, c, mask=None):
            if hasattr(self, "x"):
                raise StopIteration
            self.x = x
            return super().infer(z, x, c, mask)

    dataset, start = small_dataset(), fit(epochs=0).z
    model = OneBatch(SMALL, seed=0, device="cpu")
    with pytest.raises(StopIteration):
        model.fit(dataset, progress=False)
    moved = (model.z != start).any(1)
    assert int(moved.sum()) == SMALL.batch_size < len(start)
    visited = dataset.features[dataset.trainval[moved]]
    assert {tuple(r) for r in visited.tolist()} == {tuple(r) for r in model.x.tolist()}


def test_an_epoch_visits_every_row_once():
    class Spy(ABP):
        visited = 0

        def infer(self, z, x, c, mask=None):
            self.visited += len(x)
            return super().infer(z, x, c, mask)

    start, model = fit(epochs=0).z, Spy(SMALL, seed=0, device="cpu")
    model.fit(small_dataset(), epochs=1, progress=False)
    assert model.visited == len(start) == len(small_dataset().trainval)
    assert (model.z != start).any(1).all()


def test_the_history_describes_the_latents():
    model = fit()
    assert [epoch["epoch"] for epoch in model.history] == [1, 2, 3, 4]
    last = model.history[-1]
    assert last["z_variance"] == pytest.approx(model.z.square().mean().item(), rel=1e-5)
    before = fit(epochs=3).z
    assert last["moved"] == pytest.approx((model.z - before).square().mean().sqrt().item(), rel=1e-5)


def test_inference_in_bfloat16_follows_the_float32_chain():
    """Same noise, same start: the chains stay together within the rounding of the products."""
    g = rng(1)
    x, c = torch.rand(64, 6, generator=g), torch.rand(64, 4, generator=g)
    z = torch.randn(64, 3, generator=g)
    chains = {}
    for precision in ("float32", "bfloat16"):
        model = fit(config=replace(SMALL, precision=precision), epochs=2)
        for p in model.net.parameters():
            p.data = torch.randn(p.shape, generator=rng(2)) * 0.5
        chains[precision], _ = model.infer(z, x, c, generator=rng(3))
        assert chains[precision].dtype == torch.float32
    apart, moved = chains["bfloat16"] - chains["float32"], chains["float32"] - z
    assert 0 < apart.square().mean().sqrt() < 0.05 * moved.square().mean().sqrt()


def test_an_unknown_precision_is_a_data_error():
    with pytest.raises(DataError, match="precision: found 'half', expected float32 or bfloat16"):
        ABPConfig(precision="half")


def test_without_langevin_steps_the_latents_stay_as_drawn():
    config = replace(SMALL, langevin_steps=0)
    model, start = fit(config=config), fit(config=config, epochs=0)
    assert torch.equal(model.z, start.z)
    assert model.history[-1]["moved"] == 0
    assert model.history[-1]["loss"] < model.history[0]["loss"]


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_values_under_the_mask_do_not_matter(junk):
    data = small_dataset()
    mask = torch.rand(data.features.shape, generator=rng(9)) < 0.7
    clean, dirty = (
        replace(data, features=data.features.where(mask, value), mask=mask) for value in (0.0, junk)
    )
    a, b = fit(clean), fit(dirty)
    assert_same_run(a, b)
    assert not torch.equal(a.z, fit(replace(clean, mask=None)).z), "the mask itself matters"


def test_synthetic_features_have_one_block_a_class_and_are_reproducible():
    data = small_dataset()
    model = fit(data)
    c = data.semantics[data.unseen]
    a, b, other = (model.sample(c, 5, rng(s)) for s in (0, 0, 1))
    assert a.shape == (len(data.unseen), 5, 6)
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    noise = model.sample(c, 2000, rng(0), noise=True) - model.sample(c, 2000, rng(0))
    assert noise.std().item() == pytest.approx(SMALL.sigma, rel=0.02)


# --- seeds and silence ---------------------------------------------------------------------------------


def test_the_seed_decides_everything():
    a, b, other = fit(seed=0), fit(seed=0), fit(seed=1)
    assert_same_run(a, b)
    assert not torch.equal(a.net.outer.weight, other.net.outer.weight)
    assert not torch.equal(a.z, other.z)


def test_fitting_again_starts_again():
    model = fit(seed=3)
    once = copy.deepcopy(model)
    assert_same_run(model.fit(small_dataset(), progress=False), once)


def test_the_global_random_states_are_left_alone():
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit().sample(torch.rand(2, 4, generator=rng()), 3, rng(), noise=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


def test_without_progress_nothing_is_printed(capsys):
    fit()
    assert tuple(capsys.readouterr()) == ("", "")


def test_images_alone_are_a_data_error():
    data = replace(small_dataset(), features=None, images=torch.zeros(72, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match="features: found none"):
        fit(data)


def test_negative_epochs_are_a_data_error():
    with pytest.raises(DataError, match="fit: epochs: found -1, expected 0 or more"):
        fit(epochs=-1)


def test_a_diverging_chain_is_an_arithmetic_error():
    with pytest.raises(ArithmeticError, match="step_size 1000"):
        fit(config=replace(SMALL, step_size=1000.0, langevin_steps=30))


# --- runs that stop and go on --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> ABP:
    return fit()


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_a_resumed_run_is_the_uninterrupted_run(done, whole, tmp_path):
    path = tmp_path / "run" / "abp.pt"
    fit(epochs=done, checkpoint=path)
    assert path.exists() == (done > 0)
    assert_same_run(fit(checkpoint=path), whole)


def test_a_checkpoint_changes_nothing_in_a_run_without_interruption(whole, tmp_path):
    assert_same_run(fit(checkpoint=tmp_path / "abp.pt"), whole)


def test_an_interrupt_within_an_epoch_loses_that_epoch_only(whole, tmp_path, monkeypatch):
    path, learn, calls = tmp_path / "abp.pt", ABP.learn, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 7:  # four batches an epoch: in the second
            raise KeyboardInterrupt
        return learn(self, *args)

    monkeypatch.setattr(ABP, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint=path)
    assert len(torch.load(path)["history"]) == 1
    assert_same_run(fit(checkpoint=path), whole)


def test_a_failure_while_writing_leaves_the_checkpoint_before_it(whole, tmp_path, monkeypatch):
    path = tmp_path / "abp.pt"
    fit(epochs=2, checkpoint=path)
    kept = path.read_bytes()

    def full_disk(state, file):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            fit(checkpoint=path)
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["abp.pt"]
    assert_same_run(fit(checkpoint=path), whole)


KILLED = """
import os, signal, sys
from test_abp import ABP, SMALL, small_dataset
learn, calls = ABP.learn, []
def killed(self, *args):
    calls.append(1)
    if len(calls) == 11:  # in the third epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, *args)
ABP.learn = killed
ABP(SMALL, seed=0, device="cpu").fit(small_dataset(), checkpoint=sys.argv[1], progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(whole, tmp_path):
    here, path = Path(__file__).parent, tmp_path / "abp.pt"
    code = f"import sys; sys.path[:0] = {[str(here), str(here.parent)]!r}\n{KILLED}"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["abp.pt"]
    assert len(torch.load(path)["history"]) == 2
    resumed = fit(checkpoint=path)
    assert len(resumed.history) == 4
    for p, q in zip(resumed.net.parameters(), whole.net.parameters(), strict=True):
        torch.testing.assert_close(p, q)  # another process may use another number of threads


def other_labels(d: ZSLDataset) -> ZSLDataset:
    labels = d.labels.clone()
    a, b = d.seen[:2]
    labels[d.labels == a], labels[d.labels == b] = b, a
    return replace(d, labels=labels)


OTHER_DATA = {
    "features": lambda d: replace(d, features=d.features + 0.01),
    "labels": other_labels,
    "semantics": lambda d: replace(d, semantics=d.semantics.flip(1)),
    "more semantics": lambda d: replace(d, semantics=torch.cat([d.semantics, d.semantics], 1)),
    "mask": lambda d: replace(d, mask=torch.rand(d.features.shape, generator=rng()) < 0.9),
    "trainval": lambda d: replace(d, trainval=d.trainval.flip(0)),
}


@pytest.mark.parametrize("what", OTHER_DATA)
def test_a_checkpoint_of_other_data_is_refused(what, tmp_path):
    path = tmp_path / "abp.pt"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(DataError, match=r"abp\.pt: found \{'data': '[0-9a-f]{64}'\}, expected \{'data':"):
        fit(OTHER_DATA[what](small_dataset()), checkpoint=path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latent_dim", 2),
        ("hidden", 8),
        ("sigma", 0.5),
        ("lr", 0.1),
        ("betas", (0.5, 0.999)),
        ("batch_size", 9),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_names_what_differs(key, value, tmp_path):
    path = tmp_path / "abp.pt"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(DataError) as caught:
        fit(config=replace(SMALL, **{key: value}), checkpoint=path)
    assert caught.value.where == str(path)
    assert set(caught.value.found) == set(caught.value.expected) == {key}


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    path = tmp_path / "abp.pt"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(DataError, match=r"found \{'seed': 0\}, expected \{'seed': 1\}"):
        fit(seed=1, checkpoint=path)


def test_a_checkpoint_may_go_on_to_more_epochs(tmp_path):
    path = tmp_path / "abp.pt"
    fit(checkpoint=path)
    assert_same_run(fit(config=replace(SMALL, epochs=6), checkpoint=path), fit(epochs=6))


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "flipped", "another torch file"])
def test_a_damaged_checkpoint_is_a_data_error_that_names_the_file(damage, tmp_path):
    path = tmp_path / "abp.pt"
    fit(epochs=1, checkpoint=path)
    content = path.read_bytes()
    if damage == "another torch file":
        torch.save({"net": {}}, path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[: len(content) // 2],
                "text": b"no checkpoint",
                "flipped": content[:200] + bytes(255 - b for b in content[200:260]) + content[260:],
            }[damage]
        )
    with pytest.raises(DataError, match=r"abp\.pt: found .*expected one of"):
        fit(checkpoint=path)
