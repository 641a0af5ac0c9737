"""Each check of the built site, seen failing: one defect at a time in a site of two pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

import check_site  # noqa: E402
from check_site import FILES  # noqa: E402
from site_checks.browser import find_browser, why_not  # noqa: E402
from site_checks.content import spelling_problems  # noqa: E402
from site_checks.drawn import drawn_problems  # noqa: E402
from site_checks.pages import Site, entries  # noqa: E402

TOC = """\
format: jb-book
root: book/intro
parts:
  - caption: One
    numbered: true
    chapters:
      - file: notebooks/01_sum
"""
HEAD = '<html lang="en"><head><title>A page</title>{head}</head><body><main><article>'
INTRO = '<h1>First</h1><p>Read <a href="../notebooks/01_sum.html#sums">the sums</a>.</p>'
EXERCISE = '<div class="exercise">How many?</div><div class="solution">Three.</div>'
CODING = '<div class="exercise">Add.<pre># YOUR CODE HERE</pre></div><div class="solution">a + b</div>'
CHAPTER = f"""\
<h1 id="sums"><span class="section-number">1. </span>Sums of numbers
<a class="headerlink" href="#sums">#</a></h1>
<div class="admonition"><p class="admonition-title">Goals</p><ul><li>add</li></ul>
<p>You need nothing.</p></div>
<details><summary>Run this page: 3 s, 200 MB, CPU</summary>
<a href="../_downloads/a/01_sum.ipynb">notebook</a> <a href="../_downloads/a/01_sum.py">script</a></details>
<h2>A section</h2><div class="cell_output"><img src="../_images/a.svg" alt="Three dots in a row"></div>
<h2>Exercises</h2>{CODING}{EXERCISE * 2}
<h2>Summary</h2><p>Numbers have sums.</p>
"""
SEARCH = '<h1>Search</h1><div id="search-results"><a href="notebooks/01_sum.html">Sums</a></div>'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
INTRO_PAGE, CHAPTER_PAGE = "_build/html/book/intro.html", "_build/html/notebooks/01_sum.html"


VIEWS_IN_ORDER = [
    ("light", 390),
    ("light", 2560),
    ("light", 1280),
    ("dark", 1280),
    ("dark", 2560),
    ("dark", 390),
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an unbroken site in `_build/html`."""
    monkeypatch.chdir(tmp_path)
    files = {
        "book/intro.html": INTRO,
        "notebooks/01_sum.html": CHAPTER,
        "search.html": SEARCH,
        "index.html": '<a href="book/intro.html">the book</a>',
    }
    for name, text in files.items():
        write(tmp_path, name, HEAD.format(head='<link rel="icon" href="data:,">') + text)
    for name in ("_downloads/a/01_sum.ipynb", "_downloads/a/01_sum.py"):
        write(tmp_path, name, "")
    write(tmp_path, "_images/a.svg", SVG)
    (tmp_path / "_toc.yml").write_text(TOC, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.codespell]\nignore-words-list = "nd"\n', encoding="utf-8")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    path = folder / "_build/html" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check_site.py", *options])
    return check_site.main()


def test_an_unbroken_site_passes(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--browser", "none") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        "site: 2 pages; the heaviest is notebooks/01_sum, 0.0 MB",
        "browser: not checked (--browser none)",
        "site: 2 pages checked, 0 problems",
    ]


MISSPELT = "reci" + "eve"  # in two, for the spelling check of this file
IN_CHAPTER = [
    # links and anchors
    (
        "Numbers have",
        '<a href="02_x.html">Numbers</a> have',
        "found a link to 02_x.html; expected a link to a file of the site",
    ),
    (
        "Numbers have",
        '<a href="../book/intro.html#no">Numbers</a> have',
        "found a link to ../book/intro.html#no; expected an element of that id in book/intro.html",
    ),
    (
        "Numbers have",
        '<a href="/book/intro.html">Numbers</a> have',
        "found a link to /book/intro.html; expected a link to a file of the site",
    ),
    (
        '<div class="cell_output">',
        '<div class="cell_output"><a href="out.csv">',
        "found a link to out.csv; expected a link to a file of the site",
    ),
    # what is loaded
    (
        "<title>",
        '<script src="https://cdn.test/a.js"></script><title>',
        "loads https://cdn.test/a.js; expected nothing from another host",
    ),
    (
        "<h2>A",
        "<style>p {background: url(//cdn.test/a.png)}</style><h2>A",
        "loads //cdn.test/a.png; expected nothing from another host",
    ),
    ("_images/a.svg", "_images/b.svg", "loads ../_images/b.svg; expected a file of the site"),
    # images
    ('alt="Three dots in a row"', "", "found no alt text on ../_images/a.svg; expected what is to be seen"),
    (
        "Three dots in a row",
        "../_images/a.svg",
        "found the alt text '../_images/a.svg'; expected what is to be seen, not a file's name",
    ),
    ("<h2>A", "<canvas></canvas><h2>A", "found <canvas> without a name; expected an aria-label or a title"),
    # headings and ids
    ("<h2>A section</h2>", "<h3>A section</h3>", "found h3 'A section' under an h1; expected h2 or higher"),
    (
        "<h2>A section</h2>",
        "<h1>A section</h1>",
        "found headings h1 h1 h2 h2; expected one h1, before all others",
    ),
    ("<h2>A", '<p id="sums"><h2>A', "found 2 elements with id 'sums'; expected one"),
    # goals, prerequisites, summary, exercises
    ("cell_output", "cell_nothing", "found no cell output; expected an executed notebook's results"),
    (
        ">Goals<",
        ">Aims<",
        "found no list of goals at the top; expected a box 'Goals' before the first section",
    ),
    (
        "You need nothing.",
        "",
        "found goals without prerequisites; expected a line 'You need ...' in that box",
    ),
    (">Summary<", ">The end<", "found the last section 'The end'; expected 'Summary'"),
    (
        "<p>Numbers have sums.</p>",
        "",
        "found an empty section 'Summary'; expected a paragraph in it",
    ),
    (EXERCISE * 2, "", "found 1 exercises; expected 3 to 6 in a numbered chapter"),
    (
        EXERCISE * 2,
        EXERCISE * 2 + '<div class="exercise">',
        "found 3 solutions to 4 exercises; expected one each",
    ),
    (
        "# YOUR CODE HERE",
        "return a + b",
        "found no '# YOUR CODE HERE' in an exercise; expected the stub of a coding exercise",
    ),
    # how to run it
    (
        "Run this page: 3 s",
        "Run this page",
        "found no box 'Run this page'; expected one with seconds, memory and device",
    ),
    ("_downloads/a/01_sum.py", "index.html", "found no link to 01_sum.py; expected a download of it"),
    # spelling
    ("Numbers have sums", f"Numbers {MISSPELT} sums", f"found the word '{MISSPELT}'; expected receive"),
]


@pytest.mark.parametrize(("old", "new", "message"), IN_CHAPTER, ids=[m for _, _, m in IN_CHAPTER])
def test_a_planted_defect_is_named(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    if "the word" not in message:
        monkeypatch.setattr(check_site, "FILES", [check for check in FILES if check is not spelling_problems])
    edit(site, CHAPTER_PAGE, old, new)
    assert run(monkeypatch, "--browser", "none") == 1
    assert capsys.readouterr().err == f"{CHAPTER_PAGE}: {message}\n"


def test_a_missing_page_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(site, "_toc.yml", "notebooks/01_sum", "notebooks/02")
    (site / "_build/html/index.html").unlink()
    assert run(monkeypatch, "--browser", "none") == 1
    assert capsys.readouterr().err.splitlines() == [
        "_build/html/index.html: not found; expected the site's first page",
        "_build/html/notebooks/02.html: not found; expected the page of 'notebooks/02' in _toc.yml",
    ]


def test_a_style_sheet_that_loads_from_elsewhere_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(site, INTRO_PAGE, "<title>", '<link rel="stylesheet" href="../_static/a.css"><title>')
    write(site, "_static/a.css", '@import "https://fonts.test/a.css"; p {background: url(data:,)}')
    assert run(monkeypatch, "--browser", "none") == 1
    assert capsys.readouterr().err == (
        "_build/html/_static/a.css: loads https://fonts.test/a.css; expected nothing from another host\n"
    )


def test_a_heavy_page_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(site, "_images/a.svg", " " * 7_000_000)
    assert run(monkeypatch, "--browser", "none") == 1
    assert capsys.readouterr().err == f"{CHAPTER_PAGE}: found 7.0 MB to load; expected at most 6 MB\n"


def test_parts_with_numbers_are_known() -> None:
    toc = {
        "root": "a",
        "parts": [{"numbered": True, "chapters": [{"file": "b"}]}, {"chapters": [{"file": "c"}]}],
    }
    assert [(entry.name, entry.numbered) for entry in entries(toc)] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]


@pytest.mark.parametrize(("wanted", "code"), [("auto", 0), ("required", 1)])
def test_no_browser_is_said_and_fails_where_one_is_required(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: str, code: int
) -> None:
    monkeypatch.setenv("ZSL_CHROMIUM", "")
    reason = "found no Chromium on PATH; ZSL_CHROMIUM can name one"
    assert run(monkeypatch, "--browser", wanted) == code
    said = capsys.readouterr()
    assert (f"browser: not checked ({reason})" in said.out) == (code == 0)
    assert said.err == (f"browser: {reason}\n" if code else "")


def test_a_wrong_browser_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSL_CHROMIUM", "/nowhere/chromium")
    assert why_not() == "ZSL_CHROMIUM: found '/nowhere/chromium'; expected a program"
    monkeypatch.setenv("ZSL_CHROMIUM", sys.executable)
    monkeypatch.setattr("site_checks.browser.find_spec", lambda name: None)
    assert (
        why_not()
        == "playwright and axe_playwright_python not installed; see the extra 'site' in pyproject.toml"
    )


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go; the test is skipped without a browser."""
    if reason := why_not():
        pytest.skip(reason)
    return tmp_path / "shots"


def draw(site: Path, shots: Path) -> list[str]:
    return drawn_problems(Site(Path("_build/html"), site / "_toc.yml"), shots)[0]


def test_a_browser_passes_an_unbroken_site(site: Path, shots: Path) -> None:
    assert find_browser()
    assert draw(site, shots) == []
    assert {path.name for path in shots.iterdir()} == {"book_intro-light-1280.png", "book_intro-dark-390.png"}
    head, intro, chapter = (site / "_build/site.csv").read_text(encoding="utf-8").splitlines()
    assert head == "page,kB,disk_light_ms,disk_dark_ms,http_ms,http_kB"
    assert intro.startswith("book/intro,0,")
    assert chapter.startswith("notebooks/01_sum,0,")


def test_a_browser_names_what_it_stumbles_over(
    site: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_checks.drawn.SEARCH_MS", 1000)
    bad = """\
<script>console.warn("odd"); throw new Error("broken");</script>
<div style="width: 1500px; height: 9px">wide</div>
<p>raw \\(x^2\\)</p><span class="math">x</span><mjx-merror>bad</mjx-merror><i class="fa-solid fa-x"></i>
<p style="color: #aaa; background: #fff">pale</p>
<script src="https://cdn.test/a.js"></script>
<img src="../_images/none.png" alt="nothing">
<h2>A section</h2>"""
    edit(site, CHAPTER_PAGE, "<h2>A section</h2>", bad)
    edit(site, "_build/html/search.html", "notebooks/01_sum", "notebooks/no_sum")
    found = draw(site, shots)
    here = (site / "_build/html/_images/none.png").as_uri()
    everywhere = ", ".join(f"{theme} at {width} px" for theme, width in VIEWS_IN_ORDER)
    narrow = "light at 390 px, light at 1280 px, dark at 1280 px, dark at 390 px"
    expected = [
        "found the console's warning 'odd'; expected none (light, dark)",
        "found the script error 'broken'; expected none (light, dark)",
        "found a request for https://cdn.test/a.js; expected nothing from another host (light, dark)",
        f"found no file for {here}; expected one (light, dark)",
        "found 1118 px beyond the window; expected no sideways scrolling (light at 390 px, dark at 390 px)",
        f'found <div> "wide"; expected wide pieces to scroll by themselves ({narrow})',
        f"found \\(x^2\\); expected rendered math ({everywhere})",
        f'found <span.math> "x"; expected rendered math ({everywhere})',
        f'found <mjx-merror> "bad"; expected math without an error ({everywhere})',
        f"found ../_images/none.png; expected a picture that can be drawn ({everywhere})",
        f'found <i.fa-solid.fa-x> ""; expected a drawn icon ({everywhere})',
    ]
    for problem in expected:
        assert f"{CHAPTER_PAGE}: {problem}" in found, "\n".join(found)
    pale = f"{CHAPTER_PAGE}: axe: found 1 × color-contrast, first at p:nth-child(10) ("
    assert [line for line in found if line.startswith(pale) and line.endswith("expected none (light, dark)")]
    assert found[-1] == (
        "_build/html/search.html: found nothing for 'numbers' in 1 s;"
        " expected notebooks/01_sum.html among the results (http, file)"
    )
