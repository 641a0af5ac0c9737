"""The site as the checks see it: the entries of _toc.yml, and each page read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag


@dataclass(frozen=True)
class Entry:
    """A page of the table of contents: its name without suffix, and whether its part has chapter numbers."""

    name: str
    numbered: bool

    @property
    def notebook(self) -> bool:
        return self.name.startswith("notebooks/")


def entries(toc: Any, numbered: bool = False) -> Iterator[Entry]:
    """Every `root:` and `file:` of the table of contents, in order."""
    if isinstance(toc, dict):
        numbered = bool(toc.get("numbered", numbered))
        for key, value in toc.items():
            if key in ("root", "file"):
                yield Entry(value, numbered)
            else:
                yield from entries(value, numbered)
    elif isinstance(toc, list):
        for item in toc:
            yield from entries(item, numbered)


class Page:
    """An HTML file of the site. `article` is what the author wrote, without the theme around it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")

    def problem(self, found: str, expected: str) -> str:
        return f"{self.path}: found {found}; expected {expected}"

    @cached_property
    def article(self) -> Tag:
        return self.soup.select_one("article") or Tag(name="article")

    @cached_property
    def ids(self) -> set[str]:
        """What a fragment of a link can name."""
        anchors = {str(tag["name"]) for tag in self.soup.select("a[name]")}
        return anchors | {str(tag["id"]) for tag in self.soup.select("[id]")}


class Site:
    """The built pages under `root`, and the entries of the table of contents that they come from."""

    def __init__(self, root: Path, toc: Path) -> None:
        self.root = root
        self.entries = list(entries(yaml.safe_load(toc.read_text(encoding="utf-8"))))
        files = sorted(path for path in root.rglob("*.html") if "_static" not in path.parts)
        self.pages = {path.relative_to(root).with_suffix("").as_posix(): Page(path) for path in files}

    def chapters(self) -> Iterator[tuple[Entry, Page]]:
        """The entries that have a page."""
        for entry in self.entries:
            if entry.name in self.pages:
                yield entry, self.pages[entry.name]

    def missing(self) -> list[str]:
        index = self.root / "index.html"
        problems = [] if index.exists() else [f"{index}: not found; expected the site's first page"]
        for entry in self.entries:
            if entry.name not in self.pages:
                path = self.root / f"{entry.name}.html"
                problems.append(f"{path}: not found; expected the page of {entry.name!r} in _toc.yml")
        return problems
