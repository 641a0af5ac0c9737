"""The outside judge: it finds what PGD finds, on few classes too, and leaves no trace."""

from __future__ import annotations

import builtins

import pytest
import torch
from helpers import rng
from problems import fooled, lengths

from zsl_lib.attacks import autoattack, pgd
from zsl_lib.attacks.auto import STANDARD, _possible
from zsl_lib.errors import DataError

SHORT = {"queries": 30, "steps": 10}


@pytest.mark.parametrize(("norm", "radius"), [("linf", 14.0), ("l2", 60.0)])
def test_no_weaker_than_pgd(trained, norm, radius):
    scores, x, y = trained
    x_adv = autoattack(scores, x, y, radius=radius, norm=norm, **SHORT)
    order = torch.inf if norm == "linf" else 2
    assert (lengths(x_adv, x, order) <= radius + 1e-3).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 255
    judged = fooled(trained, x_adv)
    plain = fooled(trained, pgd(scores, x, y, radius=radius, norm=norm))
    assert 0 < plain.float().mean() < 1
    assert judged.float().mean() >= plain.float().mean()
    assert torch.equal(x_adv[~judged], x[~judged])


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(trained, classes):
    scores, x, y = trained
    kept = y < classes
    with torch.no_grad():
        x_adv = autoattack(lambda x: scores(x)[:, :classes], x[kept], y[kept], radius=40.0, **SHORT)
        assert (scores(x_adv)[:, :classes].argmax(1) != y[kept]).float().mean() > 0.5


def test_targeted_apgd_needs_four_classes():
    assert _possible(STANDARD, 4) == list(STANDARD)
    assert _possible(STANDARD, 3) == ["apgd-ce", "apgd-dlr", "fab-t", "square"]
    assert _possible(STANDARD, 2) == ["apgd-ce", "fab-t", "square"]


def test_it_leaves_no_trace(trained):
    scores, x, y = trained
    state = torch.get_rng_state()
    options = {"radius": 14.0, "attacks": ("apgd-ce", "square")} | SHORT
    first, again = (autoattack(scores, x[:9], y[:9], generator=rng(1), **options) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in scores.parameters())
    assert torch.equal(autoattack(scores, x[:9], y[:9], radius=0.0), x[:9])


def test_a_missing_package_is_named(trained, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyautoattack"):
            raise ImportError("No module named 'pyautoattack'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install pyautoattack"):
        autoattack(*trained, radius=4.0)
