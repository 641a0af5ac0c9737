"""What a page holds: outputs, alt texts, headings, ids, goals, summary, exercises, its run, spelling."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bs4 import Tag

from site_checks.pages import Entry, Page, Site

EXERCISES = range(3, 7)
STUB = "# YOUR CODE HERE"  # nbgrader's, in place of a solution
FILE_NAME = re.compile(r"[^\s]+\.(?:png|jpe?g|svg|gif|webp)|<Figure size .*>|_images/.*", re.IGNORECASE)
# Ids that sphinx-exercise and sphinx-proof give to every box of theirs.
BOX_IDS = {"exercise-content", "solution-content", "proof-content"}


def headings(page: Page, names: str = "h1 h2 h3 h4 h5 h6") -> list[Tag]:
    return page.article.find_all(names.split())


def title(heading: Tag) -> str:
    """A heading's own words, without its number and its link."""
    parts = [
        text
        for text in heading.find_all(string=True)
        if not text.find_parent(class_=["headerlink", "section-number"])
    ]
    return " ".join("".join(parts).split())


def output_problems(entry: Entry, page: Page) -> list[str]:
    if entry.notebook and not page.article.select_one(".cell_output"):
        return [f"{page.path}: found no cell output; expected an executed notebook's results"]
    return []


def image_problems(entry: Entry, page: Page) -> list[str]:
    """Each image says what is to be seen, and so does each drawing (svg, canvas) that is not decoration."""
    problems = []
    for image in page.article.find_all("img"):
        alt = str(image.get("alt") or "").strip()
        if not alt:
            problems.append(page.problem(f"no alt text on {image.get('src')}", "what is to be seen"))
        elif FILE_NAME.fullmatch(alt):
            problems.append(page.problem(f"the alt text {alt!r}", "what is to be seen, not a file's name"))
    for drawing in page.article.find_all(["svg", "canvas"]):
        named = drawing.get("aria-label") or drawing.get("aria-labelledby") or drawing.find("title")
        if not named and not drawing.find_parent(attrs={"aria-hidden": "true"}) and not hidden(drawing):
            problems.append(page.problem(f"<{drawing.name}> without a name", "an aria-label or a title"))
    return problems


def hidden(tag: Tag) -> bool:
    return tag.get("aria-hidden") == "true" or tag.get("role") == "presentation"


def heading_problems(entry: Entry, page: Page) -> list[str]:
    """One h1, first, and no level left out below it."""
    found = headings(page)
    levels = [int(heading.name[1]) for heading in found]
    if levels.count(1) != 1 or levels[0] != 1:
        order = " ".join(f"h{level}" for level in levels) or "none"
        return [page.problem(f"headings {order}", "one h1, before all others")]
    return [
        page.problem(f"h{below} {title(heading)!r} under an h{above}", f"h{above + 1} or higher")
        for above, below, heading in zip(levels, levels[1:], found[1:], strict=False)
        if below > above + 1
    ]


def id_problems(entry: Entry, page: Page) -> list[str]:
    counts = Counter(str(tag["id"]) for tag in page.article.select("[id]"))
    return [
        page.problem(f"{count} elements with id {name!r}", "one")
        for name, count in counts.items()
        if count > 1 and name not in BOX_IDS
    ]


def goals(page: Page) -> Tag | None:
    """The box of goals, if it stands before the first section."""
    for tag in page.article.select("h2, .admonition"):
        if tag.name == "h2":
            return None
        name = tag.select_one(".admonition-title")
        if name and name.get_text(strip=True) == "Goals":
            return tag
    return None


def frame_problems(entry: Entry, page: Page) -> list[str]:
    """A notebook page begins with its goals and what they need, and ends with a summary."""
    if not entry.notebook:
        return []
    problems = []
    box = goals(page)
    if box is None or not box.find("li"):
        problems.append(page.problem("no list of goals at the top", "a box 'Goals' before the first section"))
    elif not any(p.get_text(strip=True).startswith("You need") for p in box.find_all("p")):
        problems.append(page.problem("goals without prerequisites", "a line 'You need ...' in that box"))
    sections = headings(page, "h2")
    last = title(sections[-1]) if sections else "none"
    if last != "Summary":
        problems.append(page.problem(f"the last section {last!r}", "'Summary'"))
    elif not sections[-1].find_next_sibling(["p", "ul", "ol", "div"]):
        problems.append(page.problem("an empty section 'Summary'", "a paragraph in it"))
    return problems


def exercise_problems(entry: Entry, page: Page) -> list[str]:
    """A numbered chapter has a handful of exercises, each with its solution, and one to write code in."""
    if not (entry.notebook and entry.numbered):
        return []
    boxes = page.article.select(".exercise")
    asked, solved = len(boxes), len(page.article.select(".solution"))
    least, most = EXERCISES[0], EXERCISES[-1]
    problems = []
    if asked not in EXERCISES:
        problems.append(page.problem(f"{asked} exercises", f"{least} to {most} in a numbered chapter"))
    if solved != asked:
        problems.append(page.problem(f"{solved} solutions to {asked} exercises", "one each"))
    if not any(STUB in code.get_text() for box in boxes for code in box.select("pre")):
        problems.append(page.problem(f"no {STUB!r} in an exercise", "the stub of a coding exercise"))
    return problems


def run_problems(entry: Entry, page: Page) -> list[str]:
    """A notebook page says how it is run, and offers both of its files; that they exist is for the links."""
    if not entry.notebook:
        return []
    boxes = (tag.get_text(strip=True) for tag in page.article.select("summary"))
    problems = []
    if not any(re.match(r"Run this page: \d+ s, \d+ MB, ", box) for box in boxes):
        problems.append(page.problem("no box 'Run this page'", "one with seconds, memory and device"))
    hrefs = [str(link["href"]) for link in page.article.select("a[href]")]
    stem = entry.name.removeprefix("notebooks/")
    for name in (f"{stem}.ipynb", f"{stem}.py"):
        if not any(href.endswith(f"/{name}") for href in hrefs):
            problems.append(page.problem(f"no link to {name}", "a download of it"))
    return problems


CHECKS: tuple[Callable[[Entry, Page], list[str]], ...] = (
    output_problems,
    image_problems,
    heading_problems,
    id_problems,
    frame_problems,
    exercise_problems,
    run_problems,
)


def content_problems(site: Site) -> list[str]:
    return [problem for entry, page in site.chapters() for check in CHECKS for problem in check(entry, page)]


def words(page: Page) -> str:
    """The page's text as it is read, without what stands for code."""
    lines = []
    for text in page.article.find_all(string=True):
        if not text.find_parent(["pre", "code", "script", "style"]) and not text.find_parent(class_="math"):
            lines.append(text)
    return "".join(lines)


def spelling_problems(site: Site) -> list[str]:
    """codespell over the text that readers see, outputs and bibliography with it."""
    with tempfile.TemporaryDirectory() as folder:
        for entry, page in site.chapters():
            target = Path(folder) / f"{entry.name}.txt"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(words(page), encoding="utf-8")
        command = [sys.executable, "-m", "codespell_lib", "--toml", "pyproject.toml", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.replace(f"{folder}/", "").splitlines()
    if done.returncode not in (0, 65):
        return [f"codespell: ended with {done.returncode}: {done.stderr.strip()}"]
    found = [re.fullmatch(r"(.+)\.txt:\d+: (.+) ==> (.+)", line) for line in lines]
    return [site.pages[m[1]].problem(f"the word {m[2]!r}", m[3]) for m in found if m]
