"""The coding exercises of the chapters: one source for the pages' stubs, the tests and the assignments.

A coding exercise is an `{exercise-start}` box, and in its solution a code cell tagged `exercise`, with what
is to be written between the markers, and a code cell tagged `check` that raises if that is wrong. The two
cells import all that they need, so that they run without the rest of the chapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import yaml

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # nbgrader's own markers
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # and what it puts in their place
BOX = re.compile(r"```\{exercise-start\}\n:label: (\S+)\n```\n(.*?)\n```\{exercise-end\}\n```", re.DOTALL)
EDGE = re.compile(r"^```\{solution-(start|end)\} ?(\S*)$", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One coding exercise. statement: MyST; code: with the solution and its markers."""

    label: str
    statement: str
    code: str
    check: str

    @property
    def stub(self) -> str:
        return stub(self.code)


@dataclass(frozen=True)
class Part:
    """A numbered part of `_toc.yml`. chapters: files below the root, without a suffix."""

    caption: str
    chapters: tuple[str, ...]

    @property
    def name(self) -> str:
        """The caption as the name of a folder."""
        return "-".join(re.findall(r"[a-z0-9]+", self.caption.lower()))


def stub(code: str) -> str:
    """The code as a student gets it, a stub in place of each solution; ValueError if there is none."""
    lines: list[str] = []
    inside = found = False
    for line in code.splitlines():
        bare = line.strip()
        if bare in (BEGIN, END) and inside != (bare == END):
            raise ValueError(f"found {bare!r} out of turn; expected {BEGIN!r} and {END!r} in turns")
        if bare == BEGIN:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text for text in STUB]
            inside = found = True
        elif bare == END:
            inside = False
        elif not inside:
            lines.append(line)
    if inside or not found:
        missing = END if inside else BEGIN
        raise ValueError(f"found no {missing!r}; expected a solution between {BEGIN!r} and {END!r}")
    return "\n".join(lines)


def exercises_of(notebook: Any, where: object) -> list[Exercise]:
    """The coding exercises of a notebook, in order; ValueError names what is out of place."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    statements = dict(BOX.findall(text))
    found: list[Exercise] = []
    label, cells = "", list(notebook.cells)
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            for edge, name in EDGE.findall(cell.source):
                label = name if edge == "start" else ""
        tags = cell.metadata.get("tags", ())
        above = cells[number - 1].metadata.get("tags", ()) if number else ()
        if "check" in tags and "exercise" not in above:
            raise ValueError(
                f"{where}: found a cell tagged `check`; expected one tagged `exercise` right above"
            )
        if "exercise" not in tags:
            continue
        if label not in statements:
            raise ValueError(
                f"{where}: found a cell tagged `exercise` in the solution {label or 'of nothing'!r};"
                " expected it in the solution of an {exercise-start} box with that label"
            )
        after = cells[number + 1] if number + 1 < len(cells) else None
        if after is None or "check" not in after.metadata.get("tags", ()):
            raise ValueError(
                f"{where}: {label}: found no cell tagged `check` below; expected one right below"
            )
        try:
            stub(cell.source)
        except ValueError as error:
            raise ValueError(f"{where}: {label}: {error}") from error
        found.append(Exercise(label, statements[label].strip(), cell.source, after.source))
    return found


def with_stubs(notebook: Any, where: object) -> None:
    """Put stub and check of each coding exercise at the end of its box, in place."""
    for exercise in exercises_of(notebook, where):
        start = f"```{{exercise-start}}\n:label: {exercise.label}\n```\n"
        for cell in notebook.cells:
            if start in cell.source:
                head, rest = cell.source.split(start)
                body, tail = rest.split("\n```{exercise-end}", 1)
                cell.source = f"{head}{start}{body}\n\n{shown(exercise)}\n```{{exercise-end}}{tail}"


def shown(exercise: Exercise) -> str:
    """The code that readers start from, in MyST."""
    return "\n".join(
        [
            "Write what is missing, then run the check:",
            "```python",
            exercise.stub,
            "```",
            ":::{dropdown} Check",
            "```python",
            exercise.check,
            "```",
            ":::",
        ]
    )


def read(source: Path) -> list[Exercise]:
    """The coding exercises of a chapter's source."""
    return exercises_of(jupytext.read(source, fmt="py:percent"), source)


def numbered_parts(toc: Path) -> list[Part]:
    """The parts whose chapters have numbers, and so exercises."""
    parts = yaml.safe_load(toc.read_text(encoding="utf-8")).get("parts", ())
    return [
        Part(part["caption"], tuple(chapter["file"] for chapter in part["chapters"]))
        for part in parts
        if part.get("numbered")
    ]
