"""The assignments: made and graded by the real nbgrader, with right, wrong and unsolved submissions."""

from __future__ import annotations

import csv
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

import assignment  # noqa: E402
from exercises import Exercise, numbered_parts, read  # noqa: E402

NBGRADER = Path(os.environ.get("ZSL_NBGRADER", ROOT / ".venv/nbgrader"))
PART = "poisoned-descriptions"
SCORES = """
    select student_id, base_cell.name, grade.auto_score from grade
    join base_cell on grade.cell_id = base_cell.id
    join submitted_notebook on grade.notebook_id = submitted_notebook.id
    join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id
"""


def call(course: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/assignment.py"), *arguments, "--nbgrader", str(NBGRADER)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # the kernel's library is the one under test
    return subprocess.run(command, cwd=course, env=env, capture_output=True, text=True, check=False)


def exercises() -> list[Exercise]:
    (part,) = [part for part in numbered_parts(ROOT / "_toc.yml") if part.name == PART]
    return [exercise for name in part.chapters for exercise in read(ROOT / f"{name}.py")]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A folder with the book's chapters, in which assignments are made."""
    for name in ("_toc.yml", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def nbgrader() -> None:
    if not (NBGRADER / "bin/nbgrader").exists():
        pytest.skip(f"{NBGRADER}/bin/nbgrader: not found; `make assignment` installs it")


def hand_in(course: Path, student: str, notebook: Any) -> None:
    target = course / assignment.COURSE / "submitted" / student / PART / f"{PART}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


@pytest.mark.usefixtures("nbgrader")
def test_right_and_wrong_submissions_are_told_apart(course: Path) -> None:
    made = call(course, "make", PART)
    assert made.returncode == 0, made.stdout + made.stderr
    asked = exercises()
    release = course / assignment.COURSE / "release" / PART / f"{PART}.ipynb"
    assert f"{PART}.ipynb, points: {len(asked)}\n" in made.stdout
    handed_out = nbformat.read(release, as_version=4)
    cells = {cell.id: cell for cell in handed_out.cells}
    for exercise in asked:  # nbgrader's stub is that of the page
        assert cells[exercise.label].source == exercise.stub
        assert cells[f"{exercise.label}-check"].source == exercise.check
    assert "SOLUTION" not in release.read_text(encoding="utf-8")

    hand_in(course, "unsolved", handed_out)
    for exercise in asked:
        cells[exercise.label].source = exercise.code
    hand_in(course, "right", handed_out)
    wrong = asked[0]
    cells[wrong.label].source = wrong.stub.replace("raise NotImplementedError()", "return 0.123")
    cells[f"{wrong.label}-check"].source = "print('all is well')"  # nbgrader puts the check back
    hand_in(course, "wrong", handed_out)

    graded = call(course, "grade", PART)
    assert graded.returncode == 0, graded.stdout + graded.stderr
    with sqlite3.connect(course / assignment.COURSE / "gradebook.db") as book:
        scores = {(student, name): score for student, name, score in book.execute(SCORES)}
    expected = {("unsolved", f"{e.label}-check"): 0.0 for e in asked}
    expected |= {("right", f"{e.label}-check"): 1.0 for e in asked}
    expected |= {("wrong", f"{e.label}-check"): float(e is not wrong) for e in asked}
    assert scores == expected
    with (course / assignment.COURSE / "grades.csv").open(encoding="utf-8", newline="") as file:
        table = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert table == {"unsolved": 0, "right": len(asked), "wrong": len(asked) - 1}
    assert f"{PART}: wrong {len(asked) - 1}.0 of {len(asked)}.0" in graded.stdout


def test_what_is_missing_is_said(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(course)
    with pytest.raises(SystemExit, match="found no part part-nine; expected some of zero-shot-recognition, "):
        assignment.chosen(["part-nine"])
    with pytest.raises(
        SystemExit, match=r"submitted: found no submission; expected STUDENT/PART/PART\.ipynb"
    ):
        assignment.grade(assignment.chosen([PART]), NBGRADER, force=False)
    monkeypatch.setattr(sys, "argv", ["assignment.py", "make", "--nbgrader", "nowhere"])
    with pytest.raises(SystemExit, match="nowhere/bin/nbgrader: not found; run `make assignment`"):
        assignment.main()


@pytest.mark.usefixtures("nbgrader")
def test_what_nbgrader_says_is_passed_on(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(course)
    assignment.COURSE.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"(?s)source.*nbgrader generate_assignment a: ended with 1"):
        assignment.call(NBGRADER, "generate_assignment", "a")


def test_each_part_makes_a_valid_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = []
    for part in numbered_parts(Path("_toc.yml")):
        notebook = assignment.source_notebook(part)
        nbformat.validate(notebook)
        assert notebook.cells[0].source.startswith(f"# {part.caption}\n")
        names += [cell.metadata["nbgrader"]["grade_id"] for cell in notebook.cells[1:] if "ex-" in cell.id]
    assert len(names) == len(set(names))
