"""Each check on a model that must pass it and on one that must not."""

from __future__ import annotations

import pytest
import torch
from helpers import rng
from torch import Tensor

from zsl_lib.attacks import checks
from zsl_lib.attacks.checks import Finding, Probe, frame, run_checks, transfer
from zsl_lib.errors import DataError

CENTRE = 100.0


def linear_problem(classes: int = 5, pixels: int = 12, n: int = 40):
    """Images, the classes that random linear scores give them, and these scores."""
    x = 40 + 170 * torch.rand(n, pixels, generator=rng(1))
    W = torch.randn(classes, pixels, generator=rng(2)) / 100

    def scores(x: Tensor) -> Tensor:
        return (x - 127.5) @ W.T

    return scores, x, scores(x).argmax(1), W


def one_pixel(f, **settings) -> Probe:
    """Forty times a two-class problem of one pixel: the wrong class's score is f of the pixel's shift."""
    x = torch.full((40, 1), CENTRE)

    def scores(x: Tensor) -> Tensor:
        other = f(x[:, 0] - CENTRE)
        return torch.stack([torch.zeros_like(other), other], 1)

    return Probe(scores, x, torch.zeros(40, dtype=torch.int64), **settings)


def by_name(findings: list[Finding]) -> dict[str, bool | None]:
    return {f.name: f.passed for f in findings}


def test_a_smooth_model_passes_all():
    scores, x, y, _ = linear_problem()
    findings = run_checks(scores, x, y, radius=8.0, black_boxes={"itself": transfer(scores)})
    assert [f.passed for f in findings] == [True] * len(checks.CHECKS)
    table = frame(findings)
    assert list(table["passed"].unique()) == ["yes"]
    assert len(table["check"].unique()) == len(checks.CHECKS)


def test_the_accuracy_of_a_linear_model_is_the_one_of_the_closed_form():
    """An image falls where some class's margin is below ρ ‖w_y − w_k‖₁: for two classes exactly then."""
    scores, x, y, W = linear_problem(classes=2)
    gap = (scores(x).gather(1, y[:, None]) - scores(x).gather(1, 1 - y[:, None]))[:, 0]
    stands = gap > 8 * (W[0] - W[1]).abs().sum()
    probe = Probe(scores, x, y, radius=8.0)
    assert 0 < stands.sum() < len(x)
    assert torch.equal(probe.survivors(), stands)
    assert checks.falls_with_radius(probe).numbers["radius 8"] == pytest.approx(100 * stands.float().mean())


def test_a_quantised_model_is_unmasked():
    scores, x, y, _ = linear_problem()

    def quantised(x: Tensor) -> Tensor:
        return scores((x / 8).round() * 8)

    y = quantised(x).argmax(1)
    found = by_name(run_checks(quantised, x, y, radius=8.0, black_boxes={"smooth": transfer(scores)}))
    caught = {name for name, passed in found.items() if passed is False}
    assert caught == {
        "gradients do not vanish",
        "a large radius brings chance",
        "attack beats noise",
        "one start suffices",
        "gradients beat black boxes",
    }


def test_huge_scores_hide_the_gradient_of_the_cross_entropy_alone():
    scores, x, y, _ = linear_problem()
    probe = Probe(lambda x: 1e10 * scores(x), x, y, radius=8.0)
    honest = Probe(scores, x, y, radius=8.0)
    assert probe.accuracy() == 100 > honest.accuracy()
    assert probe.accuracy(loss="margin") == honest.accuracy(loss="margin")
    assert checks.zero_gradients(probe).numbers == {"ce": 100, "margin": 0}
    assert checks.zero_gradients(probe).passed is False
    assert checks.losses(probe).passed is False
    assert checks.losses(honest).passed is True


def test_one_image_is_no_alarm_and_two_are():
    """Nothing falls at radius 1; a black box that cheats breaks one or two of ten images."""
    x, y = torch.full((10, 1), CENTRE), torch.zeros(10, dtype=torch.int64)
    probe = Probe(lambda x: torch.cat([x * 0, x - CENTRE - 5], 1), x, y, radius=1.0)
    assert probe.accuracy() == 100
    for broken, passed in ((1, True), (2, False)):
        far = torch.arange(10)[:, None] < broken
        probe.black_boxes = {f"{broken}": lambda scores, x, y, far=far, **options: x + 10.0 * far}
        assert checks.white_over_black(probe).passed is passed


def test_random_scores_are_noticed():
    scores, x, y, _ = linear_problem()
    source = rng(3)
    probe = Probe(scores, x, y, radius=8.0)
    assert checks.deterministic(probe).passed is True
    probe.scores = lambda x: scores(x) + 1e-3 * torch.randn(len(x), 5, generator=source)
    assert checks.deterministic(probe).passed is False


def test_radius_zero_notices_answers_that_change():
    scores, x, y, _ = linear_problem()
    probe = Probe(scores, x, y, radius=8.0)
    assert checks.radius_zero(probe).passed is True
    probe.scores = lambda x: -scores(x)
    assert checks.radius_zero(probe).passed is False


def test_a_hill_on_the_way_makes_one_step_stronger_than_many():
    """f has a hill at 1, below 0, and is above 0 from 4 on: steps of 1.4 stay on the hill."""

    def hill(t: Tensor) -> Tensor:
        return torch.where(t < 1, t - 2, torch.where(t < 2, -t, t - 4))

    probe = one_pixel(hill, radius=10.0)
    assert checks.pgd_over_fgsm(probe).numbers == {"FGSM": 0, "PGD": 100}
    assert checks.pgd_over_fgsm(probe).passed is False
    assert checks.restarts(probe).passed is False
    smooth = one_pixel(lambda t: t - 9, radius=10.0)
    assert checks.pgd_over_fgsm(smooth).passed is True
    assert checks.restarts(smooth).passed is True


def test_a_corner_in_the_way_needs_more_steps():
    """The second pixel matters only behind the first one's 9 of 10, too late for nine steps."""
    x = torch.full((40, 2), CENTRE)

    def scores(x: Tensor) -> Tensor:
        a, b = (x - CENTRE).T
        other = 0.01 * a + b * (a > 9) - 7
        return torch.stack([torch.zeros_like(other), other], 1)

    probe = Probe(scores, x, torch.zeros(40, dtype=torch.int64), radius=10.0)
    assert checks.more_steps(probe).passed is False
    assert checks.step_sizes(probe).passed is False


def test_an_attack_that_overshoots_is_weaker_in_a_larger_ball():
    """f is above 0 between 9.5 and 10.5 alone; in the ball of 40, steps of 5.6 miss it."""
    probe = one_pixel(lambda t: 0.5 - (t - 10).abs(), radius=10.0)
    finding = checks.falls_with_radius(probe)
    assert finding.numbers["radius 10"] == 0
    assert max(finding.numbers["radius 20"], finding.numbers["radius 40"]) == 100
    assert finding.passed is False


def test_where_nothing_harms_nothing_is_decided():
    probe = one_pixel(lambda t: 0.001 * t - 1, radius=1.0)
    assert checks.noise_floor(probe).passed is None
    assert checks.white_over_black(probe).passed is None
    assert frame([checks.noise_floor(probe)])["passed"].item() == "open"


def test_attacks_that_leave_the_ball_or_the_bounds_are_noticed():
    scores, x, y, _ = linear_problem()
    kept = Probe(scores, x, y, radius=8.0)
    assert checks.respected(kept).passed is True
    for shift, n in ((9.0, "ball"), (200.0, "bounds")):
        boxes = {n: lambda scores, x, y, shift=shift, **options: x + shift}
        probe = Probe(scores, x, y, radius=8.0 if n == "ball" else 200.0, black_boxes=boxes)
        checks.white_over_black(probe)
        assert checks.respected(probe).passed is False


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_both_norms_and_a_memory(norm):
    scores, x, y, _ = linear_problem()
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return scores(x)

    probe = Probe(counted, x, y, radius=20.0, norm=norm)
    first, n = probe.survivors(), len(calls)
    assert torch.equal(probe.survivors(), first)
    assert len(calls) == n
    assert checks.respected(probe).passed is True
    assert checks.reaches_chance(probe).passed is True


def test_errors():
    scores, x, y, _ = linear_problem()
    with pytest.raises(DataError, match=r"radius: found 0.0, expected above 0"):
        Probe(scores, x, y, radius=0.0)
    with pytest.raises(DataError, match="no image recognised"):
        Probe(lambda x: -scores(x).abs() * torch.nn.functional.one_hot(y, 5), x, y, radius=1.0)
    with pytest.raises(DataError, match="pixels in"):
        run_checks(scores, x + 200, y, radius=1.0)
    with pytest.raises(DataError, match="no gradient in x"):
        run_checks(lambda x: scores(x).detach(), x, y, radius=1.0)
    with pytest.raises(DataError, match="a column of the scores"):
        run_checks(scores, x, y + 5, radius=1.0)
