"""What c and z explain, on worlds where it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import World, rng
from torch import nn

from zsl_lib import latent
from zsl_lib.data.toy import linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig


@pytest.fixture(scope="module")
def truth():
    g = rng(5)
    world = linear_gaussian(8, 2, 3, sigma=0.4, generator=g)
    data = world.dataset(seen=10, unseen=4, per_class=60, generator=g)
    config = ABPConfig(latent_dim=2, sigma=0.4, step_size=0.1, lr=0.0)
    model = ABP(config, seed=0, device="cpu", network=lambda k, d, dim, rng: World(world))
    return world, data, model.fit(data, epochs=0, progress=False)


def test_the_law_of_total_variance_is_exact_for_a_linear_generator(truth):
    world, data, model = truth
    found = latent.model_shares(model, data.semantics, 20_000, rng())
    between = world.mean(data.semantics).var(0, correction=0).sum().item()
    assert found.between == pytest.approx(between, rel=0.02)
    assert found.within == pytest.approx(world.W.square().sum().item(), rel=0.02)
    assert found.noise == pytest.approx(0.4**2 * 8)
    assert found.total == found.between + found.within + found.noise


def test_shares_have_no_bias_even_with_two_examples_a_class():
    g, sizes = rng(), (2, 3, 5)
    means = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    found = [
        latent.shares([m + torch.randn(n, 2, generator=g) for m, n in zip(means, sizes, strict=True)])
        for _ in range(4000)
    ]
    for part, exact in (("between", means.var(0, correction=0).sum().item()), ("within", 2.0)):
        values = torch.tensor([getattr(f, part) for f in found])
        assert abs(values.mean().item() - exact) < 4 * values.std().item() / 4000**0.5


def test_data_shares_are_those_of_the_world(truth):
    world, data, _ = truth
    found = latent.data_shares(data, data.trainval)
    between = world.mean(data.semantics[data.seen]).var(0, correction=0).sum().item()
    assert found.between == pytest.approx(between, rel=0.1)
    assert found.within == pytest.approx(world.covariance().trace().item(), rel=0.1)


@pytest.mark.parametrize("groups", [[], [torch.zeros(1, 3), torch.zeros(2, 3)]])
def test_shares_need_two_examples_a_class(groups):
    with pytest.raises(DataError, match="2 or more"):
        latent.shares(groups)


def test_a_probe_reads_what_is_there_and_nothing_else():
    z, classes = torch.randn(600, 3, generator=rng()), torch.arange(600) % 20
    number = 2 * z[:, 0] - z[:, 1]
    found = latent.probe(z, number.numpy(), classes)
    assert found.score > 99.9
    assert found.control < 5
    name = np.array(["low", "middle", "high"])[np.digitize(number.numpy(), [-1, 1])]
    read = latent.probe(z, name, classes)
    assert read.score > 80 > read.control
    assert latent.probe(torch.randn(600, 3, generator=rng(1)), number.numpy(), classes).score < 5


def test_a_probe_is_asked_about_other_classes():
    """z that only names the class says nothing about a class that the probe has not seen."""
    classes = torch.arange(600) % 20
    z = nn.functional.one_hot(classes, 20).float()
    value = torch.randn(20, generator=rng())[classes]
    assert latent.probe(z, value.numpy(), classes).score < 5


def test_infer_samples_the_posterior(truth):
    world, data, model = truth
    one = data.test_unseen[:1].expand(4000)
    z = latent.infer(model, data, one, steps=300)
    mean, cov = world.posterior(data.x(one[:1]), data.semantics[data.labels[one[:1]]])
    assert torch.allclose(z.mean(0), mean[0], atol=0.02)
    assert torch.allclose(torch.cov(z.T), cov, atol=0.02)


def styled(truth, latents):
    """The data set with noiseless examples whose z is that of their style."""
    world, data, _ = truth
    styles = np.array([f"style {i % len(latents)}" for i in range(len(data))])
    z = latents[torch.arange(len(data)) % len(latents)]
    c = data.semantics[data.labels]
    return replace(data, features=world.mean(c) + z @ world.W.T), styles


def test_transfer_compares_with_the_true_examples(truth):
    world, _, model = truth
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.5], [-2.0, 0.5]])
    data, styles = styled(truth, latents)
    found = latent.transfer(model, data, styles, latents)
    size = (latents @ world.W.T).square().sum(1)
    gap = ((latents - latents.roll(-1, 0)) @ world.W.T).square().sum(1)
    assert found.own.max() < 1e-8
    assert torch.allclose(found.mean, size, rtol=1e-4)
    assert torch.allclose(found.other, gap, rtol=1e-4)
    assert (found.prior > found.own).all()
    assert (found.identified == 100).all()


def test_style_latents_find_the_z_of_each_style(truth):
    _, _, model = truth
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.5], [-2.0, 0.5]])
    data, styles = styled(truth, latents)
    sharp = ABP(replace(model.config, sigma=0.05, step_size=0.03), device="cpu", network=model.network)
    sharp.fit(data, epochs=0, progress=False)
    found = latent.style_latents(sharp, data, styles, letters=10)
    assert torch.allclose(found, latents, atol=0.1)


@pytest.mark.parametrize("letters", [0, 10_000])
def test_style_latents_refuse_more_letters_than_there_are(truth, letters):
    data, styles = styled(truth, torch.zeros(2, 2))
    with pytest.raises(DataError, match="letters"):
        latent.style_latents(truth[2], data, styles, letters=letters)


def test_transfer_needs_a_latent_for_each_style(truth):
    data, styles = styled(truth, torch.zeros(2, 2))
    with pytest.raises(DataError, match="one a style"):
        latent.transfer(truth[2], data, styles, torch.zeros(3, 2))


def test_slerp_goes_at_constant_speed_on_an_arc():
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    path = latent.slerp(start, end, torch.linspace(0, 1, 5))
    assert torch.allclose(path[[0, -1]], torch.stack([start, end]), atol=1e-6)
    assert torch.allclose(path.norm(dim=1), torch.full((5,), 2.0))
    steps = path.diff(dim=0).norm(dim=1)
    assert torch.allclose(steps, steps[:1].expand(4), rtol=1e-5)
    same = latent.slerp(start, start, torch.linspace(0, 1, 3))
    assert torch.allclose(same, start.expand(3, -1))


def test_precision_and_recall_by_hand():
    real, made = torch.randn(40, 2, generator=rng()), torch.randn(30, 2, generator=rng(1)) + 1

    def share(points, others):
        hits = 0
        for p in points:
            for o in others:
                radius = sorted((o - other).norm().item() for other in others)[2]
                if (p - o).norm().item() <= radius:
                    hits += 1
                    break
        return 100 * hits / len(points)

    found = latent.precision_recall(real, made, k=2)
    assert found == pytest.approx((share(made, real), share(real, made)))


def test_precision_falls_with_wrong_examples_and_recall_with_missing_ones():
    real = torch.cat([torch.randn(200, 2, generator=rng(i)) + 20 * i for i in range(2)])
    one_mode, elsewhere = torch.randn(200, 2, generator=rng(9)), real + 100
    precision, recall = latent.precision_recall(real, one_mode)
    assert precision > 90
    assert 40 < recall < 55
    assert latent.precision_recall(real, elsewhere) == (0, 0)
    with pytest.raises(DataError, match="k"):
        latent.precision_recall(real, one_mode, k=0)
