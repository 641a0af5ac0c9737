"""SAE's solution against its objective, SciPy's Sylvester solver and least squares at both ends of λ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from scipy.linalg import solve_sylvester
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.embedding.moments import collect
from zsl_lib.embedding.sae import SAE
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate

LAM = 0.3


def training_parts(d: ZSLDataset) -> tuple[Tensor, Tensor]:
    """X ``[n, D]`` and each image's semantics S ``[n, K]``."""
    return d.features[d.trainval].double(), d.semantics[d.labels[d.trainval]].double()


def objective(w: Tensor, x: Tensor, s: Tensor) -> Tensor:
    return (x - s @ w).square().sum() + LAM * (x @ w.T - s).square().sum()


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset()


def test_the_printed_objective_is_stationary_at_w(data):
    parts = training_parts(data)
    w = SAE(LAM).fit(data).W.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(w, *parts), w)
    zero = torch.zeros_like(w, requires_grad=True)
    (at_zero,) = torch.autograd.grad(objective(zero, *parts), zero)
    assert gradient.norm() < 1e-8 * at_zero.norm()


def test_the_objectives_gradient_agrees_with_finite_differences(data):
    w = torch.randn(4, 6, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: objective(w, *training_parts(data)), w)


@pytest.mark.parametrize("lam", [1e-3, 0.3, 100.0])
def test_scipys_sylvester_solver_finds_the_same(data, lam):
    x, s = (part.numpy() for part in training_parts(data))
    expected = solve_sylvester(s.T @ s, lam * x.T @ x, (1 + lam) * s.T @ x)
    np.testing.assert_allclose(SAE(lam).fit(data).W.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("lam", "solved", "other"), [(1e-9, "decoder", "encoder"), (1e9, "encoder", "decoder")]
)
def test_at_its_ends_lambda_leaves_least_squares_of_one_direction(data, lam, solved, other):
    """λ → 0 keeps the decoder's error, X from S; λ → ∞ the encoder's, S from X."""
    x, s = training_parts(data)
    maps = {"decoder": torch.linalg.lstsq(s, x).solution, "encoder": torch.linalg.lstsq(x, s).solution.T}
    w = SAE(lam).fit(data).W
    torch.testing.assert_close(w, maps[solved], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(w, maps[other], rtol=0.1)


def test_where_many_maps_solve_it_it_is_that_of_least_norm():
    """Two copies of a feature, a feature and an attribute that are 0 in training: both coefficients are
    singular, and a general Sylvester solver has no answer. What is not determined is 0; what is
    determined in a sum only is shared evenly; and the objective is stationary."""
    g = rng(1)
    x, s = torch.randn(30, 4, generator=g).double(), torch.rand(5, 3, generator=g).double()
    x, s, y = torch.cat([x, x[:, :1], 0 * x[:, :1]], 1), torch.cat([s, 0 * s[:, :1]], 1), torch.arange(30) % 5
    w = SAE(LAM).fit_moments(collect([(x, y)], 5), s).W.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(w, x, s[y]), w)
    assert gradient.norm() < 1e-8 * (s[y].T @ x).norm()
    assert w[3].abs().max() < 1e-12
    assert w[:, 5].abs().max() < 1e-12
    torch.testing.assert_close(w[:, 0], w[:, 4])


@pytest.mark.parametrize("space", ["features", "semantics"])
def test_scores_are_cosines_in_the_space_asked_for(data, space):
    model = SAE(LAM, space).fit(data)
    x, c, w = data.features[:3].double().numpy(), data.semantics[:2].double().numpy(), model.W.numpy()
    found = model.scores(data.features[:3], data.semantics[:2])
    for i in range(3):
        for j in range(2):
            u, v = (x[i], c[j] @ w) if space == "features" else (w @ x[i], c[j])
            by_hand = u @ v / np.sqrt((u @ u) * (v @ v))
            assert float(found[i, j]) == pytest.approx(by_hand)


def planted(varied: int, seed: int = 2) -> ZSLDataset:
    """Classes of ±1 attributes, of which the seen classes vary ``varied`` and have 0 for the others;
    features are a rotation of the attributes with some noise."""
    g, k, seen, unseen = rng(seed), 12, 40, 8
    semantics = torch.randn(seen + unseen, k, generator=g).sign()
    semantics[:seen, varied:] = 0
    semantics[seen:, :varied] *= 1.0 if varied == k else 0.0
    labels = torch.arange(seen + unseen).repeat_interleave(6)
    rotation = torch.linalg.qr(torch.randn(20, k, generator=g)).Q
    features = semantics[labels] @ rotation.T + 0.1 * torch.randn(len(labels), 20, generator=g)
    index = torch.arange(len(labels))
    is_seen, held = labels < seen, index % 6 == 0
    return ZSLDataset(
        name="planted",
        features=features,
        labels=labels,
        semantics=semantics,
        class_names=tuple(map(str, range(len(semantics)))),
        trainval=index[is_seen & ~held],
        test_seen=index[is_seen & held],
        test_unseen=index[~is_seen],
    )


@pytest.mark.parametrize("space", ["features", "semantics"])
def test_a_rotation_is_found_and_works_in_either_direction(space):
    assert evaluate(SAE(1.0, space).fit(planted(12)), planted(12)).T1 == 100


@pytest.mark.parametrize("space", ["features", "semantics"])
def test_it_fails_where_unseen_classes_differ_in_attributes_that_no_seen_class_has(space):
    """The rows of W for attributes never seen are 0, so all unseen classes look alike."""
    data = planted(6)
    model = SAE(1.0, space).fit(data)
    assert model.W[6:].abs().max() < 1e-12
    scores = model.scores(data.x(data.test_unseen), data.semantics[data.unseen])
    torch.testing.assert_close(scores, torch.zeros_like(scores), rtol=0, atol=1e-3)
    assert evaluate(model, data).T1 < 25  # chance is 12.5


def test_a_space_that_is_none_is_an_error():
    with pytest.raises(DataError, match=r"SAE.compare_in: found pixels, expected features or semantics"):
        SAE(compare_in="pixels")
