"""Run a page elsewhere: links to Colab and Binder, and the notebooks that Colab opens.

All of it needs the repository's address, `repository: url` in _config.yml; without one there is none of it.
A notebook for Colab has a first cell (`launch_cell.py`) that fetches the book and what Colab lacks. They are
part of the built site, `launch/`, which the workflow pages.yml puts on the branch gh-pages: Colab opens
notebooks from a branch. Binder opens the committed notebooks in the environment of environment.yml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

HERE = Path(__file__).parent
GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
PUBLISHED = "gh-pages"  # the branch with the built site
BEFORE = """\
This notebook is a copy for Colab of [a page of the book]({page}). The next cell fetches the book and the
packages that are missing here. Every package that is there keeps its version, torch among them."""


@dataclass(frozen=True)
class Address:
    """A repository on GitHub, and the branch with the book's sources."""

    owner: str
    name: str
    branch: str

    @property
    def url(self) -> str:
        return f"https://github.com/{self.owner}/{self.name}"

    def colab(self, notebook: str) -> str:
        place = f"{self.owner}/{self.name}/blob/{PUBLISHED}/launch/{notebook}"
        return f"https://colab.research.google.com/github/{place}"

    def binder(self, notebook: str) -> str:
        place = f"{self.owner}/{self.name}/{self.branch}?urlpath=lab/tree/notebooks/{notebook}"
        return f"https://mybinder.org/v2/gh/{place}"


def address(config: dict[str, Any]) -> Address | None:
    """The repository that _config.yml names; None if it names none."""
    repository = config.get("repository") or {}
    url = repository.get("url") or ""
    if not url:
        return None
    found = GITHUB.fullmatch(url)
    if found is None:
        sys.exit(
            f"_config.yml: repository: found url {url!r}; expected https://github.com/OWNER/NAME, or none"
        )
    return Address(found[1], found[2], repository.get("branch") or "main")


def needs() -> list[str]:
    """What the library and the notebooks need, from pyproject.toml."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project.get("optional-dependencies", {}).get("notebooks", ())]


def buttons(at: Address | None, notebook: str) -> list[str]:
    """MyST for the box *Run this page*: two links, or none."""
    if at is None:
        return []
    links = (f"[Open in Colab]({at.colab(notebook)})", f"[Open on Binder]({at.binder(notebook)})")
    return [" · ".join(links) + ", where it runs on a machine of theirs. On your own:", ""]


def copy_for_colab(pair: Path, at: Address, target: Path) -> None:
    """A committed notebook without its outputs, after a cell that makes it run on Colab."""
    notebook = nbformat.read(pair, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    page = f"{at.url}/blob/{at.branch}/notebooks/{pair.name}"
    call = f"prepare({at.url!r}, {at.branch!r}, {needs()!r})"
    code = (HERE / "launch_cell.py").read_text(encoding="utf-8") + "\n\n" + call
    notebook.cells[:0] = [
        nbformat.v4.new_markdown_cell(BEFORE.format(page=page), id="launch-text"),
        nbformat.v4.new_code_cell(code, id="launch-cell"),
    ]
    notebook.metadata.pop("jupytext", None)
    nbformat.validate(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
