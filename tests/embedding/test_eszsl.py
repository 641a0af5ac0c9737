"""ESZSL's closed form against the objective it is said to minimise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.metrics import evaluate

GAMMA, LAM = 0.7, 0.2


def training_parts(d: ZSLDataset) -> tuple[Tensor, Tensor, Tensor]:
    """X ``[n, D]``, Y ``[n, C]`` of ±1 and S ``[C, K]``, built without the library's help."""
    x = d.features[d.trainval].double()
    y = torch.full((len(x), len(d.seen)), -1.0, dtype=torch.float64)
    for i, label in enumerate(d.labels[d.trainval].tolist()):
        y[i, d.seen.tolist().index(label)] = 1.0
    return x, y, d.semantics[d.seen].double()


def objective(v: Tensor, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
    """The four printed terms."""
    return (
        (x @ v @ s.T - y).square().sum()
        + GAMMA * (v @ s.T).square().sum()
        + LAM * (x @ v).square().sum()
        + GAMMA * LAM * v.square().sum()
    )


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset()


def test_the_printed_objective_is_stationary_at_v(data):
    parts = training_parts(data)
    v = ESZSL(GAMMA, LAM).fit(data).V.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(v, *parts), v)
    zero = torch.zeros_like(v, requires_grad=True)
    (at_zero,) = torch.autograd.grad(objective(zero, *parts), zero)
    assert gradient.norm() < 1e-8 * at_zero.norm()


def test_the_objectives_gradient_agrees_with_finite_differences(data):
    v = torch.randn(6, 4, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: objective(v, *training_parts(data)), v)


def test_v_is_a_minimum_not_just_stationary(data):
    parts, v, g = training_parts(data), ESZSL(GAMMA, LAM).fit(data).V, rng(1)
    best = objective(v, *parts)
    for scale in (1e-3, 1e-1, 10):
        step = torch.randn(v.shape, generator=g, dtype=v.dtype)
        assert objective(v + scale * step, *parts) > best


@pytest.mark.parametrize(("gamma", "lam"), [(1e-3, 1e3), (1e3, 1e-3)])
def test_gamma_and_lambda_are_not_exchanged(data, gamma, lam):
    """V = (XᵀX + γI)⁻¹ XᵀYS (SᵀS + λI)⁻¹ with explicit inverses."""
    x, y, s = training_parts(data)
    left = torch.linalg.inv(x.T @ x + gamma * torch.eye(6, dtype=x.dtype))
    right = torch.linalg.inv(s.T @ s + lam * torch.eye(4, dtype=x.dtype))
    torch.testing.assert_close(ESZSL(gamma, lam).fit(data).V, left @ x.T @ y @ s @ right)


def test_the_order_of_classes_does_not_matter(data):
    order = torch.randperm(len(data.semantics), generator=rng(2))
    renamed = replace(
        data,
        labels=order.argsort()[data.labels],
        semantics=data.semantics[order],
        class_names=tuple(data.class_names[c] for c in order),
    )
    a, b = ESZSL(GAMMA, LAM).fit(data), ESZSL(GAMMA, LAM).fit(renamed)
    torch.testing.assert_close(a.V, b.V)
    x = data.features[data.test_unseen]
    torch.testing.assert_close(b.scores(x, renamed.semantics), a.scores(x, data.semantics)[:, order])


def test_scores_are_the_bilinear_form(data):
    model = ESZSL().fit(data)
    x, c = data.features[:3], data.semantics[:2]
    found = model.scores(x, c)
    assert found.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            by_hand = sum(
                float(x[i, a]) * float(model.V[a, b]) * float(c[j, b]) for a in range(6) for b in range(4)
            )
            assert float(found[i, j]) == pytest.approx(by_hand)


def test_a_planted_bilinear_problem_is_solved_perfectly():
    """Features are P s_c and little noise, with P orthonormal. Where the seen semantics are ±e_i of some
    basis, SᵀS is a multiple of I and Sᵀ1 = 0, so PᵀV is a multiple of I too: scores are cosines, and
    unit semantics never seen are told apart."""
    g, k, unseen = rng(3), 12, 10
    basis = torch.linalg.qr(torch.randn(k, k, generator=g)).Q
    new = torch.nn.functional.normalize(torch.randn(unseen, k, generator=g), dim=1)
    semantics = torch.cat([basis, -basis, new])
    labels = torch.arange(len(semantics)).repeat_interleave(6)
    planted = torch.linalg.qr(torch.randn(16, k, generator=g)).Q
    features = semantics[labels] @ planted.T + 0.01 * torch.randn(len(labels), 16, generator=g)
    index = torch.arange(len(labels))
    seen, held = labels < 2 * k, index % 6 == 0
    data = ZSLDataset(
        name="planted",
        features=features,
        labels=labels,
        semantics=semantics,
        class_names=tuple(map(str, range(len(semantics)))),
        trainval=index[seen & ~held],
        test_seen=index[seen & held],
        test_unseen=index[~seen],
    )
    model = ESZSL(0.01, 0.01).fit(data)
    found = planted.T.double() @ model.V
    torch.testing.assert_close(found / found.diagonal().mean(), torch.eye(k).double(), rtol=0, atol=0.02)
    assert evaluate(model, data) == (100, 100, 100, 100)


def test_nothing_but_trainval_is_learned_from(data):
    other = data.features.clone()
    other[torch.cat([data.test_seen, data.test_unseen])] = 99.0
    assert torch.equal(ESZSL().fit(data).V, ESZSL().fit(replace(data, features=other)).V)
