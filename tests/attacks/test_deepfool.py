"""DeepFool: exact on linear scores, and as foolbox's and ART's on a network."""

from __future__ import annotations

import foolbox
import pytest
import torch
from art.attacks.evasion import DeepFool
from problems import Linear, fooled, in_art, in_foolbox, lengths

from zsl_lib.attacks import deepfool

DUAL = {"l2": 2, "linf": 1}
ORDER = {"l2": 2, "linf": torch.inf}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_distance_to_a_linear_boundary_is_exact(linear, norm):
    """The nearest of the boundaries to all other classes, in one step."""
    scores, x, y = linear
    values, W = scores(x), scores.W
    gaps = values.gather(1, y[:, None]) - values
    slopes = torch.linalg.vector_norm(W[None] - W[y][:, None], DUAL[norm], dim=2)
    distance = (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(1)
    x_adv = deepfool(scores, x, y, norm=norm)
    near = distance < 60  # others would need pixels beyond the bounds
    assert near.sum() > 10
    assert fooled(linear, x_adv)[near].all()
    found = lengths(x_adv, x, ORDER[norm])[near]
    assert torch.allclose(found, 1.02 * (distance[near] + 1e-4 * 255), rtol=1e-3)


def test_what_is_wrong_already_and_what_cannot_be_fooled_stay():
    W = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    scores = Linear(W, torch.tensor([-2.0, 600.0]))
    x, y = torch.tensor([[10.0, 7.0], [250.0, 9.0]]), torch.tensor([0, 1])
    assert torch.equal(deepfool(scores, x, y), x)  # the first is wrong, the second's boundary beyond 255


def test_a_radius_projects(trained):
    scores, x, y = trained
    free = deepfool(scores, x, y)
    length = lengths(free, x)
    radius = length.median().item()
    held = deepfool(scores, x, y, radius=radius)
    near = length <= radius
    assert torch.equal(held[near], free[near])
    assert torch.allclose(lengths(held, x)[~near], torch.tensor(radius), atol=1e-2)
    assert not fooled(trained, held)[length > 1.03 * radius].any()  # its overshoot apart


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_foolbox_agrees(trained, norm):
    scores, x, y = trained
    kind = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm]
    _, theirs, success = kind(steps=20, candidates=5)(in_foolbox(trained), x / 255, y, epsilons=None)
    ours = deepfool(scores, x, y, steps=20, classes=4, norm=norm)
    assert success.all()
    assert fooled(trained, ours).all()
    ratio = lengths(ours, x, ORDER[norm]) / lengths(255 * theirs, x, ORDER[norm])
    assert ratio.median() == pytest.approx(1, abs=0.005)
    assert ratio.max() < 1.1


def test_art_agrees(trained):
    scores, x, y = trained
    oracle = DeepFool(in_art(trained), max_iter=20, epsilon=0.02, nb_grads=5, verbose=False)
    theirs = 255 * torch.from_numpy(oracle.generate((x / 255).numpy()))
    ours = deepfool(scores, x, y, steps=20, classes=4)
    both = fooled(trained, theirs)
    assert both.float().mean() > 0.9
    ratio = lengths(ours, x)[both] / lengths(theirs, x)[both]
    assert ratio.median() == pytest.approx(1, abs=0.02)


def test_few_classes_are_enough_or_too_few(trained):
    """With one class to go to, the perturbation can only be longer."""
    scores, x, y = trained
    one, all_four = (lengths(deepfool(scores, x, y, classes=k), x) for k in (1, 4))
    found = one > 0
    assert found.float().mean() > 0.8
    assert all_four[found].mean() <= one[found].mean() * 1.001
    assert torch.equal(deepfool(scores, x, y, classes=99), deepfool(scores, x, y, classes=4))
