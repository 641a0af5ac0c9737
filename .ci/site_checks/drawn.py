"""The pages as a browser draws them.

Each is opened from disk, light in a wide window and dark in a narrow one; some over http too. Looked at: what
the console and the network say, overflow, math, pictures, axe-core (contrast and more), search, load time.
"""

from __future__ import annotations

import csv
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from site_checks.allowed import AXE
from site_checks.browser import Seen, launched, served
from site_checks.content import headings, title
from site_checks.links import weight
from site_checks.pages import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

WIDTHS = (390, 1280, 2560)
HEIGHT = 900
VIEWS = (("light", 1280), ("dark", 390))  # colour scheme, and the width at which a page is opened
KEY_PAGES = ("book/notation", "notebooks/05_alternating_backprop", "notebooks/90_results")  # and the first
# Math, fonts, and the script that draws the icons, which on a busy machine comes after all else.
SETTLED = """async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  const until = performance.now() + 5000;
  while (document.querySelector("i[class*='fa-']") && performance.now() < until)
    await new Promise((done) => setTimeout(done, 50));
}"""
SEARCH_MS = 15_000  # how long a search may take
RESIZED_MS = 400  # the theme looks again at what scrolls 300 ms after the window changed
AXE_OPTIONS = {"resultTypes": ["violations"], "preload": False}
MATCHES = "([target, selector]) => document.querySelector(target)?.matches(selector) ?? false"
LOADED_MS = "Math.round(performance.getEntriesByType('navigation')[0].loadEventEnd)"
FETCHED = """performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)"""
HERE = Path(__file__).parent
Rows = dict[str, dict[str, Any]]
Finding = tuple[Path, str, str]  # the page's file, what is wrong, and in which view of it


def key_pages(site: Site) -> list[str]:
    names = [entry.name for entry, _ in site.chapters()]
    return [name for name in names if name == names[0] or name in KEY_PAGES]


def probe_problems(tab: Tab, theme: str) -> list[str]:
    """What `probe.js` finds on the page at its present size."""
    found = tab.evaluate((HERE / "probe.js").read_text(encoding="utf-8"))
    problems = []
    if found["excess"] > 0:
        problems.append(f"found {found['excess']} px beyond the window; expected no sideways scrolling")
    for kind, expected in (
        ("wide", "wide pieces to scroll by themselves"),
        ("raw", "rendered math"),
        ("unset", "rendered math"),
        ("errors", "math without an error"),
        ("pictures", "a picture that can be drawn"),
        ("icons", "a drawn icon"),
    ):
        problems += [f"found {item}; expected {expected}" for item in found[kind]]
    if found["theme"] not in (theme, None):
        problems.append(f"found the theme {found['theme']}; expected {theme}")
    return problems


def passes(tab: Tab, rule: str, target: str) -> bool:
    entries = [entry for entry in AXE if entry.what == rule]
    return any(tab.evaluate(MATCHES, [target, entry.where]) for entry in entries)


def axe_problems(tab: Tab) -> list[str]:
    """The violations that axe-core finds and `allowed.AXE` does not name, one line a rule."""
    from axe_playwright_python.base import AXE_SCRIPT

    tab.evaluate((HERE / "prune.js").read_text(encoding="utf-8"))
    tab.evaluate(AXE_SCRIPT)
    problems = []
    for violation in tab.evaluate("options => axe.run(document, options)", AXE_OPTIONS)["violations"]:
        rule, nodes = violation["id"], violation["nodes"]
        nodes = [node for node in nodes if not passes(tab, rule, node["target"][0])]
        if nodes:
            reason = (nodes[0]["any"] or nodes[0]["all"] or nodes[0]["none"])[0]["message"]
            where = f"{len(nodes)} × {rule}, first at {nodes[0]['target'][0]}"
            problems.append(f"axe: found {where} ({reason}); expected none")
    return problems


def shoot(tab: Tab, folder: Path, name: str, theme: str, width: int) -> None:
    path = folder / f"{name.replace('/', '_')}-{theme}-{width}.png"
    tab.screenshot(path=path, full_page=True)


def look(tab: Tab, seen: Seen, address: str) -> list[str]:
    """Open a page, let it settle, and return what went wrong on the way."""
    seen.take()
    tab.goto(address, wait_until="load")
    tab.evaluate(SETTLED)
    return seen.take()


def view(site: Site, shots: Path, theme: str, width: int) -> tuple[list[Finding], Rows]:
    """Every page from disk in one colour scheme, at each width; a browser of its own."""
    findings: list[Finding] = []
    rows: Rows = {}
    keys = key_pages(site)
    with launched() as browser:
        context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
        tab, seen = context.new_page(), Seen()
        seen.watch(tab)
        for entry, page in site.chapters():
            opened = look(tab, seen, page.path.resolve().as_uri())
            rows[entry.name] = {f"disk_{theme}_ms": tab.evaluate(LOADED_MS)}
            for size in (*(w for w in WIDTHS if w != width), width):
                tab.set_viewport_size({"width": size, "height": HEIGHT})
                here = probe_problems(tab, theme)
                findings += [(page.path, problem, f"{theme} at {size} px") for problem in here]
            tab.wait_for_timeout(RESIZED_MS)
            if entry.name in keys:
                shoot(tab, shots, entry.name, theme, width)
            here = opened + axe_problems(tab) + seen.take()
            findings += [(page.path, problem, theme) for problem in here]
    return findings, rows


def known_word(site: Site) -> tuple[str, str]:
    """The longest word of a page's title, and that page: what a search must find."""
    chapters = list(site.chapters())
    entry, page = next(((e, p) for e, p in chapters if e.notebook), chapters[0])
    return max(re.findall(r"[a-z]+", title(headings(page)[0]).lower()), key=len), entry.name


def search_problems(tab: Tab, seen: Seen, address: str, site: Site) -> list[Finding]:
    from playwright.sync_api import TimeoutError as NotInTime

    word, name = known_word(site)
    problems = look(tab, seen, f"{address}/search.html?q={quote(word)}")
    try:
        tab.wait_for_selector(f"#search-results a[href*='{name}.html']", timeout=SEARCH_MS)
    except NotInTime:
        problems.append(
            f"found nothing for {word!r} in {SEARCH_MS / 1000:g} s; expected {name}.html among the results"
        )
    tab.wait_for_load_state("networkidle")
    scheme = address.partition(":")[0]
    return [(site.root / "search.html", problem, scheme) for problem in problems + seen.take()]


def over_http(site: Site) -> tuple[list[Finding], Rows]:
    """The key pages over http, with no cache, and a search both ways."""
    findings: list[Finding] = []
    rows: Rows = {}
    with launched() as browser, served(site.root) as address:
        for name in key_pages(site):
            context = browser.new_context(viewport={"width": 1280, "height": HEIGHT})
            tab, seen = context.new_page(), Seen()
            seen.watch(tab)
            path = site.pages[name].path
            findings += [(path, problem, "http") for problem in look(tab, seen, f"{address}/{name}.html")]
            rows[name] = {"http_ms": tab.evaluate(LOADED_MS), "http_kB": tab.evaluate(FETCHED) // 1000}
            context.close()
        tab, seen = browser.new_page(), Seen()
        seen.watch(tab)
        for where in (address, site.root.resolve().as_uri()):
            findings += search_problems(tab, seen, where, site)
    return findings, rows


def merged(findings: list[Finding]) -> list[str]:
    """A line for each thing that is wrong on a page, with the views that show it at its end."""
    views: dict[tuple[Path, str], list[str]] = {}
    for path, problem, where in findings:
        views.setdefault((path, problem), []).append(where)
    return [f"{path}: {problem} ({', '.join(where)})" for (path, problem), where in views.items()]


def report(site: Site, parts: list[Rows], path: Path) -> str:
    """Write weight and load time of each page to a table; return the line that sums it up."""
    rows: Rows = {}
    for entry, page in site.chapters():
        rows[entry.name] = {"page": entry.name, "kB": weight(page) // 1000}
        for part in parts:
            rows[entry.name] |= part.get(entry.name, {})
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows.values())
    slowest = max(rows.values(), key=lambda row: row.get("disk_light_ms", 0))
    return (
        f"slowest to load: {slowest['page']}, {slowest.get('disk_light_ms', 0) / 1000:.1f} s; all in {path}"
    )


def drawn_problems(site: Site, shots: Path) -> tuple[list[str], str]:
    """All that is looked at in a browser: the problems, and a line of measurements."""
    shots.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        tasks = [pool.submit(view, site, shots, *each) for each in VIEWS]
        results = [task.result() for task in tasks]
    results.append(over_http(site))  # alone, for its times
    line = report(site, [rows for _, rows in results], site.root.parent / "site.csv")
    return merged([finding for findings, _ in results for finding in findings]), line
