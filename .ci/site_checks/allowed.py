"""Defects of the theme and of libraries that the browser checks let pass, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """`what` is an axe rule or the beginning of a console message; `where` a CSS selector, for axe only."""

    what: str
    where: str
    reason: str


AXE = (
    Allowed("aria-allowed-role", ".citation[role=doc-biblioentry]", "docutils marks works in this way"),
    Allowed("aria-deprecated-role", ".citation[role=doc-biblioentry]", "docutils marks works in this way"),
    Allowed(
        "aria-required-children", ".citation-list[role=list]", "docutils puts works, no list items, in it"
    ),
    Allowed("empty-table-header", ".cell_output th", "pandas leaves the cells above the names of rows empty"),
    Allowed("empty-table-header", ".block.output th", "the same on slides"),
    Allowed("region", ".sidebar-primary-item", "the theme puts the book's title outside its navigation"),
)

CONSOLE: tuple[Allowed, ...] = ()
