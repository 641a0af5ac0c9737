"""Check the built site: a page for every entry of _toc.yml, and outputs on every notebook page.

    python .ci/check_site.py

Run from the root of the repository after `make book`. Prints every problem; exits 1 if there is one.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SITE = Path("_build/html")
OUTPUT = re.compile(r'class="[^"]*\bcell_output\b')
LOADS = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']((?:https?:)?//[^"']+)""")
HARMLESS = re.compile(r"""<link\b[^>]*\brel=["'](?:canonical|license|author)["']""")


def entries(toc: Any) -> Iterator[str]:
    """Every `root:` and `file:` of the table of contents, in order."""
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from entries(value)
    elif isinstance(toc, list):
        for item in toc:
            yield from entries(item)


def page_problems(entry: str) -> list[str]:
    page = SITE / f"{entry}.html"
    if not page.exists():
        return [f"{page}: not found; expected the page of {entry!r} in _toc.yml"]
    text = page.read_text(encoding="utf-8")
    problems = []
    if entry.startswith("notebooks/") and not OUTPUT.search(text):
        problems.append(f"{page}: found no cell output; expected an executed notebook's results")
    for match in LOADS.finditer(text):
        if not HARMLESS.match(match.group(0)):
            problems.append(f"{page}: loads {match.group(1)}; expected nothing from another host")
    return problems


def main() -> int:
    index = SITE / "index.html"
    problems = [] if index.exists() else [f"{index}: not found; expected the site's first page"]
    pages = list(entries(yaml.safe_load(Path("_toc.yml").read_text(encoding="utf-8"))))
    for entry in pages:
        problems += page_problems(entry)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"site: {len(pages)} pages checked, {len(problems)} problems", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
