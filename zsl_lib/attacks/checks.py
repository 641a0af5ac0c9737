r"""Is an accuracy under attack to be believed? The checks that stand beside each table of robustness.

A defence that hides its gradient is no defence: an attack that needs none, a step along another loss or from
another model finds the same adversarial images (Athalye, Carlini and Wagner 2018; Carlini et al. 2019, "On
Evaluating Adversarial Robustness"). Each function below asks one question of a score function; where the
answer is suspicious, the accuracy is an upper bound that a better attack will lower.

A threshold of ``slack`` points separates a verdict from chance. It is an alarm, no test of significance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

import pandas as pd
import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Loss,
    Norm,
    Scores,
    check_inputs,
    checked_scores,
    gradient,
    norms,
)
from zsl_lib.attacks.fgsm import fgsm
from zsl_lib.attacks.noise import noise
from zsl_lib.attacks.pgd import STEP, pgd
from zsl_lib.errors import DataError

Attack = Callable[..., Tensor]
ROUNDING = 1e-5  # of the upper bound: float32 of pixels


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    passed: None where the question could not be decided. measured: what was found, in words. numbers: the
    accuracies or shares behind it, in per cent, by name.
    """

    name: str
    passed: bool | None
    measured: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Probe:
    """A score function on those of the images that it recognises, and its attacks, each run once.

    What is not recognised needs no attack, so the accuracy at radius 0 is 100 %.

    Parameters
    ----------
    scores, x, y, radius, norm, bounds: as :func:`zsl_lib.attacks.pgd` takes them; a few dozen images do.
    steps: of the PGD that is to be believed.
    slack: points of accuracy by which a comparison may miss, and one image in any case.
    black_boxes: attacks by name that use no gradient of ``scores``, such as ZOO or :func:`transfer`.
    seed: of what is random.

    Raises
    ------
    DataError: inputs that attacks refuse, a radius that is not above 0, or no image recognised.
    """

    def __init__(
        self,
        scores: Scores,
        x: Tensor,
        y: Tensor,
        *,
        radius: float,
        norm: Norm = "linf",
        steps: int = 9,
        slack: float = 3.0,
        black_boxes: Mapping[str, Attack] | None = None,
        bounds: Bounds = PIXELS,
        seed: int = 0,
    ) -> None:
        check_inputs(x, y, bounds)
        if not radius > 0:
            raise DataError("radius", found=radius, expected="above 0")
        with torch.no_grad():
            values = checked_scores(scores, x, y)
        right = values.argmax(1) == y
        if not right.any():
            raise DataError("scores", found="no image recognised", expected="one to attack at least")
        self.scores, self.x, self.y = scores, x[right], y[right]
        self.radius, self.norm, self.steps = radius, norm, steps
        self.slack = max(slack, 100 / len(self.x)) + 1e-9
        self.bounds, self.seed, self.classes = bounds, seed, values.shape[1]
        self.black_boxes = dict(black_boxes or {})
        self.excess: dict[str, float] = {}
        self._survivors: dict[str, Tensor] = {}

    def survivors(self, attack: Attack = pgd, *, name: str = "", **setting: Any) -> Tensor:
        """Which images are still recognised after the attack, bool ``[n]``; ``name`` where it has none."""
        setting = {"radius": self.radius} | setting
        if attack is pgd:
            setting = {"steps": self.steps} | setting
        key = f"{name or attack.__name__} {sorted(setting.items())}"
        if key not in self._survivors:
            rng = torch.Generator().manual_seed(self.seed)
            given = {"norm": self.norm, "bounds": self.bounds, "generator": rng} | setting
            x_adv = attack(self.scores, self.x, self.y, **given)
            self._measure(name or attack.__name__, x_adv, setting["radius"])
            self._survivors[key] = self.recognised(x_adv)
        return self._survivors[key]

    def accuracy(self, attack: Attack = pgd, **setting: Any) -> float:
        """Share of the images still recognised, in per cent."""
        return percent(self.survivors(attack, **setting))

    @torch.no_grad()
    def recognised(self, x: Tensor) -> Tensor:
        """Which of images ``[n, ...]`` get their true class, bool ``[n]``."""
        return self.scores(x).argmax(1) == self.y

    def _measure(self, name: str, x_adv: Tensor, radius: float) -> None:
        """Remember by how much an attack left the ball or the bounds, in pixels."""
        low, high = self.bounds
        over = max(float(norms(x_adv - self.x, self.norm).max()) - radius, 0.0)
        out = max(low - float(x_adv.min()), float(x_adv.max()) - high, 0.0)
        self.excess[name] = max(self.excess.get(name, 0.0), over, out)

    @property
    def farthest(self) -> float:
        """The radius in which every image can become the same gray one."""
        half = (self.bounds[1] - self.bounds[0]) / 2
        return half * (self.x[0].numel() ** 0.5 if self.norm == "l2" else 1)


def percent(which: Tensor) -> float:
    """Share of True, in per cent."""
    return 100 * float(which.double().mean())


def zero_gradients(probe: Probe) -> Finding:
    """Does the loss have a gradient in the pixels? At 1 % of images without one AutoAttack warns as well.

    A cross-entropy saturates where scores differ by more than some hundred: in float32 its gradient is then
    exactly 0. A margin's vanishes only where the scores' own does, as behind a quantisation.
    """
    shares: dict[str, float] = {}
    for loss in get_args(Loss):
        slope, _ = gradient(probe.scores, probe.x, probe.y, loss)
        shares[loss] = percent((slope.flatten(1) == 0).all(1))
    words = f"{shares['ce']:.0f} % of images have none for ce, {shares['margin']:.0f} % for the margin"
    return Finding("gradients do not vanish", max(shares.values()) <= 1, words, shares)


@torch.no_grad()
def deterministic(probe: Probe) -> Finding:
    """Does the same image get the same scores twice? Else attacks have to average over the randomness."""
    gap = float((probe.scores(probe.x) - probe.scores(probe.x)).abs().max())
    return Finding("scores are deterministic", gap == 0, f"largest difference {gap:g}", {"gap": gap})


def radius_zero(probe: Probe) -> Finding:
    """Does an attack of radius 0 leave all pixels, and so all answers, as they are?"""
    rng = torch.Generator().manual_seed(probe.seed)
    given: dict[str, Any] = {"norm": probe.norm, "bounds": probe.bounds, "generator": rng}
    x_adv = pgd(probe.scores, probe.x, probe.y, radius=0.0, steps=2, restarts=2, **given)
    moved = float((x_adv - probe.x).abs().max())
    same = percent(probe.recognised(x_adv))
    words = f"pixels move by {moved:g}, accuracy {same:.1f} %"
    return Finding("radius 0 is clean", moved == 0 and same == 100, words, {"moved": moved, "accuracy": same})


def falls_with_radius(probe: Probe) -> Finding:
    """Does accuracy fall, or stay, as the radius doubles?"""
    radii = [share * probe.radius for share in (0.5, 1, 2, 4)]
    found = [100.0, *(probe.accuracy(radius=min(radius, probe.farthest)) for radius in radii)]
    rise = max(b - a for a, b in pairwise(found))
    words = " → ".join(f"{a:.0f}" for a in found) + " % at " + ", ".join(f"{r:g}" for r in [0.0, *radii])
    numbers = {f"radius {r:g}": a for r, a in zip([0.0, *radii], found, strict=True)}
    return Finding("accuracy falls with the radius", rise <= probe.slack, words, numbers)


def reaches_chance(probe: Probe) -> Finding:
    """Does accuracy fall to chance where every image can become the same gray one?"""
    chance = 100 / probe.classes
    found = probe.accuracy(radius=probe.farthest, steps=2 * probe.steps)
    words = f"{found:.1f} % at radius {probe.farthest:g}, chance {chance:.1f} %"
    numbers = {"accuracy": found, "chance": chance}
    return Finding("a large radius brings chance", found <= chance + probe.slack, words, numbers)


def noise_floor(probe: Probe) -> Finding:
    """Is the attack stronger than as many random draws as it has steps? Undecided if neither harms."""
    draws = []
    rng = torch.Generator().manual_seed(probe.seed)
    given: dict[str, Any] = {"norm": probe.norm, "bounds": probe.bounds, "kind": "sign", "generator": rng}
    for _ in range(probe.steps):
        draws.append(probe.recognised(noise(probe.scores, probe.x, probe.y, radius=probe.radius, **given)))
    floor, found = percent(torch.stack(draws).all(0)), probe.accuracy()
    passed = None if floor == found == 100 else found < floor or found == 0
    words = f"attack {found:.1f} %, the worst of {len(draws)} draws of noise {floor:.1f} %"
    return Finding("attack beats noise", passed, words, {"attack": found, "noise": floor})


def pgd_over_fgsm(probe: Probe) -> Finding:
    """Are several steps at least as strong as one? Else the loss is rugged: one step jumps over it."""
    one, many = probe.accuracy(fgsm), probe.accuracy()
    words = f"FGSM {one:.1f} %, PGD {many:.1f} %"
    return Finding("PGD beats FGSM", many <= one + probe.slack, words, {"FGSM": one, "PGD": many})


def more_steps(probe: Probe) -> Finding:
    """Do twice as many steps of the same length leave the accuracy where it is?"""
    length = STEP * probe.radius / probe.steps
    once, twice = probe.accuracy(), probe.accuracy(steps=2 * probe.steps, step=length)
    words = f"{once:.1f} % after {probe.steps} steps, {twice:.1f} % after {2 * probe.steps}"
    return Finding(
        "steps suffice", once - twice <= probe.slack, words, {"steps": once, "twice as many": twice}
    )


def step_sizes(probe: Probe) -> Finding:
    """Is another length of step no better than the paper's 1.25 ρ/N?"""
    usual = STEP * probe.radius / probe.steps
    found = {"1": probe.accuracy()}
    found |= {f"{factor:g}": probe.accuracy(step=factor * usual) for factor in (0.5, 2.0, 4.0)}
    words = ", ".join(f"{a:.1f} % at {factor}×" for factor, a in found.items())
    return Finding("step size suits", found["1"] - min(found.values()) <= probe.slack, words, found)


def restarts(probe: Probe, runs: int = 4) -> Finding:
    """Do restarts from random points of the ball find nothing more?"""
    one, several = probe.accuracy(), probe.accuracy(restarts=runs)
    words = f"{one:.1f} % from the image, {several:.1f} % with {runs - 1} more starts"
    return Finding(
        "one start suffices", one - several <= probe.slack, words, {"one": one, "several": several}
    )


def losses(probe: Probe) -> Finding:
    """Is the cross-entropy as good a guide as the margin? Their worst case, image by image, is reported."""
    by_loss = {loss: probe.survivors(loss=loss) for loss in get_args(Loss)}
    found = {loss: percent(which) for loss, which in by_loss.items()}
    found["worst case"] = percent(by_loss["ce"] & by_loss["margin"])
    words = ", ".join(f"{name} {a:.1f} %" for name, a in found.items())
    return Finding(
        "cross-entropy guides as the margin does",
        found["ce"] - found["worst case"] <= probe.slack,
        words,
        found,
    )


def white_over_black(probe: Probe) -> Finding:
    """Does an attack without the gradient find what those with it miss? Undecided if none was given."""
    name = "gradients beat black boxes"
    if not probe.black_boxes:
        return Finding(name, None, "no black box given")
    white = probe.survivors() & probe.survivors(loss="margin")
    found, missed = {"white": percent(white)}, {}
    for key, attack in probe.black_boxes.items():
        left = probe.survivors(attack, name=key)
        found[key], missed[key] = percent(left), percent(white & ~left)
    words = ", ".join(f"{key} {a:.1f} %" for key, a in found.items())
    words += f"; black boxes alone break up to {max(missed.values()):.1f} %"
    return Finding(name, max(missed.values()) <= probe.slack, words, found)


def respected(probe: Probe) -> Finding:
    """Did all attacks so far stay in the ball and the bounds?"""
    if not probe.excess:
        probe.survivors()
    worst = max(probe.excess.values())
    words = f"{len(probe.excess)} attacks leave ball or bounds by at most {worst:.1g} pixels"
    return Finding("ball and bounds are kept", worst <= ROUNDING * probe.bounds[1], words, probe.excess)


CHECKS: tuple[Callable[[Probe], Finding], ...] = (
    zero_gradients,
    deterministic,
    radius_zero,
    falls_with_radius,
    reaches_chance,
    noise_floor,
    pgd_over_fgsm,
    more_steps,
    step_sizes,
    restarts,
    losses,
    white_over_black,
    respected,
)


def run_checks(scores: Scores, x: Tensor, y: Tensor, *, radius: float, **settings: Any) -> list[Finding]:
    """All checks on one score function; ``settings`` are those of :class:`Probe`.

    About fifteen runs of PGD; 50 images are enough for an alarm.

    Raises
    ------
    DataError: as :class:`Probe`, or scores without a gradient in x.
    """
    probe = Probe(scores, x, y, radius=radius, **settings)
    return [check(probe) for check in CHECKS]


def transfer(source: Scores) -> Attack:
    """PGD on another score function of the same columns, as an attack on whichever is asked about."""

    def attack(scores: Scores, x: Tensor, y: Tensor, *, radius: float, **options: Any) -> Tensor:
        return pgd(source, x, y, radius=radius, **options)

    return attack


def frame(findings: list[Finding]) -> pd.DataFrame:
    """One row a check: its name, ``yes``, ``NO`` or ``open``, and what was measured."""
    verdict = {True: "yes", False: "NO", None: "open"}
    rows = [{"check": f.name, "passed": verdict[f.passed], "measured": f.measured} for f in findings]
    return pd.DataFrame(rows)
