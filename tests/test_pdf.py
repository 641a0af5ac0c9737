"""The PDF: one document of all pages, whose links stay inside; printed where there is a browser."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import ci_script

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.fixture(scope="module")
def pdf() -> ModuleType:
    return ci_script("pdf")


def page(body: str) -> str:
    return f"<html><body><nav>of the theme</nav><article>{body}</article></body></html>"


@pytest.fixture
def site(pdf: ModuleType, tmp_path: Path):
    """Two pages with the same id, a link to each other's, to a download and to elsewhere."""
    files = {
        "_toc.yml": "root: book/intro\nchapters:\n  - file: notebooks/01_a\n",
        "site/search.html": '<html><head><link rel="stylesheet" href="_static/x.css"></head></html>',
        "site/index.html": page(""),
        "site/book/intro.html": page(
            '<section id="top"><h1>Intro<a class="headerlink" href="#top">#</a></h1>'
            '<a href="../notebooks/01_a.html#top">there</a><a href="#top">here</a></section>'
        ),
        "site/notebooks/01_a.html": page(
            '<section id="top"><h1>1 &lt; 2</h1><img src="../_images/a.png"><img src="' + PIXEL + '">'
            '<a href="../book/intro.html">back</a><a href="../_downloads/x/a.py">file</a>'
            '<a href="https://example.org/#x">out</a><script>let x</script>'
            "<details><summary>Solution</summary>because</details>"
            '<details class="above-input"><summary>code</summary>hidden</details></section>'
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return pdf.Site(tmp_path / "site", tmp_path / "_toc.yml")


def test_links_and_ids_are_of_the_one_document(pdf, site):
    text = pdf.document(site, "A & B", "C")
    ids = re.findall(r' id="([^"]+)"', text)
    links = re.findall(r'<a [^>]*href="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"book-intro--top", "notebooks-01_a--top"} <= set(ids)
    assert set(links) - {f"#{name}" for name in ids} == {"https://example.org/#x"}
    assert 'href="#notebooks-01_a--top">there' in text
    assert 'href="#book-intro--top">here' in text
    assert 'href="#book-intro--">back' in text
    assert "<title>A &amp; B</title>" in text


def test_paper_gets_what_belongs_on_paper(pdf, site):
    text = pdf.document(site, "A", "B")
    assert 'src="_images/a.png"' in text
    assert PIXEL in text
    assert "1 &lt; 2</a>" in text  # in the contents, without the theme's link sign
    assert '<details open="">' in text
    for gone in ("of the theme", "headerlink", "hidden", "let x", "a.py"):
        assert gone not in text
    assert ">Intro</a>" in text


def test_a_browser_prints_it(pdf, site, tmp_path, monkeypatch, capsys):
    if reason := pdf.why_not():
        pytest.skip(reason)
    (site.root / "_static" / "mathjax").mkdir(parents=True)
    (site.root / "_static" / "mathjax" / "tex-chtml.js").write_text(
        "window.MathJax = {startup: {promise: Promise.resolve()}}", encoding="utf-8"
    )
    (site.root / "_static" / "x.css").write_text("", encoding="utf-8")
    (site.root / "_images").mkdir()
    (site.root / "_config.yml").write_text("title: A\nauthor: B\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_config.yml").write_text("title: A\nauthor: B\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["pdf.py", "--site", str(site.root)])
    assert pdf.main() == 1  # a picture is missing, which is said
    assert "a.png" in capsys.readouterr().err
    made = tmp_path / "book.pdf"
    assert made.read_bytes().startswith(b"%PDF")
    assert made.read_bytes().count(b"/Type /Page\n") + made.read_bytes().count(b"/Type /Page ") >= 3
    assert not (site.root / "book-as-one-page.html").exists()


def test_without_a_browser_it_says_what_is_missing(pdf, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZSL_CHROMIUM", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pdf.py", "--site", str(site.root)])
    assert pdf.main() == 1
    assert "Chromium" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pdf"))
