"""Assignments for nbgrader from the chapters' coding exercises: one for each numbered part of the book.

    python .ci/assignment.py make --nbgrader .venv/nbgrader [PART ...]
    python .ci/assignment.py grade --nbgrader .venv/nbgrader [PART ...]

Run from the root of the repository with the book's own Python: submissions run in it, by a kernel that
is written into nbgrader's environment. `make` writes `source` and, by nbgrader, `release` below
_build/assignments and touches nothing else there: `submitted` and the grade book stay. `grade` grades what
is in `submitted/STUDENT/PART/PART.ipynb` and writes grades.csv. Both exit 1, with nbgrader's words, if it
fails.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from exercises import Exercise, Part, exercises_of, numbered_parts
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

COURSE = Path("_build/assignments")
POINTS = 1  # of an exercise
CONFIG = """\
# Written by .ci/assignment.py; nbgrader reads it in this folder.
c = get_config()
c.CourseDirectory.root = {root!r}
c.ExecutePreprocessor.timeout = 120
"""
HEAD = """\
# {caption}

Coding exercises of the book *Zero-Shot Learning, Derived and Replicated*. Write what is missing at each
`# YOUR CODE HERE` in place of the line that raises, and run the cell below it: it prints your value beside
the expected one, and raises if they differ. Leave the name of this file and the cells of checks as they are.
Before you hand it in: restart the kernel and run all cells.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make and grade the assignments.")
    parser.add_argument("command", choices=["make", "grade"])
    parser.add_argument("parts", nargs="*", help="names of parts; without any: all")
    parser.add_argument("--nbgrader", type=Path, default=Path(".venv/nbgrader"), help="its environment")
    parser.add_argument("--force", action="store_true", help="grade again what was graded")
    arguments = parser.parse_args()
    if not (arguments.nbgrader / "bin" / "nbgrader").exists():
        sys.exit(f"{arguments.nbgrader}/bin/nbgrader: not found; run `make assignment`, which installs it")
    parts = chosen(arguments.parts)
    write_kernel(arguments.nbgrader)
    if arguments.command == "make":
        make(parts, arguments.nbgrader)
    else:
        grade(parts, arguments.nbgrader, force=arguments.force)
    return 0


def chosen(names: list[str]) -> list[Part]:
    """The numbered parts of those names, or all."""
    parts = {part.name: part for part in numbered_parts(Path("_toc.yml"))}
    if unknown := sorted(set(names) - set(parts)):
        sys.exit(f"found no part {', '.join(unknown)}; expected some of {', '.join(parts)}")
    return [parts[name] for name in names or parts]


def exercises_in(part: Part) -> list[tuple[str, list[Exercise]]]:
    """Title and exercises of each chapter of the part."""
    found = []
    for name in part.chapters:
        notebook = jupytext.read(f"{name}.py", fmt="py:percent")
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        found.append((title, exercises_of(notebook, f"{name}.py")))
    return found


# --- nbgrader's source notebook -----------------------------------------------------------------------


def source_notebook(part: Part) -> Any:
    """The part's exercises with their solutions, as nbgrader wants them marked."""
    cells = [note("head", HEAD.format(caption=part.caption))]
    for number, (title, exercises) in enumerate(exercises_in(part), start=1):
        cells.append(note(f"chapter-{number}", f"## {title}"))
        for exercise in exercises:
            cells += [
                note(f"{exercise.label}-text", exercise.statement),
                code(exercise.label, exercise.code, solution=True, locked=False),
                code(f"{exercise.label}-check", exercise.check, grade=True, points=POINTS),
            ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def note(name: str, text: str) -> Any:
    return new_markdown_cell(text, id=name, metadata={"nbgrader": marks(name)})


def code(name: str, text: str, **changes: Any) -> Any:
    return new_code_cell(text, id=name, metadata={"nbgrader": marks(name, **changes)})


def marks(name: str, **changes: Any) -> dict[str, Any]:
    """nbgrader's metadata of a cell that is only read, with changes."""
    fixed = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False, "task": False}
    return fixed | {"locked": True} | changes


# --- nbgrader -----------------------------------------------------------------------------------------


def write_kernel(environment: Path) -> None:
    """Let the kernel of nbgrader's environment be this Python, which has the book's library."""
    folder = environment / "share" / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(kernel, indent=1) + "\n", encoding="utf-8")


def call(environment: Path, *arguments: str) -> None:
    """Run nbgrader in the course's folder; exit 1 with what it said if it fails."""
    there = environment.absolute()
    path = os.pathsep.join([str(there / "bin"), os.environ.get("PATH", "")])  # it calls its own alembic
    done = subprocess.run(
        [str(there / "bin" / "nbgrader"), *arguments],
        cwd=COURSE,
        env={**os.environ, "PATH": path, "JUPYTER_PATH": str(there / "share" / "jupyter")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nnbgrader {' '.join(arguments)}: ended with {done.returncode}; expected 0")


def make(parts: list[Part], environment: Path) -> None:
    """Write the source of each part, and have nbgrader make its release."""
    COURSE.mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(root=str(COURSE.absolute()))
    (COURSE / "nbgrader_config.py").write_text(config, encoding="utf-8")
    for part in parts:
        source = COURSE / "source" / part.name / f"{part.name}.ipynb"
        source.parent.mkdir(parents=True, exist_ok=True)
        notebook = source_notebook(part)
        nbformat.write(notebook, source)
        call(environment, "generate_assignment", part.name, "--create", "--force")
        points = sum(cell.metadata["nbgrader"].get("points", 0) for cell in notebook.cells)
        print(f"{COURSE}/release/{part.name}/{part.name}.ipynb, points: {points}", flush=True)
    print(f"Hand these out. Put what comes back into {COURSE}/submitted/STUDENT/PART/PART.ipynb,")
    print("then run: make grade")


def grade(parts: list[Part], environment: Path, *, force: bool) -> None:
    """Grade the submissions of each part that has some, and print the scores."""
    names = [part.name for part in parts]
    handed_in = [name for name in names if any(COURSE.glob(f"submitted/*/{name}/{name}.ipynb"))]
    if not handed_in:
        sys.exit(f"{COURSE}/submitted: found no submission; expected STUDENT/PART/PART.ipynb below it")
    for name in handed_in:
        call(environment, "autograde", name, *["--force"] * force)
    call(environment, "export", "--to", "grades.csv")
    with (COURSE / "grades.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            student, name = row["student_id"], row["assignment"]
            if name in handed_in and (COURSE / "submitted" / student / name).is_dir():
                print(f"{name}: {student} {row['score']} of {row['max_score']}")
    print(f"All grades: {COURSE}/grades.csv")


if __name__ == "__main__":
    sys.exit(main())
