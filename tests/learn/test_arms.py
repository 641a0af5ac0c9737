"""The released code's latents and the controls: what each does to z, and that nothing else differs."""

from __future__ import annotations

import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.arms import ARMS, RELEASED, arm
from zsl_lib.models import Generator, log_joint

SMALL = ABPConfig(latent_dim=3, hidden=16, langevin_steps=3, step_size=0.2, batch_size=8, epochs=6)


def fitted(name: str, epochs: int | None = None, **options) -> ABP:
    return arm(name, SMALL, seed=0, device="cpu").fit(
        small_dataset(), epochs=epochs, progress=False, **options
    )


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_learns_and_makes_features(name):
    model = fitted(name)
    assert model.history[-1]["loss"] < fitted(name, epochs=1).history[0]["loss"]
    made = model.sample(small_dataset().semantics[:2], 5, rng())
    assert made.shape == (2, 5, 6)
    assert made.isfinite().all()


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_resumes_where_it_stopped(name, tmp_path):
    path, whole = tmp_path / "arm.pt", fitted(name)
    fitted(name, epochs=4, checkpoint=path)
    resumed = fitted(name, checkpoint=path)
    assert torch.equal(resumed.z, whole.z)
    assert torch.equal(resumed.net.outer.weight, whole.net.outer.weight)


def test_an_arm_does_not_go_on_from_anothers_checkpoint(tmp_path):
    fitted("fresh", epochs=1, checkpoint=tmp_path / "arm.pt")
    with pytest.raises(DataError, match="FreshLatents"):
        fitted("released", checkpoint=tmp_path / "arm.pt")


@pytest.mark.parametrize("name", ["released", "program"])
def test_released_latents_walk_in_the_first_third_and_then_stay(name):
    """Their variance is 1 + k s² after k steps, as the errata say."""
    start, third, end = (fitted(name, epochs=n) for n in (0, 2, 6))
    visits = 2 * (2 if name == "program" else 1)
    steps = visits * start.config.langevin_steps
    walked = third.z - start.z
    assert walked.var().item() == pytest.approx(steps * start.config.step_size**2, rel=0.25)
    assert abs((walked * start.z).mean()) < 0.2 * walked.std(), "the walk knows nothing of where z was"
    assert torch.equal(end.z, third.z)
    assert [h["moved"] > 0 for h in end.history] == [True, True] + [False] * 4


def test_released_latents_ignore_the_data():
    g, model = rng(1), fitted("released", epochs=0)
    x, c, z = (torch.rand(5, k, generator=g) for k in (6, 4, 3))
    one, trace = model.infer(z, x, c, generator=rng(2))
    other, _ = model.infer(z, 1 - x, 1 - c, generator=rng(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, z)
    assert trace.shape == (0, 5)


def test_intended_latents_take_adams_first_step_against_the_gradient():
    """Without noise, and one step: lr · sign of the gradient, as Adam's first step is."""
    model = fitted("intended")  # past its first third, so there is no noise
    g = rng(1)
    x, c, z = (torch.rand(5, k, generator=g) for k in (6, 4, 3))
    at = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_joint(x, model.net(c, at), at, SMALL.sigma).sum(), at)
    model.config = ABPConfig(**{**vars(SMALL), "langevin_steps": 1})
    kept = [p.grad.clone() for p in model.net.parameters()]
    moved, trace = model.infer(z, x, c)
    torch.testing.assert_close(moved - z, SMALL.lr * gradient.sign(), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(trace[0], log_joint(x, model.net(c, z), z, SMALL.sigma))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.net.parameters(), kept, strict=True))


def test_intended_latents_are_the_same_by_hand_and_by_autograd():
    class Same(Generator):
        """The paper's network under another name, which goes through autograd."""

    def run(kind):
        def network(k, d, dim, _):
            return kind(k, d, dim, hidden=16, generator=rng(4))

        model = arm("intended", SMALL, seed=0, device="cpu", network=network)
        return model.fit(small_dataset(), progress=False)

    torch.testing.assert_close(run(Same).z, run(Generator).z, rtol=1e-3, atol=1e-3)


def test_intended_latents_climb():
    model = fitted("intended")
    assert model.history[-1]["loss"] < model.history[-1]["energy_start"]


def test_fresh_latents_are_the_priors_and_forget_where_they_were():
    model, g = fitted("fresh", epochs=0), rng(1)
    x, c = torch.rand(4000, 6, generator=g), torch.rand(4000, 4, generator=g)
    z, _ = model.infer(torch.full((4000, 3), 9.0), x, c)
    assert z.mean().abs() < 0.05
    assert z.var().item() == pytest.approx(1, abs=0.05)


def test_fixed_latents_are_those_of_the_start():
    assert torch.equal(fitted("fixed").z, fitted("fixed", epochs=0).z)


def test_without_latents_a_class_has_one_synthetic_feature():
    model = fitted("none")
    assert model.z.shape == (len(small_dataset().trainval), 0)
    made = model.sample(small_dataset().semantics, 4, rng())
    assert torch.equal(made, made[:, :1].expand_as(made))
    assert model.history[-1]["z_variance"] == 0


def test_the_program_adds_the_inference_gradients_to_the_next_learning_step():
    """Its two learning steps on a batch, spelled out: the second gradient is a sum over l + 1 passes."""
    model, g = fitted("program", epochs=0), rng(1)
    x, c, z = (torch.rand(5, k, generator=g) for k in (6, 4, 3))
    state, seen = model._rng.get_state(), []
    step = model._adam.step

    def spy():
        seen.append([p.grad.clone() for p in model.net.parameters()])
        step()

    model._adam.step = spy
    weights = {k: v.clone() for k, v in model.net.state_dict().items()}
    model._visit(z, x, c, None)

    model._adam.step = step
    model.net.load_state_dict(weights)
    model._adam.state.clear()
    model._rng.set_state(state)

    def gradient(at, factor):
        loss = -factor * log_joint(x, model.net(c, at), at, SMALL.sigma).mean()
        return torch.autograd.grad(loss, list(model.net.parameters()))

    def clipped(parts):
        norm = torch.cat([p.flatten() for p in parts]).norm()
        return [p * min(1.0, 1.0 / (norm.item() + 1e-6)) for p in parts]

    first = clipped(gradient(z, 1.0))
    torch.testing.assert_close(seen[0], first, rtol=1e-4, atol=1e-7)
    for p, q in zip(model.net.parameters(), first, strict=True):
        p.grad = q
    step()
    total = [torch.zeros_like(p) for p in model.net.parameters()]
    for _ in range(RELEASED["langevin_steps"]):
        total = [a + b for a, b in zip(total, gradient(z, RELEASED["step_size"]), strict=True)]
        z = z + RELEASED["step_size"] * torch.randn(z.shape, generator=model._rng)
    total = [a + b for a, b in zip(total, gradient(z, 1.0), strict=True)]
    torch.testing.assert_close(seen[1], clipped(total), rtol=1e-4, atol=1e-7)


def test_the_program_has_its_own_settings():
    config = arm("program", SMALL).config
    assert {k: getattr(config, k) for k in RELEASED} == RELEASED
    assert config.sigma == SMALL.sigma


def test_an_unknown_arm_is_a_data_error():
    with pytest.raises(DataError, match="found 'gan', expected one of paper, intended"):
        arm("gan")
