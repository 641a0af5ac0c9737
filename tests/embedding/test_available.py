"""What holds for every compatibility model in the folder, those of tomorrow included."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib import embedding
from zsl_lib.data import ZSLDataset
from zsl_lib.embedding import CompatibilityModel, available
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate

FOLDER = Path(embedding.__file__).parent
EVERY = pytest.mark.parametrize("name", available())


def make(name: str, **settings: Any) -> CompatibilityModel:
    """With defaults, but few epochs."""
    short = {"epochs": 3} if "epochs" in parameters(name) else {}
    return available()[name](**(short | settings))


def parameters(name: str) -> list[str]:
    return list(inspect.signature(available()[name]).parameters)


def planted(seed: int = 0, per_class: int = 12, noise: float = 0.15) -> ZSLDataset:
    """Half of ten binary attributes for each class, and features that are a linear function of them."""
    g, seen, unseen, k, dim = rng(seed), 60, 8, 10, 40
    codes = torch.tensor([*combinations(range(k), k // 2)])
    codes = codes[torch.randperm(len(codes), generator=g)[: seen + unseen]]
    semantics = torch.zeros(seen + unseen, k).scatter_(1, codes, 1.0)
    labels = torch.arange(seen + unseen).repeat_interleave(per_class)
    basis = torch.linalg.qr(torch.randn(dim, k, generator=g)).Q
    features = semantics[labels] @ basis.T + noise * torch.randn(len(labels), dim, generator=g)
    index = torch.arange(len(labels))
    is_seen, held = labels < seen, index % 4 == 0
    return ZSLDataset(
        name="planted",
        features=features,
        labels=labels,
        semantics=semantics,
        class_names=tuple(map(str, range(len(semantics)))),
        trainval=index[is_seen & ~held],
        test_seen=index[is_seen & held],
        test_unseen=index[~is_seen],
    ).scaled()


def test_methods_are_found_by_their_files():
    assert list(available()) == sorted(available())
    assert "eszsl" in available()
    assert "base" not in available()
    assert all((FOLDER / f"{name}.py").exists() for name in available())


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(DataError, match=r"method: found nosuch, expected one of .*eszsl"):
        embedding.model("nosuch")


def test_another_method_needs_one_file_and_no_other_edit(tmp_path, monkeypatch):
    """The whole file that CONTRIBUTING.md shows."""
    text = (FOLDER.parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "ridge.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(embedding, "__path__", [*embedding.__path__, str(tmp_path)])
    available.cache_clear()
    try:
        assert "ridge" in available()
        data = planted()
        assert evaluate(embedding.model("ridge")().fit(data), data).T1 > 90
    finally:
        monkeypatch.undo()
        available.cache_clear()
    assert "ridge" not in available()


@EVERY
def test_its_file_says_what_it_minimises_what_it_costs_and_is_short(name):
    source = (FOLDER / f"{name}.py").read_text()
    module: ModuleType = importlib.import_module(f"zsl_lib.embedding.{name}")
    assert ".. math::" in (module.__doc__ or ""), "the objective, in LaTeX"
    assert "O(" in (module.__doc__ or ""), "the complexity"
    assert len(source.splitlines()) <= 120


@EVERY
def test_its_grid_holds_arguments_of_its_own(name):
    grid = available()[name].GRID
    assert grid
    assert set(grid) <= set(parameters(name))
    assert all(len(values) >= 1 for values in grid.values())
    make(name, **{key: values[-1] for key, values in grid.items()})


@EVERY
def test_scores_have_a_row_an_image_and_a_column_a_class_in_any_order_of_classes(name):
    data = small_dataset()
    model = make(name).fit(data)
    x = data.features[data.test_unseen]
    scores = model.scores(x, data.semantics)
    assert scores.shape == (len(x), len(data.semantics))
    assert scores.isfinite().all()
    order = torch.randperm(len(data.semantics), generator=rng(5))
    torch.testing.assert_close(model.scores(x, data.semantics[order]), scores[:, order])
    torch.testing.assert_close(model.scores(x[:2], data.semantics), scores[:2])


@EVERY
def test_it_gives_the_same_twice_and_leaves_the_global_random_state_alone(name):
    data = small_dataset()
    before = torch.get_rng_state()
    first, second = (make(name).fit(data).scores(data.features, data.semantics) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@EVERY
def test_what_has_no_seed_is_the_same_at_each_fit_and_what_has_one_follows_it(name):
    data = small_dataset()
    seeds = ({"seed": 1}, {"seed": 2}) if embedding.is_random(name) else ({}, {})
    first, second = (make(name, **seed).fit(data).scores(data.features, data.semantics) for seed in seeds)
    assert torch.equal(first, second) != embedding.is_random(name)


@EVERY
def test_nothing_but_trainval_and_seen_semantics_is_learned_from(name):
    data = small_dataset()
    features, semantics = data.features.clone(), data.semantics.clone()
    features[torch.cat([data.test_seen, data.test_unseen])] = 99.0
    semantics[data.unseen] = 7.0
    other = replace(data, features=features, semantics=semantics)
    x = data.features[data.test_seen]
    first, second = (make(name).fit(d).scores(x, data.semantics) for d in (data, other))
    assert torch.equal(first, second)


@EVERY
def test_a_planted_problem_is_solved(name):
    data = planted()
    assert evaluate(available()[name]().fit(data), data).T1 > 90


@EVERY
def test_classes_of_one_description_cannot_be_told_apart(name):
    data = small_dataset()
    semantics = data.semantics.clone()
    semantics[data.unseen] = data.semantics[data.unseen[0]]
    scores = make(name).fit(replace(data, semantics=semantics)).scores(data.features, semantics[data.unseen])
    torch.testing.assert_close(scores, scores[:, :1].expand_as(scores))


def _wrong_width(model: CompatibilityModel, data: ZSLDataset) -> Any:
    return model.fit(data).scores(data.features[:, :3], data.semantics)


def _wrong_semantics(model: CompatibilityModel, data: ZSLDataset) -> Any:
    return model.fit(data).scores(data.features, data.semantics[:, :2])


def _not_fitted(model: CompatibilityModel, data: ZSLDataset) -> Any:
    return model.scores(data.features, data.semantics)


def _masked(model: CompatibilityModel, data: ZSLDataset) -> Any:
    return model.fit(replace(data, mask=torch.ones(data.features.shape, dtype=torch.bool)))


@EVERY
@pytest.mark.parametrize(
    ("use", "message"),
    [
        (_wrong_width, r"scores: x: found \[n, 3\], expected \[n, 6\]"),
        (_wrong_semantics, r"scores: semantics: found \[n, 2\], expected \[n, 4\]"),
        (_not_fitted, r"scores: found no data, expected fit\(\) before"),
        (_masked, "mask: found hidden features, expected complete ones"),
    ],
)
def test_what_does_not_fit_is_an_error(name, use: Callable[..., Any], message: str):
    with pytest.raises(DataError, match=message):
        use(make(name), small_dataset())


@EVERY
def test_settings_out_of_range_are_errors(name):
    signature = inspect.signature(available()[name]).parameters.values()
    numbers = [p.name for p in signature if isinstance(p.default, int | float) and p.name != "seed"]
    for parameter in numbers:
        if isinstance(inspect.signature(available()[name]).parameters[parameter].default, bool):
            continue
        with pytest.raises(DataError, match=rf"{parameter}: found -1"):
            make(name, **{parameter: -1})
