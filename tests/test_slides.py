"""Slides: what of a page is on them, and what a browser stumbles over, seen once for each check."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup, Tag
from helpers import ci_script

LONG = "A sentence with Eq. 3 and <span class='math'>\\(x\\)</span> that is long enough to show on a slide."
REST = " What follows is told by the teacher. " + "It goes on and on, as prose in books does. " * 6
MANY = "line\nn = 1" + "\n" * 20 + "n"
CODE = '<div class="highlight"><pre>{}</pre></div>'
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CHAPTER = f"""\
<section id="sums"><h1>1. Sums<a class="headerlink" href="#sums">#</a></h1>
<div class="tip admonition"><p class="admonition-title">Goals</p><ul><li>add</li></ul></div>
<details class="sd-dropdown"><summary>Run this page: 3 s</summary><span class="slides"></span></details>
<div class="cell"><div class="cell_input">{CODE.format("n = 3")}</div></div>
<section id="why"><h2>Why<a class="headerlink" href="#why">#</a></h2>
<p>{LONG}{REST}</p>
<p>See <a href="#sums">above</a>, <a href="../book/intro.html#top">the book</a> and so</p>
<div class="math" id="equation-a"><span class="eqno">(1.1)</span>\\[x = 1\\]</div>
<div class="cell"><div class="cell_input">
{CODE.format('<span class="c1"># NBVAL_CHECK_OUTPUT</span>' + chr(10) + "print(n)")}</div>
<div class="cell_output"><div class="output stream">{CODE.format("3")}</div></div></div>
<p>It is three.</p>
<div class="cell"><div class="cell_input">{CODE.format(MANY)}</div></div>
<div class="cell"><div class="cell_input">{CODE.format("fig = draw()")}</div>
<div class="cell_output"><a href="../_images/a.svg"><img src="../_images/a.svg" alt="dots"></a></div></div>
<div class="cell tag_hide-input"><details><div class="cell_input">{CODE.format("hidden = 1")}</div></details>
<div class="cell_output"><div class="output text_html"><b id="kept">7</b></div></div></div>
</section>
<section id="exercises"><h2>Exercises</h2>
<div class="exercise admonition" id="ex"><p class="admonition-title">Exercise 1.1</p>
<section><p>{LONG}{REST}</p></section></div></section>
<section id="summary"><h2>Summary</h2><p>{LONG}{REST}</p></section></section>"""
# What MathJax does to a page, as far as the slides ask for it.
MATHJAX = """\
for (const math of document.querySelectorAll(".math"))
  math.innerHTML = "<mjx-container><mjx-math>x</mjx-math></mjx-container>";
window.MathJax = {startup: {promise: Promise.resolve()}};
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle r="9"/></svg>'


@pytest.fixture(scope="module")
def slides() -> ModuleType:
    return ci_script("slides")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a built site of two pages."""
    monkeypatch.chdir(tmp_path)
    files = {
        "_toc.yml": "root: book/teaching\nchapters:\n  - file: notebooks/01_sums\n",
        "_config.yml": "title: A & B\n",
        "_build/html/index.html": "",
        "_build/html/book/teaching.html": '<article><h1>Teach</h1><span class="slides"></span></article>',
        "_build/html/notebooks/01_sums.html": f"<article>{CHAPTER}</article>",
        "_build/html/_static/mathjax/tex-chtml.js": MATHJAX,
        "_build/html/_static/pygments.css": "",
        "_build/html/_images/a.svg": SVG,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def run(slides: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["slides.py", *options])
    return slides.main()


def read(site: Path, name: str) -> str:
    return (site / "_build/html" / name).read_text(encoding="utf-8")


@pytest.fixture
def deck(slides: ModuleType, site: Path, monkeypatch: pytest.MonkeyPatch) -> BeautifulSoup:
    assert run(slides, monkeypatch, "--browser", "none") == 0
    return BeautifulSoup(read(site, "slides/01_sums.html"), "html.parser")


def text(tag: Tag | None) -> str:
    assert tag is not None
    return " ".join(tag.get_text().split())


def test_a_column_a_section(deck: BeautifulSoup) -> None:
    columns = deck.select("section.column")
    assert [text(column.find(["h1", "h2"])) for column in columns] == [
        "1. Sums",
        "Why",
        "Exercises",
        "Summary",
    ]
    assert "Goals" in text(columns[0])
    assert "Run this page" not in text(columns[0])
    assert deck.title is not None
    assert deck.title.string == "1. Sums: slides"


def test_a_long_paragraph_is_short_on_the_slide_and_whole_beside_it(deck: BeautifulSoup) -> None:
    paragraph = deck.select("section.column")[1].select_one(".block")
    assert paragraph is not None
    assert text(paragraph.p).endswith("show on a slide.")
    assert text(paragraph.select_one("aside.whole")).endswith("as prose in books does.")


@pytest.mark.parametrize("place", [2, 3])
def test_exercises_and_summary_stay_whole(deck: BeautifulSoup, place: int) -> None:
    column = deck.select("section.column")[place]
    assert not column.select("aside")
    assert "as prose in books does." in text(column)


def test_text_leads_to_its_equation_and_an_output_follows_its_code(deck: BeautifulSoup) -> None:
    kinds = [" ".join(b["class"][1:]) for b in deck.select("section.column")[1].select(".block")]
    assert kinds == [
        *("text", "text lead", "text", "code", "output", "text lead"),
        *("code", "code", "output", "output"),
    ]


def test_code_is_shown_opened_or_left_out(deck: BeautifulSoup) -> None:
    column = deck.select("section.column")[1]
    shown = [text(block) for block in column.select(".block.code")]
    assert shown == ["print(n)", "Code, 22 linesline n = 1 n", "Code, 1 linefig = draw()"]
    assert len(column.select("details")) == 2
    assert "hidden" not in text(column)


def test_links_lead_from_the_slides_to_the_pages(deck: BeautifulSoup) -> None:
    hrefs = [a["href"] for a in deck.select(".slides a")]
    assert hrefs == ["../notebooks/01_sums.html#sums", "../book/intro.html#top", "../_images/a.svg"]
    assert [tag["id"] for tag in deck.select("[id]")] == ["kept"]


def test_pages_get_a_link_once(
    slides: ModuleType, site: Path, monkeypatch: pytest.MonkeyPatch, deck: BeautifulSoup
) -> None:
    expected = '<span class="slides"><a href="../slides/01_sums.html">slides of this page</a></span>'
    assert expected in read(site, "notebooks/01_sums.html")
    before = {name: read(site, name) for name in ("notebooks/01_sums.html", "book/teaching.html")}
    assert 'href="../slides/index.html"' in before["book/teaching.html"]
    assert run(slides, monkeypatch, "--browser", "none") == 0
    assert {name: read(site, name) for name in before} == before


def test_nothing_is_loaded_from_elsewhere(site: Path, deck: BeautifulSoup) -> None:
    for tag in deck.select("script[src], link[href], img[src]"):
        address = str(tag.get("src") or tag.get("href"))
        assert address == "data:," or (site / "_build/html/slides" / address).is_file(), address
    assert (site / "_build/html/slides/reveal/LICENSE").is_file()
    assert "A &amp; B" in read(site, "slides/01_sums.html")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Short. Even two sentences of it.", None),
        ("x" * 80 + ". Then more. " + "y" * 200, "x" * 80 + "."),
        ("Too short. " + "x" * 80 + "? " + "y" * 200, "Too short. " + "x" * 80 + "?"),
        (
            "x" * 70 + " et al. and Fig. 3 by A. Author. " + "y" * 200,
            "x" * 70 + " et al. and Fig. 3 by A. Author.",
        ),
        ("x" * 100 + " <em>not. Here</em> " + "y" * 200, None),
    ],
)
def test_where_a_sentence_ends(slides: ModuleType, given: str, expected: str | None) -> None:
    paragraph = BeautifulSoup(f"<p>{given}</p>", "html.parser").p
    short = slides.first_sentence(paragraph)
    assert (short and short.get_text()) == expected


def test_a_missing_page_is_named(
    slides: ModuleType, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "_build/html/notebooks/01_sums.html").unlink()
    assert run(slides, monkeypatch, "--browser", "none") == 1
    assert "01_sums.html: not found; expected the page of" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "code"), [("auto", 0), ("required", 1)])
def test_no_browser_is_said_and_fails_where_one_is_required(
    slides: ModuleType,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    code: int,
) -> None:
    monkeypatch.setenv("ZSL_CHROMIUM", "")
    assert run(slides, monkeypatch, "--browser", wanted) == code
    said = capsys.readouterr()
    assert "found no Chromium on PATH" in (said.err if code else said.out)


def drawn(
    slides: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What a browser complains of, without the file's name; skipped without a browser."""
    if reason := slides.why_not():
        pytest.skip(reason)
    code = run(slides, monkeypatch, "--browser", "required")
    lines = capsys.readouterr().err.splitlines()
    assert code == bool(lines)
    return [line.removeprefix("_build/html/slides/01_sums.html: ") for line in lines]


def test_a_browser_passes_sound_slides(slides, site, monkeypatch, capsys) -> None:
    path = site / "_build/html/notebooks/01_sums.html"
    tall = "<p>Many lines.</p>" * 60 + '<img alt="" width="3000" height="3000" src="' + PNG + '">'
    tall += f'<div class="cell_input"><div class="highlight"><pre>{"wide " * 400}</pre></div></div>'
    path.write_text(path.read_text(encoding="utf-8").replace("<p>It is", tall + "<p>It is"), encoding="utf-8")
    assert drawn(slides, monkeypatch, capsys) == []
    assert [p.name for p in (site / "_build/screenshots/slides").iterdir()] == ["01_sums.png"]


def test_a_browser_names_what_it_stumbles_over(slides, site, monkeypatch, capsys) -> None:
    bad = """\
<script src="https://cdn.test/a.js"></script><script>console.warn("odd")</script>
<p>::: {note}</p><p>``` {exercise}</p><p>{eq}`a`</p><p>raw \\(x\\)</p><p><mjx-merror>bad</mjx-merror></p>
<p style="width: 3000px; height: 2000px; zoom: 1 !important">wide</p>
<p><img src="../_images/none.png" alt="nothing"></p><p><button></button></p><p>It is"""
    path = site / "_build/html/notebooks/01_sums.html"
    path.write_text(path.read_text(encoding="utf-8").replace("<p>It is", bad), encoding="utf-8")
    monkeypatch.setattr(slides, "HERE", unfitted(site, slides.HERE))
    found = [re.sub(r"^slide [\d.]+: ", "", line) for line in drawn(slides, monkeypatch, capsys)]
    for expected in (
        "found the console's warning 'odd'; expected none",
        "found a request for https://cdn.test/a.js; expected nothing from another host",
        "found ::: {note}; expected it rendered",
        "found ``` {exercise}; expected it rendered",
        "found {eq}`a`; expected it rendered",
        "found \\(x\\); expected it rendered",
        "found bad; expected math without an error",
        "found ../_images/none.png; expected a picture that can be drawn",
    ):
        assert expected in found, "\n".join(found)
    assert [line for line in found if line.startswith("axe: found 1 × button-name")], "\n".join(found)
    assert [line for line in found if re.match(r'found \d+ px below the slide, "wide"', line)]
    monkeypatch.undo()


def unfitted(site: Path, source: Path) -> Path:
    """The files of the slides, with a script that makes nothing smaller."""
    folder = site / "unfitted"
    folder.mkdir()
    for path in source.iterdir():
        text = path.read_text(encoding="utf-8")
        changed = text.replace("for (const block of blocks) fit(block, limit);", "")
        assert (changed != text) == (path.name == "slides.js")
        (folder / path.name).write_text(changed, encoding="utf-8")
    return folder
