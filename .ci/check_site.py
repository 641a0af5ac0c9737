"""Check the built site: its files, and how a browser draws them where there is one.

    python .ci/check_site.py [--browser auto|required|none] [--site _build/html]

Run from the root of the repository after `make book`. Prints every problem; exits 1 if there is one. Without
Chromium (ZSL_CHROMIUM, else one on PATH) or the packages of the extra `site`, the browser's part is left out
with a notice, unless it is required. Screenshots go to `_build/screenshots`, weights and times to
`_build/site.csv`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from site_checks.browser import why_not
from site_checks.content import content_problems, spelling_problems
from site_checks.drawn import drawn_problems
from site_checks.links import link_problems, load_problems, weight, weight_problems
from site_checks.pages import Site

FILES = (link_problems, load_problems, weight_problems, content_problems, spelling_problems)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check the built site.")
    parser.add_argument("--browser", choices=("auto", "required", "none"), default="auto")
    parser.add_argument("--site", type=Path, default=Path("_build/html"), help="the folder of the built site")
    return parser.parse_args()


def file_problems(site: Site) -> list[str]:
    """What the files alone tell."""
    problems = site.missing() + [problem for check in FILES for problem in check(site)]
    weights = {entry.name: weight(page) / 1e6 for entry, page in site.chapters()}
    heaviest = max(weights, key=weights.__getitem__, default="")
    print(f"site: {len(weights)} pages; the heaviest is {heaviest}, {weights.get(heaviest, 0):.1f} MB")
    return problems


def browser_problems(site: Site, wanted: str) -> list[str]:
    """What a browser tells, or why there is none."""
    reason = "--browser none" if wanted == "none" else why_not()
    if reason is None:
        problems, line = drawn_problems(site, site.root.parent / "screenshots")
        print(f"browser: {line}")
        return problems
    if wanted == "required":
        return [f"browser: {reason}"]
    print(f"browser: not checked ({reason})")
    return []


def main() -> int:
    given = options()
    site = Site(given.site, Path("_toc.yml"))
    problems = file_problems(site)
    if any(site.chapters()):
        problems += browser_problems(site, given.browser)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"site: {len(site.entries)} pages checked, {len(problems)} problems", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
