"""Attacks on prototypes: their ball over random tables, closed forms on bilinear scores, planted problems."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from helpers import rng
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.attacks import prototypes
from zsl_lib.attacks.common import margin
from zsl_lib.attacks.prototypes import fgsm, flip, ifgsm, noise, opposite, replaced, scale_to_length, wrm
from zsl_lib.errors import DataError

ATTACKS = [
    fgsm,
    ifgsm,
    wrm,
    partial(ifgsm, direction="gradient"),
    partial(ifgsm, loss="margin", steps=3),
    noise,
]
THREATS = ["per_image", "universal"]


class Bilinear:
    """Scores z'p_c of queries z ``[n, K]``; ``separable`` as told."""

    def __init__(self, z: Tensor, separable: bool = True) -> None:
        self.z, self.separable, self.calls = z, separable, 0

    def __call__(self, tables: Tensor) -> Tensor:
        self.calls += 1
        return self.z @ tables.T if tables.ndim == 2 else torch.einsum("nk,nck->nc", self.z, tables)


class Curved(Bilinear):
    """Bounded and not linear in the table."""

    def __call__(self, tables: Tensor) -> Tensor:
        return 5 * (super().__call__(tables) / 3).tanh()


def problem(n: int = 7, classes: int = 4, k: int = 6, kind: type = Curved, seed: int = 0):
    g = rng(seed)
    scores = kind(torch.randn(n, k, generator=g))
    table = torch.randn(classes, k, generator=g)
    return scores, table, torch.randint(classes, (n,), generator=g)


# --- the ball ------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    attack=st.sampled_from(ATTACKS),
    threat=st.sampled_from(THREATS),
    shape=st.tuples(st.integers(1, 5), st.integers(2, 5), st.integers(1, 8)),
    size=st.sampled_from([1e-3, 1.0, 400.0]),
    radius=st.floats(0, 60),
    scale=st.sampled_from([1.0, 0.37, 412.0]),
    bounded=st.booleans(),
    double=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(ifgsm, "universal", (3, 3, 5), 400.0, 54.0, 1.0, False, False, 0)
@example(noise, "per_image", (3, 3, 5), 1e-3, 54.0, 412.0, True, False, 0)
def test_every_attack_stays_in_its_ball_and_moves_no_other_row(
    attack, threat, shape, size, radius, scale, bounded, double, seed
):
    n, classes, k = shape
    g, dtype = rng(seed), torch.float64 if double else torch.float32
    table = size * torch.randn(classes, k, generator=g).to(dtype)
    scores = Curved(torch.randn(n, k, generator=g).to(dtype) / size, separable=seed % 2 == 0)
    y = torch.randint(classes, (n,), generator=g)
    moving = torch.randperm(classes, generator=g)[: 1 + seed % classes]
    stated = table * scale
    bounds = (stated.min().item() - 1e-3, stated.max().item() + 1e-3) if bounded else None
    found = attack(
        scores,
        table,
        y,
        threat=threat,
        which=moving,
        radius=radius,
        attribute_scale=scale,
        bounds=bounds,
        generator=g,
    )
    assert found.sizes.max() <= radius + 1e-6
    assert found.tables.dtype == dtype
    assert found.tables.shape == ((n, classes, k) if threat == "per_image" else (classes, k))
    others = torch.ones(classes, dtype=torch.bool).index_fill(0, moving, False)
    clean = table.expand_as(found.tables)
    assert torch.equal(found.tables[..., others, :], clean[..., others, :])
    if radius == 0:
        assert torch.equal(found.tables, clean)
    if bounded:
        slack = 1e-5 * (bounds[1] - bounds[0])
        assert bounds[0] - slack <= (found.rows * scale).min()
        assert (found.rows * scale).max() <= bounds[1] + slack
    if attack is noise and not bounded:
        assert found.sizes.min() >= radius * (1 - 1e-5) - 1e-6 * scale * size


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("threat", THREATS)
def test_a_radius_of_0_changes_nothing(attack, threat):
    scores, table, y = problem()
    which = torch.tensor([0, 2])
    found = attack(scores, 100 * table, y, threat=threat, which=which, radius=0.0, generator=rng())
    assert torch.equal(found.tables, (100 * table).expand_as(found.tables))
    assert torch.equal(found.scores(scores), scores(100 * table))


def test_each_class_may_have_a_radius_and_a_scale_of_its_own():
    scores, table, y = problem()
    radius = torch.tensor([0.0, 1.0, 2.0, 40.0])
    for scale in (1.0, torch.tensor([1.0, 10.0, 3.0, 100.0])):
        found = fgsm(
            scores,
            table,
            y,
            radius=radius,
            threat="universal",
            which=torch.arange(4),
            direction="gradient",
            attribute_scale=scale,
        )
        torch.testing.assert_close(found.sizes, radius.double(), rtol=1e-5, atol=0)
        length = (found.tables - table).norm(dim=1).double()
        torch.testing.assert_close(length * scale, radius.double(), rtol=1e-4, atol=1e-6)


def test_the_scale_is_a_unit_and_nothing_else():
    scores, table, y = problem()
    for attack in (*ATTACKS, partial(wrm, gamma=0.03)):
        options = {"threat": "per_image", "bounds": (-400.0, 400.0)}
        percent = attack(scores, table, y, radius=54.0, attribute_scale=100.0, generator=rng(), **options)
        options["bounds"] = (-4.0, 4.0)
        if attack.__class__ is partial and "gamma" in attack.keywords:
            attack = partial(wrm, gamma=300.0)  # loss a squared unit, which is 100 times as long
        own = attack(scores, table, y, radius=0.54, generator=rng(), **options)
        torch.testing.assert_close(percent.rows, own.rows, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(percent.sizes, 100 * own.sizes, rtol=1e-4, atol=1e-4)


def test_rows_of_length_1_are_attacked_on_the_scale_that_they_were_published_on():
    scores, published, y = problem()
    published = 100 * published.abs()
    table = F.normalize(published, dim=1)
    scale = scale_to_length(table, published.norm(dim=1))
    found = fgsm(
        scores, table, y, radius=18.0, threat="universal", which=torch.arange(4), attribute_scale=scale
    )
    step = (found.tables.double() * scale[:, None] - published).abs()
    torch.testing.assert_close(step, torch.full_like(step, 18 / math.sqrt(6)), rtol=1e-3, atol=0)
    assert found.sizes.max() <= 18


# --- closed forms on a bilinear score ------------------------------------------------------------------


def test_what_the_sign_loses_against_the_gradient():
    """The best δ of length ρ against z'(p + δ) is -ρ z/‖z‖₂; the sign's gains ρ ‖z‖₁/√K."""
    scores, table, y = problem(kind=Bilinear)
    best, rho = {}, 0.3
    before = margin(scores(table), y)
    for direction, dual in (("gradient", scores.z.norm(dim=1)), ("sign", scores.z.norm(1, dim=1) / 6**0.5)):
        found = fgsm(scores, table, y, radius=rho, threat="per_image", loss="margin", direction=direction)
        best[direction] = margin(found.scores(scores), y) - before
        torch.testing.assert_close(best[direction], rho * dual, rtol=1e-4, atol=1e-6)
    assert bool((best["sign"] < best["gradient"]).all())
    expected = table[y] - rho * F.normalize(scores.z, dim=1)
    found = fgsm(scores, table, y, radius=rho, threat="per_image", loss="margin", direction="gradient")
    torch.testing.assert_close(found.rows[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_sign_step_is_shorter_where_attributes_do_not_matter():
    """One attribute of nine counts: the step is ρ/3 long, and gains a third of what the gradient's does."""
    scores = Bilinear(torch.eye(9)[:1])
    table, y = torch.ones(2, 9), torch.tensor([0])
    table[1] = 0.5
    options = {"radius": 3.0, "threat": "per_image", "loss": "margin"}
    sign = fgsm(scores, table, y, **options)
    assert sign.sizes.item() == pytest.approx(1.0, rel=1e-5)
    assert sign.rows[0, 0].tolist() == pytest.approx([0.0, *[1.0] * 8], abs=1e-5)
    steep = fgsm(scores, table, y, direction="gradient", **options)
    assert steep.rows[0, 0, 0].item() == pytest.approx(-2.0, rel=1e-5)


def test_the_rival_is_moved_as_well_if_it_may():
    scores, table, y = problem(kind=Bilinear)
    everyone = {"which": torch.ones(4, dtype=torch.bool), "threat": "per_image", "radius": 0.3}
    found = fgsm(scores, table, y, loss="margin", direction="gradient", **everyone)
    gain = margin(found.scores(scores), y) - margin(scores(table), y)
    torch.testing.assert_close(gain, 2 * 0.3 * scores.z.norm(dim=1), rtol=1e-4, atol=1e-6)
    moved = found.sizes > 0.1
    assert bool((moved.sum(1) == 2).all())
    assert bool(moved.gather(1, y[:, None]).all())


def test_one_table_for_all_moves_along_the_mean_of_the_queries():
    z = torch.randn(9, 5, generator=rng(3)) + 1
    scores, table, y = Bilinear(z), torch.randn(2, 5, generator=rng(4)), torch.zeros(9, dtype=torch.int64)
    options = {"radius": 0.5, "threat": "universal", "which": torch.tensor([0]), "loss": "margin"}
    found = ifgsm(scores, table, y, direction="gradient", **options)
    torch.testing.assert_close(
        found.rows[0], table[0] - 0.5 * F.normalize(z.mean(0), dim=0), rtol=1e-4, atol=1e-5
    )
    gain = (margin(found.scores(scores), y) - margin(scores(table), y)).mean()
    assert gain.item() == pytest.approx(0.5 * z.mean(0).norm().item(), rel=1e-4)


def test_wrm_finds_the_maximum_of_a_linear_loss_with_its_penalty():
    """max z'δ - γ‖δ‖²: δ = -z / 2γ; without γ it has length ρ."""
    scores, table, y = problem(kind=Bilinear)
    found = wrm(scores, table, y, gamma=2.0, steps=40, threat="per_image", loss="margin")
    torch.testing.assert_close(found.rows[:, 0], table[y] - scores.z / 4, rtol=1e-3, atol=1e-4)
    ball = wrm(scores, table, y, gamma=2.0, radius=0.1, steps=40, threat="per_image", loss="margin")
    torch.testing.assert_close(ball.sizes[:, 0], torch.full((7,), 0.1).double(), rtol=1e-5, atol=0)
    own = wrm(scores, table, y, radius=0.3, steps=40, threat="per_image", loss="margin")
    expected = table[y] - 0.3 * F.normalize(scores.z, dim=1)
    torch.testing.assert_close(own.rows[:, 0], expected, rtol=1e-3, atol=1e-4)


# --- the loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("step", [None, 4.0])
def test_ifgsm_by_a_plain_loop(threat, step):
    scores, table, y = problem()
    which, rho, moved = torch.tensor([1, 3]), 4.0, table[None].repeat(7, 1, 1)
    if threat == "universal":
        moved = table[None].clone()
    length = 1.25 * rho / 9 if step is None else step
    for _ in range(9):
        moved.requires_grad_()
        values = scores(moved if threat == "per_image" else moved[0])
        total = F.cross_entropy(values, y, reduction="sum" if threat == "per_image" else "mean")
        (slope,) = torch.autograd.grad(total, moved)
        new = table.expand_as(moved).clone()
        for i in range(len(moved)):
            for c in which:
                delta = moved[i, c].detach() + length / 6**0.5 * slope[i, c].sign() - table[c]
                delta = delta * min(1.0, rho / delta.norm().item())
                new[i, c] = table[c] + delta
        moved = new
    found = ifgsm(scores, table, y, radius=rho, threat=threat, which=which, step=step)
    expected = moved if threat == "per_image" else moved[0]
    torch.testing.assert_close(found.tables, expected, rtol=1e-4, atol=1e-4)


def test_full_steps_cannot_settle_where_the_papers_rule_for_images_can():
    """The best poison lies half a radius away."""
    target = 20 * torch.ones(5) + 5 * F.normalize(torch.randn(5, generator=rng(2)), dim=0)

    def scores(tables: Tensor) -> Tensor:
        squares = (tables - target).square().sum(-1)
        return squares.expand(1, -1) if tables.ndim == 2 else squares

    table, y = torch.stack([20 * torch.ones(5), torch.ones(5)]), torch.tensor([0])
    options = {"radius": 10.0, "threat": "per_image", "loss": "margin", "steps": 30}
    gaps = [
        (ifgsm(scores, table, y, step=step, **options).rows[0, 0] - target).norm().item()
        for step in (None, 10.0)
    ]
    assert gaps[0] < 0.6 < 3 < gaps[1]


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("attack", [*ATTACKS, partial(flip, count=2)])
def test_batches_and_separable_scores_give_the_same(attack, threat):
    scores, table, y = problem()
    budget = {} if attack.__class__ is partial and attack.func is flip else {"radius": 0.5}
    options = {"threat": threat, "which": torch.tensor([2])} | budget
    if budget:
        options["generator"] = rng()
    expected = attack(Curved(scores.z, separable=False), table, y, **options)
    batches = [Curved(scores.z[:3]), Curved(scores.z[3:])]
    if budget:
        options["generator"] = rng()
    found = attack(batches, table, y, **options)
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.scores(batches), expected.scores(scores), rtol=1e-4, atol=1e-5)
    assert batches[0].calls > 0


def test_separable_scores_are_asked_about_the_rows_at_stake_alone():
    seen = []

    def scores(tables: Tensor) -> Tensor:
        seen.append(tables.shape)
        return Bilinear(torch.ones(7, 6))(tables)

    _, table, y = problem()
    scores.separable = True
    ifgsm(scores, table, y, radius=1.0, threat="per_image", steps=3)
    assert seen == [(4, 6), *[(7, 1, 6)] * 3]


def test_the_models_weights_and_modes_stay_and_no_grad_does_not_matter():
    net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Dropout(0.5)).eval()
    _, table, y = problem()

    def scores(tables: Tensor) -> Tensor:
        return Bilinear(torch.eye(6)[[0, 1, 2, 3, 4, 5, 0]])(net(tables))

    with torch.no_grad():
        ifgsm(scores, table, y, radius=1.0, threat="universal", which=torch.tensor([0]))
    assert all(p.grad is None for p in net.parameters())
    assert not net.training


# --- planted problems ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [fgsm, ifgsm, wrm])
@pytest.mark.parametrize(("share", "fooled"), [(0.98, False), (1.02, True)])
def test_at_the_smallest_radius_that_can_fool_it_does(attack, share, fooled):
    """Attributes that matter alike: the sign is the steepest direction, and the threshold is known."""
    z = torch.randn(12, 5, generator=rng(5)).sign() * (1 + torch.rand(12, 1, generator=rng(6)))
    table = torch.stack([torch.zeros(5) + 1e-3, 2 * torch.ones(5)])
    scores, y = Bilinear(z), torch.tensor([0, 1]).repeat(6)
    y = scores(table).argmax(1)
    needed = -margin(scores(table), y) / z.norm(dim=1)
    for i in range(12):
        one = Bilinear(z[[i]])
        options = {"radius": share * needed[i].item(), "threat": "per_image", "loss": "margin"}
        options |= {"steps": 40} if attack is wrm else {}
        found = attack(one, table, y[[i]], **options)
        assert bool(margin(found.scores(one), y[[i]]) > 0) == fooled


def test_one_table_cannot_fool_two_queries_that_want_opposite_ones():
    """Per image each is fooled with ease; one table for both can only lower what they share."""
    z = torch.tensor([[5.0, 1.0], [-5.0, 1.0]])
    table, y = torch.tensor([[0.01, 2.0], [0.01, -2.0]]), torch.tensor([0, 0])
    options = {"radius": 1.5, "loss": "ce", "which": torch.tensor([0]), "direction": "gradient"}
    wrong = {
        threat: (
            ifgsm(Bilinear(z), table, y, threat=threat, **options).scores(Bilinear(z)).argmax(1) != y
        ).tolist()
        for threat in THREATS
    }
    assert wrong == {"per_image": [True, True], "universal": [False, False]}


def test_attacks_beat_random_poison_of_the_same_length():
    scores, table, y = problem(n=60, classes=8, k=40, kind=Bilinear)
    scores.z = table[y] / 4 + 0.4 * scores.z
    right = scores(table).argmax(1) == y
    assert right.float().mean() > 0.9
    for threat in THREATS:
        options = {"radius": 2.5, "threat": threat, "which": torch.arange(8)}
        share = {
            attack.__name__: (
                attack(scores, table, y, generator=rng(), **options).scores(scores).argmax(1) == y
            )
            .float()
            .mean()
            .item()
            for attack in (noise, fgsm, ifgsm, wrm)
        }
        assert share["noise"] > 0.75
        assert max(share["fgsm"], share["ifgsm"], share["wrm"]) < share["noise"] - 0.1, share


# --- readable poison -----------------------------------------------------------------------------------


def binary(n: int = 6, k: int = 7, seed: int = 0):
    g = rng(seed)
    table = (torch.rand(5, k, generator=g) < 0.5).float()
    table[:, 0] = 1 - table[:, 1]
    return Curved(torch.randn(n, k, generator=g)), table, torch.randint(5, (n,), generator=g)


def naive_best(scores: Bilinear, table: Tensor, y: Tensor, c: int, k: int) -> float:
    """The largest mean loss of all choices of up to k attributes of class c."""
    worst = -math.inf
    for size in range(k + 1):
        for chosen in combinations(range(table.shape[1]), size):
            poisoned = table.clone()
            for j in chosen:
                poisoned[c, j] = 1 - poisoned[c, j]
            worst = max(worst, F.cross_entropy(scores(poisoned), y).item())
    return worst


@pytest.mark.parametrize("seed", range(4))
def test_the_best_single_flip_is_found(seed):
    scores, table, y = binary(seed=seed)
    found = flip(scores, table, y, count=1, threat="universal", which=torch.tensor([2]), shortlist=7)
    assert F.cross_entropy(found.scores(scores), y).item() == pytest.approx(
        naive_best(scores, table, y, 2, 1)
    )
    for i in range(len(y)):
        one = Curved(scores.z[[i]])
        each = flip(scores, table, y, count=1, threat="per_image", shortlist=7)
        best = naive_best(one, table, y[[i]], int(y[i]), 1)
        assert F.cross_entropy(each.scores(scores)[[i]], y[[i]]).item() == pytest.approx(best, rel=1e-5)


def test_flips_add_up_and_say_which_they_were():
    scores, table, y = binary()
    before = F.cross_entropy(scores(table), y).item()
    losses = []
    for count in (1, 2, 3):
        found = flip(scores, table, y, count=count, threat="universal", which=torch.tensor([2]))
        losses.append(F.cross_entropy(found.scores(scores), y).item())
        changed = (found.tables != table).nonzero().tolist()
        named = [j for j in found.attributes.tolist() if j >= 0]
        assert changed == [[2, j] for j in sorted(named)]
        assert found.tables.unique().tolist() == [0.0, 1.0]
    assert before < losses[0] <= losses[1] <= losses[2]
    assert losses[1] >= 0.5 * naive_best(scores, table, y, 2, 2)


def test_a_flip_that_helps_nobody_is_not_made():
    """Every attribute of the class is wrong already."""
    z = torch.tensor([[1.0, 1.0]])
    table = torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]])
    table[0] += 1e-9
    found = flip(Bilinear(z), table, torch.tensor([0]), count=2, threat="per_image")
    assert found.attributes.tolist() == [[-1, -1]]
    assert torch.equal(found.tables[0], table)


def test_the_opposite_is_the_far_end_of_the_column():
    table = torch.tensor([[0.0, 1.0, 5.0], [1.0, 1.0, 9.0], [0.0, 1.0, 6.0]])
    assert opposite(table).tolist() == [[1.0, 1.0, 9.0], [0.0, 1.0, 5.0], [1.0, 1.0, 9.0]]


def test_the_row_of_a_planted_mark_loses_it():
    """Queries are known by one attribute alone: a zebra without stripes."""
    table = torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    z = torch.tensor([[0.1, 3.0, 0.2, 0.1]]).repeat(3, 1)
    found = flip(
        Bilinear(z), table, torch.tensor([0, 0, 0]), count=1, threat="universal", which=torch.tensor([0])
    )
    assert found.attributes.tolist() == [1]
    assert found.rows.tolist() == [[1.0, 0.0, 0.0, 1.0]]


# --- input that cannot be used -------------------------------------------------------------------------


def bad(**changes):
    scores, table, y = problem()
    given = {"scores": scores, "table": table, "y": y, "threat": "universal", "which": torch.tensor([0])}
    return given | changes


BAD = {
    "zero row": (
        lambda t: t.index_fill(0, torch.tensor([2]), 0.0),
        r"table: found only zeros in 1 rows, the first is 2",
    ),
    "one class": (lambda t: t[:1], r"table: found shape \[1, 6\], expected \[C, K\] with C > 1"),
    "nan": (lambda t: t.clone().fill_diagonal_(math.nan), r"table: found 4 NaN or infinite entries"),
    "inf": (lambda t: t.clone().fill_diagonal_(math.inf), r"table: found 4 NaN or infinite entries"),
    "int": (lambda t: t.long(), r"table: found torch.int64, expected float32"),
    "axes": (lambda t: t[None], r"table: found shape \[1, 4, 6\]"),
}


@pytest.mark.parametrize("attack", [*ATTACKS, partial(flip, count=1)])
@pytest.mark.parametrize("case", BAD)
def test_tables_that_cannot_be_used(attack, case):
    spoil, message = BAD[case]
    given = bad()
    given["table"] = spoil(given["table"])
    if not (attack.__class__ is partial and attack.func is flip):
        given |= {"radius": 1.0, "generator": rng()}
    with pytest.raises(DataError, match=message):
        attack(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.full((7,), 4)}, r"y: found 4\.\.4, expected rows of the table, 0\.\.3"),
        ({"y": torch.full((7,), -1)}, r"y: found -1"),
        ({"y": torch.zeros(6, dtype=torch.int64)}, r"y: found 6 labels, expected 7, one a query"),
        ({"y": torch.zeros(7)}, r"y: found torch.float32"),
        ({"which": None}, r"which: found None, expected rows, since one table"),
        ({"which": torch.tensor([4])}, r"which: found 4\.\.4"),
        ({"which": torch.tensor([1, 1])}, r"which: found a row twice"),
        ({"which": torch.zeros(4, dtype=torch.bool)}, r"which: found torch.bool \[4\].*m > 0"),
        ({"which": torch.zeros(7, 1, dtype=torch.int64)}, r"which: found torch.int64 \[7, 1\]"),
        ({"threat": "both"}, r"threat: found 'both'"),
        ({"radius": -1.0}, r"radius: found -1"),
        ({"radius": math.nan}, r"radius: found nan"),
        ({"radius": math.inf}, r"radius: found inf"),
        ({"radius": torch.ones(3)}, r"radius: found shape \[3\], expected a number or \[4\]"),
        ({"attribute_scale": 0.0}, r"attribute_scale: found 0, expected above 0"),
        ({"bounds": (1.0, 0.0)}, r"bounds: found \(1.0, 0.0\)"),
        ({"bounds": (0.0, 1.0)}, r"bounds: found rows from -"),
        ({"direction": "up"}, r"direction: found 'up'"),
        ({"loss": "zero"}, r"loss: found 'zero'"),
        ({"steps": 0}, r"steps: found 0"),
        ({"step": -1.0}, r"step: found -1"),
        ({"scores": lambda t: torch.zeros(7, 3)}, r"scores: found shape \[7, 3\], expected \[n, 4\]"),
        ({"scores": lambda t: Bilinear(torch.ones(7, 6))(t.detach())}, r"no gradient in the table"),
        (
            {"scores": lambda t: Bilinear(torch.ones(7, 6))(t).sqrt()},
            r"NaN or infinite gradient in the table",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        ifgsm(**bad(**({"radius": 1.0} | changes)))


def test_other_settings_that_do_not_fit():
    with pytest.raises(DataError, match="gamma: found None, expected a number above 0, or a radius"):
        wrm(**bad())
    with pytest.raises(DataError, match="gamma: found 0"):
        wrm(**bad(gamma=0.0))
    with pytest.raises(DataError, match="generator: found None"):
        noise(**bad(radius=1.0))
    with pytest.raises(DataError, match="count: found 0"):
        flip(**bad(count=0))
    with pytest.raises(DataError, match="which: found 2 rows, expected one class"):
        flip(**bad(count=1, which=torch.tensor([0, 1])))


def test_rows_are_replaced_for_all_or_for_each():
    table = torch.arange(6.0).reshape(3, 2)
    one = replaced(table, torch.tensor([2, 0]), torch.tensor([[9.0, 9.0], [7.0, 7.0]]))
    assert one.tolist() == [[7.0, 7.0], [2.0, 3.0], [9.0, 9.0]]
    each = replaced(table, torch.tensor([[2], [0]]), torch.tensor([[[9.0, 9.0]], [[7.0, 7.0]]]))
    assert each[0].tolist() == [[0.0, 1.0], [2.0, 3.0], [9.0, 9.0]]
    assert each[1].tolist() == [[7.0, 7.0], [2.0, 3.0], [4.0, 5.0]]


def test_the_module_is_found_beside_the_attacks_on_images():
    assert prototypes.fgsm is fgsm
