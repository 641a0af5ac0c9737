"""What DeViSE, SJE, ALE and LATEM share, and how their losses are related."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor

from zsl_lib.embedding.ale import ALE
from zsl_lib.embedding.devise import DeViSE
from zsl_lib.embedding.latem import LATEM
from zsl_lib.embedding.ranking import Maps, RankingModel, violations
from zsl_lib.embedding.sje import SJE
from zsl_lib.errors import DataError

EVERY = pytest.mark.parametrize("method", [DeViSE, SJE, ALE, LATEM])
DIM, SEMANTIC_DIM = 5, 4


def problem(classes: int = 6, n: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``[n, 5]``, labels ``[n]`` and semantics ``[classes, 4]`` in float64."""
    g = rng(1)
    x = torch.rand(n, DIM, generator=g, dtype=torch.float64)
    s = torch.rand(classes, SEMANTIC_DIM, generator=g, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=g), s


def random_maps(maps: int, seed: int = 2, size: float = 2.0) -> Tensor:
    return size * torch.randn(maps, DIM, SEMANTIC_DIM, generator=rng(seed), dtype=torch.float64)


def with_maps(model: RankingModel, x: Tensor, W: Tensor) -> RankingModel:
    """The model as if it had learned ``W`` from x."""
    model.net = Maps(x.mean(0), W)
    return model


def naive_scores(x: Tensor, s: Tensor, W: Tensor, mean: list[float]) -> list[list[float]]:
    """The best map's x̄ᵀ W c̄, number by number."""
    scores = []
    for image in x.tolist():
        a = [v - m for v, m in zip(image, mean, strict=True)]
        row = []
        for c in s.tolist():
            length = math.hypot(*a) * math.hypot(*c)
            forms = [
                sum(a[i] * w[i][j] * c[j] for i in range(len(a)) for j in range(len(c))) / length
                for w in W.tolist()
            ]
            row.append(max(forms))
        scores.append(row)
    return scores


def naive_ale(v: list[float]) -> float:
    r = sum(1 for value in v if value > 0)
    return sum(1 / i for i in range(1, r + 1)) / r * sum(v) if r else 0.0


COMBINE: dict[type[RankingModel], Callable[[list[float]], float]] = {
    DeViSE: sum,
    SJE: max,
    ALE: naive_ale,
    LATEM: sum,
}


def naive_loss(
    method: type[RankingModel], x: Tensor, y: Tensor, s: Tensor, W: Tensor, margin: float
) -> float:
    """Image by image, class by class."""
    total, scores = 0.0, naive_scores(x, s, W, x.mean(0).tolist())
    for row, right in zip(scores, y.tolist(), strict=True):
        v = [max(0.0, margin + f - row[right]) for c, f in enumerate(row) if c != right]
        total += COMBINE[method](v)
    return total / len(x)


@EVERY
@pytest.mark.parametrize(("maps", "margin"), [(1, 0.1), (1, 1.0), (3, 1.0), (3, 5.0)])
def test_the_loss_is_the_loop_over_images_and_classes(method, maps, margin):
    x, y, s = problem()
    W = random_maps(maps)
    model = with_maps(method(margin=margin), x, W)
    assert model._loss(x, y, s).item() == pytest.approx(naive_loss(method, x, y, s, W, margin), rel=1e-12)
    expected = naive_scores(x, s, W, x.mean(0).tolist())
    torch.testing.assert_close(model._compare(x, s), torch.tensor(expected, dtype=torch.float64))


@EVERY
@pytest.mark.parametrize("maps", [1, 3])
def test_the_losss_gradient_agrees_with_finite_differences(method, maps):
    x, y, s = problem()

    def loss(W: Tensor) -> Tensor:
        model = method()
        model.net = lambda x, s: torch.func.functional_call(net, {"W": W}, (x, s))
        return model._loss(x, y, s)

    net = Maps(x.mean(0), random_maps(maps))
    assert torch.autograd.gradcheck(loss, random_maps(maps).requires_grad_())


def test_violations_by_hand():
    """Scores 2, 1.5, 0.5, of which the first is the right one, then the last."""
    scores = torch.tensor([[2.0, 1.5, 0.5], [2.0, 1.5, 0.5]])
    found = violations(scores, torch.tensor([0, 2]), margin=1.0)
    torch.testing.assert_close(found, torch.tensor([[0, 0.5, 0], [2.5, 2.0, 0]]))


def some_violations(classes: int = 7, n: int = 200) -> Tensor:
    """Of every rank, 0 and all classes included; the first class is the right one."""
    g = rng(4)
    v = torch.rand(n, classes, generator=g, dtype=torch.float64) * 3
    kept = torch.rand(n, classes, generator=g) < torch.linspace(0, 1, n)[:, None]
    kept[:, 0] = False
    return v * kept


def test_one_violation_is_one_and_the_same_loss_for_all():
    v = torch.zeros(3, 5).scatter(1, torch.tensor([[1], [4], [2]]), torch.tensor([[0.3], [2.0], [1.0]]))
    for method in COMBINE:
        torch.testing.assert_close(method()._combine(v), torch.tensor([0.3, 2.0, 1.0]))


def test_with_two_classes_all_learn_the_same():
    data = small_dataset(seen=2)
    one, *others = (m(margin=1.0, lr=0.5, epochs=4).fit(data).net.W for m in (DeViSE, SJE, ALE))
    for other in others:
        torch.testing.assert_close(other, one)
    assert one.abs().max() > 0.1


def test_with_three_classes_they_do_not():
    data = small_dataset(seen=3)
    devise, sje, ale = (m(margin=1.0, lr=0.5, epochs=4).fit(data).net.W for m in (DeViSE, SJE, ALE))
    assert (devise - sje).abs().max() > 0.1
    assert (devise - ale).abs().max() > 0.1


def test_the_sum_bounds_the_weighted_sum_and_the_largest():
    """β_r ≤ r, and a mean is at most the maximum: ALE ≤ DeViSE, ALE ≤ β_r SJE, SJE ≤ DeViSE ≤ r SJE."""
    v = some_violations()
    devise, sje, ale = (m()._combine(v) for m in (DeViSE, SJE, ALE))
    r = (v > 0).sum(1)
    assert set(r.tolist()) == set(range(v.shape[1]))
    beta = torch.tensor([sum(1 / i for i in range(1, k + 1)) for k in r.tolist()], dtype=v.dtype)
    slack = 1e-12
    assert (ale <= devise + slack).all()
    assert (ale <= beta * sje + slack).all()
    assert (sje <= devise + slack).all()
    assert (devise <= r * sje + slack).all()
    assert (ale < devise - slack).any()
    assert (ale < sje - slack).any()


@pytest.mark.parametrize("method", [DeViSE, SJE, ALE])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_a_larger_margin_is_the_same_as_smaller_steps(method, weight_decay):
    data, a = small_dataset(), 8.0
    small = method(margin=0.25, lr=0.125, weight_decay=weight_decay, epochs=4).fit(data)
    large = method(margin=0.25 * a, lr=0.125 * a, weight_decay=weight_decay / a, epochs=4).fit(data)
    torch.testing.assert_close(large.net.W, a * small.net.W)
    assert large.history == pytest.approx([a * loss for loss in small.history])


@EVERY
def test_lengths_and_a_shift_of_all_features_do_not_matter(method):
    x, y, s = (part.float() if part.is_floating_point() else part for part in problem(n=40))
    lengths = torch.linspace(0.5, 3, len(s))[:, None]
    one, other = method(lr=0.3, epochs=3), method(lr=0.3, epochs=3)
    one._fit(x, y, s)
    other._fit(4 * x + 7, y, lengths * s)
    torch.testing.assert_close(other._scores(4 * x + 7, lengths * s), one._scores(x, s), rtol=1e-3, atol=1e-4)


@EVERY
def test_seed_decides_order_and_another_one_gives_another_result(method):
    data = small_dataset()
    first, same, other = (method(seed=s, batch_size=4, epochs=3).fit(data).net.W for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@EVERY
@pytest.mark.parametrize("margin", [0, float("nan"), float("inf")])
def test_a_margin_has_to_be_above_0(method, margin):
    with pytest.raises(
        DataError, match=rf"{method.__name__}.margin: found {margin}, expected a number above 0"
    ):
        method(margin=margin)
