"""ALE: values by hand, its weights, and the steps of its objective."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsl_lib.embedding.ale import ALE


def loss(*v: float) -> float:
    return float(ALE()._combine(torch.tensor([[0.0, *v]], dtype=torch.float64)))


def test_loss_by_hand():
    assert loss(0, 0, 0) == 0
    assert loss(0, 0.5, 0) == 0.5
    assert loss(0.5, 0.25, 0) == pytest.approx((1 + 1 / 2) / 2 * 0.75)
    assert loss(0.5, 0.25, 0.25) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_equal_violations_cost_the_harmonic_number_of_their_rank():
    for rank, harmonic in enumerate([0, 1, 3 / 2, 11 / 6, 25 / 12]):
        assert loss(*[2.0] * rank, *[0.0] * (4 - rank)) == pytest.approx(2 * harmonic)


def test_the_weight_is_a_constant_of_the_gradient():
    v = torch.tensor([[0.0, 0.5, 0.25, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(ALE()._combine(v).sum(), v)
    torch.testing.assert_close(gradient, torch.full((1, 4), 0.75))


def test_the_loss_steps_down_as_a_class_begins_to_violate():
    """From β₁ / 1 = 1 to β₂ / 2 = ¾ of the violation that there was."""
    assert loss(1.0, 0.0) == 1
    assert loss(1.0, 1e-9) == pytest.approx(0.75)


def test_all_classes_wrong_is_as_wrong_as_it_gets():
    """No rank is out of the table, and the right class is not counted."""
    v: Tensor = torch.full((1, 6), 1.0).scatter(1, torch.tensor([[3]]), 0.0)
    assert float(ALE()._combine(v)) == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5)
