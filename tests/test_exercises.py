"""The coding exercises: each chapter has one, its stub fails its own check, and its solution passes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from zsl_lib.exercises import compare

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

from exercises import Exercise, Part, exercises_of, numbered_parts, read, stub, with_stubs  # noqa: E402

CHAPTERS = [name for part in numbered_parts(ROOT / "_toc.yml") for name in part.chapters]
CASES = [
    pytest.param(exercise, id=f"{Path(name).name[:2]}-{exercise.label}")
    for name in CHAPTERS
    for exercise in read(ROOT / f"{name}.py")
]


def run(code: str, exercise: Exercise, change: Callable[[Any], Any] | None = None) -> None:
    """Run code and check in a namespace of their own; change: what becomes of each function's result."""
    names: dict[str, Any] = {"__name__": "exercise"}
    exec(compile(code, exercise.label, "exec"), names)
    if change:
        for name in defined(exercise.code):
            names[name] = changed(names[name], change)
    exec(compile(exercise.check, f"check of {exercise.label}", "exec"), names)


def defined(code: str) -> list[str]:
    return [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]


def changed(function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: change(function(*args, **kwargs))


def a_bit_off(value: Any) -> Any:
    """The value, or each of several, wrong by a per cent and a hundredth; a whole number by one."""
    if isinstance(value, tuple):
        return tuple(map(a_bit_off, value))
    exact = isinstance(value, int) or (isinstance(value, torch.Tensor) and not value.is_floating_point())
    return value + 1 if exact else 1.01 * value + 0.01


@pytest.mark.parametrize("name", CHAPTERS)
def test_each_numbered_chapter_has_a_coding_exercise(name: str) -> None:
    assert read(ROOT / f"{name}.py"), (
        f"{name}.py: found no coding exercise; expected one in each numbered chapter"
        " (CONTRIBUTING.md, Add an exercise)"
    )


@pytest.mark.parametrize("exercise", CASES)
def test_the_stub_fails_its_check(exercise: Exercise) -> None:
    assert "BEGIN SOLUTION" not in exercise.stub
    with pytest.raises(NotImplementedError):
        run(exercise.stub, exercise)


@pytest.mark.parametrize("exercise", CASES)
def test_the_solution_passes_its_check(exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    run(exercise.code, exercise)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for name, yours, expected in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        assert name
        assert yours.startswith("  your value      ")
        assert expected.startswith("  expected value  ")


@pytest.mark.parametrize("exercise", CASES)
def test_a_value_that_is_a_bit_off_fails_its_check(exercise: Exercise) -> None:
    with pytest.raises(AssertionError, match=r": found .*, expected "):
        run(exercise.code, exercise, a_bit_off)


@pytest.mark.parametrize("exercise", CASES)
def test_nothing_returned_fails_its_check(exercise: Exercise) -> None:
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        run(exercise.code, exercise, lambda value: None)


@pytest.mark.parametrize("exercise", CASES)
def test_a_statement_can_be_read_without_the_book(exercise: Exercise) -> None:
    """An assignment shows it in Jupyter, which knows no roles, no directives and no pages."""
    for word in ("{eq}", "{cite}", "{ref}", "{doc}", ":::", "]("):
        assert word not in exercise.statement, f"{exercise.label}: {word} in its statement"


def test_the_example_of_contributing_is_one() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = text.split("````text\n# ```{exercise-start}")[1].split("````\n")[0]
    source = "# %% [markdown]\n# ```{exercise-start}" + example
    (found,) = exercises_of(jupytext.reads(source, fmt="py:percent"), "CONTRIBUTING.md")
    run(found.code, found)
    with pytest.raises(NotImplementedError):
        run(found.stub, found)
    with pytest.raises(AssertionError):
        run(found.code, found, a_bit_off)


# --- compare ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yours", "expected", "both"),
    [
        (0.1 + 0.2, 0.3, "0.3"),
        ([1, 2], torch.tensor([1.0, 2.0], requires_grad=True), "[1, 2]"),
        (np.eye(3), torch.eye(3), "[1, 0, 0, 0, ...] (3 × 3)"),
        (-0.0, 1e-17, "0"),
        (1e9 + 100, 1e9, "1e+09"),
    ],
)
def test_compare_prints_both(
    yours: Any, expected: Any, both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    compare("a", yours, expected)
    assert capsys.readouterr().out == f"a\n  your value      {both}\n  expected value  {both}\n"


@pytest.mark.parametrize(
    ("yours", "expected", "message"),
    [
        (1.00001, 1, "a: found 1.00001, expected 1: 1 of 1 differ, by up to 1e-05"),
        ([1, 2, 3], [1, 4, 3], r"a: found \[1, 2, 3\], expected \[1, 4, 3\]: 1 of 3 differ, by up to 2"),
        (float("nan"), 1, "a: found nan, expected 1: 1 of 1 differ, by up to nan"),
        (float("inf"), float("inf"), "a: found inf, expected inf"),
        ([1, 2], [[1, 2]], r"a: found the shape \(2,\), expected \(1, 2\)"),
        (None, 1, "a: found None, expected a value; does your function return one?"),
        ("one", 1, "a: found a str, expected numbers of one shape"),
        ([[1], [1, 2]], 1, "a: found a list, expected numbers of one shape"),
    ],
)
def test_compare_says_what_is_wrong(yours: Any, expected: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        compare("a", yours, expected)


def test_compare_takes_a_tolerance() -> None:
    compare("a", 1.05, 1, tolerance=0.1)
    with pytest.raises(AssertionError):
        compare("a", 1.05, 1, tolerance=0.01)


# --- the source ---------------------------------------------------------------------------------------

CODE = "def add(a, b):\n    ### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION"
BOX = "```{exercise-start}\n:label: ex-add\n```\nAdd $a$ to $b$.\n```{exercise-end}\n```"
TOP = f"{BOX}\n\n```{{solution-start}} ex-add\n:class: dropdown\n```"
BOTTOM = "```{solution-end}\n```"


def notebook(*, top: str = TOP, code: str = CODE, tags: tuple[str, ...] = ("exercise", "check")) -> Any:
    cells = [
        new_code_cell(text, metadata={"tags": [tag]})
        for tag, text in zip(tags, (code, "compare('sum', add(1, 2), 3)"), strict=False)
    ]
    return new_notebook(cells=[new_markdown_cell(top), *cells, new_markdown_cell(BOTTOM)])


def test_an_exercise_is_read_from_one_source() -> None:
    (found,) = exercises_of(notebook(), "a.py")
    assert found == Exercise("ex-add", "Add $a$ to $b$.", CODE, "compare('sum', add(1, 2), 3)")
    assert found.stub == "def add(a, b):\n    # YOUR CODE HERE\n    raise NotImplementedError()"


def test_a_page_has_stub_and_check_in_the_box() -> None:
    page = notebook()
    with_stubs(page, "a.py")
    box, solution = page.cells[0].source.split("```{exercise-end}")
    (found,) = exercises_of(notebook(), "a.py")
    assert box.startswith("```{exercise-start}\n:label: ex-add\n```\nAdd $a$ to $b$.\n")
    assert f"```python\n{found.stub}\n```\n" in box
    assert f"```python\n{found.check}\n```\n" in box
    assert "a + b" not in box
    assert solution.endswith("```{solution-start} ex-add\n:class: dropdown\n```")
    assert [c.source for c in page.cells[1:]] == [c.source for c in notebook().cells[1:]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"tags": ("exercise",)}, "a.py: ex-add: found no cell tagged `check` below"),
        ({"tags": ("check",)}, "a.py: found a cell tagged `check`; expected one tagged `exercise` right"),
        ({"top": BOX}, "a.py: found a cell tagged `exercise` in the solution 'of nothing'"),
        ({"top": TOP.replace("} ex-add", "} ex-b")}, "a.py: found a cell tagged `exercise` in .* 'ex-b'"),
        ({"code": "add = sum"}, "a.py: ex-add: found no '### BEGIN SOLUTION'"),
        ({"code": CODE.replace("### END", "### THE")}, "a.py: ex-add: found no '### END SOLUTION'"),
        ({"code": f"{CODE}\n### END SOLUTION"}, "a.py: ex-add: found '### END SOLUTION' out of turn"),
    ],
)
def test_what_is_out_of_place_is_said(damage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exercises_of(notebook(**damage), "a.py")


def test_each_region_has_its_stub() -> None:
    assert stub(f"{CODE}\n\n{CODE}").count("raise NotImplementedError()") == 2


def test_parts_are_the_numbered_ones(tmp_path: Path) -> None:
    toc = tmp_path / "_toc.yml"
    toc.write_text(
        "parts:\n  - caption: Start\n    chapters:\n      - file: book/setup\n"
        "  - caption: Attacks & training\n    numbered: true\n    chapters:\n      - file: notebooks/01_a\n",
        encoding="utf-8",
    )
    (part,) = numbered_parts(toc)
    assert part == Part("Attacks & training", ("notebooks/01_a",))
    assert part.name == "attacks-training"
