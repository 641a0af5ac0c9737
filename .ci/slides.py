"""The notebooks' pages as slides, `_build/html/slides`: `python .ci/slides.py`, after `make book`.

    python .ci/slides.py [--browser auto|required|none] [--site _build/html]

A deck has the built page's own words, equations and outputs, so nothing is rendered a second time. A
section is a column. Of a long paragraph the slide has the first sentence; the key T shows the whole beside
it. Outputs, and what is said about them, come one click after the code. How much goes on a slide is decided
where it is drawn, by `slides/slides.js`. reveal.js is the copy inside the package sphinx-revealjs.

Each page's box *Run this page*, and the page for teachers, get a link. Then a browser, where there is one,
steps through every slide: math, pictures, console, other hosts, what leaves the slide; and axe-core reads
them all. Exits 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import copy
import html
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import urldefrag

import yaml
from bs4 import Tag
from bs4.element import NavigableString
from site_checks.browser import Seen, launched, why_not
from site_checks.content import title
from site_checks.drawn import axe_problems, look
from site_checks.pages import Page, Site

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

HERE = Path(__file__).parent / "slides"
SIZE = {"width": 1280, "height": 720}  # of a slide and of the window that checks it
LEFT_OUT = "a.headerlink, details.sd-dropdown, .toctree-wrapper"
CODE_SHOWN = 14  # lines; longer code opens with a click
WHOLE = 240  # characters of a paragraph that is not shortened
LEAD = 70  # characters that a shortened one has at least
ABBREVIATION = re.compile(r"(?:\b(?:Eqs?|Figs?|Secs?|Tabs?|No|vs|al|cf|e\.g|i\.e|Dr|St)|\b[A-Z])\.$")
SENTENCE_END = re.compile(r"[.?!][\"”)]*(?=\s+\S)")
LINK = re.compile(r'<span class="slides">.*?</span>', re.DOTALL)
READY_MS = 120_000
ALL_SHOWN = """.reveal .slides section { display: block !important; visibility: visible !important;
  opacity: 1 !important; position: static !important; transform: none !important; }"""
UNHIDE = """() => {
  Reveal.configure({ fragments: false });
  for (const slide of document.querySelectorAll(".reveal .slides section")) {
    slide.hidden = false;
    slide.removeAttribute("aria-hidden");
  }
}"""


def reveal() -> Path:
    """The folder of reveal.js."""
    return Path(str(files("sphinx_revealjs"))) / "_static" / "revealjs"


def is_math(tag: Tag | None) -> bool:
    return tag is not None and tag.name == "div" and "math" in tag.get("class", [])


def first_sentence(paragraph: Tag) -> Tag | None:
    """A long paragraph up to the end of its first sentence past LEAD characters; None if it stays whole.

    A sentence ends in the paragraph's own text only: neither in math nor in a link.
    """
    if len(paragraph.get_text()) <= WHOLE:
        return None
    length = 0
    for place, child in enumerate(paragraph.contents):
        text = child.get_text()
        if type(child) is NavigableString:
            for end in SENTENCE_END.finditer(text):
                if length + end.end() >= LEAD and not ABBREVIATION.search(text[: end.end()]):
                    return up_to(paragraph, place, text[: end.end()])
        length += len(text)
    return None


def up_to(paragraph: Tag, place: int, text: str) -> Tag:
    """A copy of the paragraph's children before `place`, and then `text`."""
    short = copy.copy(paragraph)
    for child in list(short.contents)[place:]:
        child.extract()
    short.append(text)
    return short


def block(content: str, kind: str, whole: str = "") -> str:
    """What a slide cannot divide. `whole` is the text that it stands for."""
    aside = f'<aside class="whole">{whole}</aside>' if whole else ""
    return f'<div class="block {kind}">{content}{aside}</div>'


def code(cell: Tag) -> str:
    """A cell's code, behind a click if it is long or draws; none where the page hides it too."""
    source = cell.select_one(".cell_input pre")
    if source is None or "tag_hide-input" in cell.get("class", []):
        return ""
    for comment in source.find_all(class_="c1", string="# NBVAL_CHECK_OUTPUT"):
        if isinstance(comment.next_sibling, NavigableString):
            comment.next_sibling.replace_with(comment.next_sibling.lstrip("\n"))
        comment.extract()
    lines = source.get_text().strip().count("\n") + 1
    shown = f'<div class="highlight">{source}</div>'
    if lines <= CODE_SHOWN and not cell.select_one(".cell_output img"):
        return shown
    return f"<details><summary>Code, {lines} line{'s' * (lines > 1)}</summary>{shown}</details>"


def cell_blocks(cell: Tag) -> Iterator[str]:
    if source := code(cell):
        yield block(source, "code")
    for output in cell.select(".cell_output > *"):
        yield block(str(output), "output")


def blocks(parent: Tag, whole: bool = False) -> Iterator[str]:
    """The pieces of a section in its order, with its subsections'; `whole` leaves paragraphs as they are."""
    children = parent.find_all(True, recursive=False)
    for child, following in zip(children, [*children[1:], None], strict=True):
        kinds = child.get("class", [])
        if child.name == "section":
            yield from blocks(child, whole)
        elif child.name == "h3":
            yield block(str(child), "heading")
        elif "cell" in kinds:
            yield from cell_blocks(child)
        elif "solution" in kinds or "exercise" in kinds:
            yield from exercise_blocks(child)
        elif child.name == "p":
            yield paragraph_block(child, following, whole)
        elif child.name not in ("h1", "h2"):
            yield block(str(child), "boxed" if "admonition" in kinds else "text")


def paragraph_block(paragraph: Tag, following: Tag | None, whole: bool) -> str:
    """A paragraph, short where it can be, and kept with the equation, list or cell that it leads to."""
    finishes = is_math(following) or (following is not None and following.name in ("ul", "ol"))
    leads = finishes or (following is not None and "cell" in following.get("class", []))
    short = None if finishes or whole else first_sentence(paragraph)
    kind = "text lead" if leads else "text"
    return block(str(short), kind, str(paragraph)) if short else block(str(paragraph), kind)


def exercise_blocks(box: Tag) -> Iterator[str]:
    """An exercise or a solution begins a slide of its own, headed by its name."""
    name = box.select_one(".admonition-title")
    yield block(f"<h3>{' '.join(name.get_text().split()) if name else ''}</h3>", "heading")
    for part in box.find_all("section", recursive=False) or [box]:
        yield from blocks(part, whole=True)


def prepared(page: Page, name: str) -> Tag:
    """A copy of the page's article, with links that lead from the folder of slides to the pages."""
    article = copy.copy(page.article)
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for tag in article.select("[href], [src]"):
        key = "href" if tag.has_attr("href") else "src"
        path, fragment = urldefrag(str(tag[key]))
        if ":" not in path:
            path = normpath(f"../notebooks/{path}") if path else f"../{name}.html"
            tag[key] = f"{path}#{fragment}" if fragment else path
        if tag.name == "a":
            tag["target"] = "_blank"
    for tag in article.select("[id]"):
        if not tag.find_parent(class_="cell_output"):  # whose scripts look for their own
            del tag["id"]
    return article


def column(heading: Tag, content: Iterator[str], level: str = "h2") -> str:
    """A section of the page: the browser makes slides of its blocks."""
    name = f"<{level}>{''.join(map(str, heading.contents))}</{level}>"
    return f'<section class="column">{name}\n' + "\n".join(content) + "\n</section>"


def columns(article: Tag) -> Iterator[str]:
    top = article.find("section") or article
    heading = top.find("h1")
    if heading is None:
        raise ValueError("found no h1; expected the page's title")
    opening = copy.copy(top)
    for section in opening.find_all("section", recursive=False):
        section.decompose()
    yield column(heading, blocks(opening), "h1")
    for section in top.find_all("section", recursive=False):
        heading = section.find("h2")
        yield column(heading, blocks(section, whole=title(heading) == "Summary"))


def deck(page: Page, name: str, book: str) -> str:
    """The slides of a page as one HTML file."""
    heading = page.article.find("h1")
    words = html.escape(title(heading) if heading else name)
    body = "\n".join(columns(prepared(page, name)))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{words}: slides</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="../_static/pygments.css">
<link rel="stylesheet" href="slides.css">
<script>window.MathJax = {{options: {{processHtmlClass: "math", enableMenu: false}}}}</script>
<script defer src="../_static/mathjax/tex-chtml.js"></script>
<script defer src="reveal/reveal.js"></script>
<script defer src="slides.js"></script>
</head><body><div class="reveal"><div class="slides">
{body}
</div></div>
<footer class="keys">{html.escape(book)} · <a href="../{name}.html">page</a> · <kbd>T</kbd> text, <kbd>F</kbd>
full screen, <kbd>Esc</kbd> overview</footer>
</body></html>
"""


def contents(decks: dict[str, str]) -> str:
    rows = "".join(f'<li><a href="{file}">{html.escape(name)}</a></li>' for file, name in decks.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Slides</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="slides.css">
</head><body class="contents"><h1>Slides</h1>
<p>The notebooks of <a href="../index.html">the book</a> to show in a class. Right and left go from section to
section, down and up within one, the space bar to what is next. An output comes one step after its code.</p>
<ul>{rows}</ul></body></html>
"""


def link(path: Path, target: str, words: str) -> None:
    """Fill the place that a page keeps for its link to slides."""
    text = path.read_text(encoding="utf-8")
    path.write_text(
        LINK.sub(f'<span class="slides"><a href="../slides/{target}">{words}</a></span>', text), "utf-8"
    )


def write(site: Site, book: str) -> list[Path]:
    """All decks with what they load, and the links to them; the decks' files."""
    folder = site.root / "slides"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "reveal").mkdir(parents=True)
    for name in ("reveal.js", "reveal.css"):
        shutil.copy2(reveal() / "dist" / name, folder / "reveal" / name)
    shutil.copy2(reveal() / "LICENSE", folder / "reveal" / "LICENSE")
    for name in ("slides.js", "slides.css"):
        shutil.copy2(HERE / name, folder / name)
    decks = {}
    for entry, page in site.chapters():
        if not entry.notebook:
            continue
        file = f"{entry.name.removeprefix('notebooks/')}.html"
        (folder / file).write_text(deck(page, entry.name, book), encoding="utf-8")
        heading = page.article.find("h1")
        decks[file] = title(heading) if heading else entry.name
        link(page.path, file, "slides of this page")
    (folder / "index.html").write_text(contents(decks), encoding="utf-8")
    if "book/teaching" in site.pages:
        link(site.pages["book/teaching"].path, "index.html", "The slides of this build")
    return [folder / file for file in decks]


def step_problems(tab: Tab) -> list[str]:
    """Every slide of the open deck, as it is drawn with all that comes by clicks."""
    problems = tab.evaluate((HERE / "probe.js").read_text(encoding="utf-8"))
    return [f"slide {found['slide']}: {found['what']}" for found in problems]


def read_problems(tab: Tab) -> list[str]:
    """What axe-core finds in the open deck, all slides shown at once: it reads only what is drawn."""
    tab.add_style_tag(content=ALL_SHOWN)
    tab.evaluate(UNHIDE)
    return axe_problems(tab)


def browser_problems(decks: list[Path], shots: Path) -> list[str]:
    """What a browser stumbles over; the first slide of each deck goes to `shots`."""
    shots.mkdir(parents=True, exist_ok=True)
    problems = []
    with launched() as browser:
        tab, seen = browser.new_page(viewport=SIZE), Seen()
        seen.watch(tab)
        for path in decks:
            here = look(tab, seen, path.resolve().as_uri())
            tab.wait_for_function("window.slidesReady !== undefined", timeout=READY_MS)
            tab.screenshot(path=shots / f"{path.stem}.png")
            here += step_problems(tab) + read_problems(tab) + seen.take()
            problems += [f"{path}: {problem}" for problem in here]
    return problems


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The notebooks' pages as slides.")
    parser.add_argument("--browser", choices=("auto", "required", "none"), default="auto")
    parser.add_argument("--site", type=Path, default=Path("_build/html"), help="the folder of the built site")
    return parser.parse_args()


def main() -> int:
    given = options()
    site = Site(given.site, Path("_toc.yml"))
    problems = site.missing()
    config = yaml.safe_load(Path("_config.yml").read_text(encoding="utf-8"))
    decks = [] if problems else write(site, config["title"])
    reason = "--browser none" if given.browser == "none" else why_not()
    if decks and reason is None:
        problems += browser_problems(decks, site.root.parent / "screenshots" / "slides")
    elif reason and given.browser == "required":
        problems.append(f"browser: {reason}")
    elif reason:
        print(f"browser: slides not checked ({reason})")
    for problem in problems:
        print(problem, file=sys.stderr)
    first = site.root / "slides" / "index.html"
    print(f"The slides are ready: {first}, {len(decks)} decks, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
