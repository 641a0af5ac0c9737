"""The whole book as one PDF, `_build/book.pdf`: `python .ci/pdf.py`, after `make book`.

The articles of all pages, in the order of _toc.yml, become one document that Chromium prints: so page
numbers, outline and the links from page to page are the PDF's own. Dropdowns stand open; the code of pages
that are made from records is left out. Run from the root of the repository; what is needed is what the
browser's part of `make check-site` needs.
"""

from __future__ import annotations

import argparse
import html
import sys
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import urldefrag

import yaml
from bs4 import BeautifulSoup, Tag
from site_checks.browser import Seen, launched, why_not
from site_checks.drawn import look
from site_checks.pages import Page, Site

LEFT_OUT = "a.headerlink, button, script, details.above-input, details.sd-dropdown, .toctree-wrapper"
STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 10.5pt; }
body { background: white; }
article > section > h1, nav { break-before: page; }
h1, h2, h3, figcaption { break-after: avoid; }
img, tr { break-inside: avoid; max-width: 100%; }
pre, table, .admonition { break-inside: auto !important; overflow: visible !important; }
div.cell_input, div.highlight, div[class*="highlight-"] {
  display: block !important;
  break-inside: auto !important;
}
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; orphans: 4; widows: 4; }
div.cell_output { overflow: visible; }
div.cell_output table { font-size: 7pt; }
div.cell_output table :is(th, td) { padding: 0.1rem 0.25rem; white-space: normal; }
mjx-container { overflow: visible !important; }
.title { text-align: center; padding-top: 35%; }
"""
FOOTER = '<div style="font-size: 8px; width: 100%; text-align: center" class="pageNumber"></div>'


def anchor(page: str, fragment: str = "") -> str:
    """The place in the one document of a place in a page: fragments of two pages may be the same."""
    return f"{page}--{fragment}".replace("/", "-")


def inside(name: str, article: Tag, site: Site) -> None:
    """Make ids and links of a page's article, in place, those of the one document at the site's root."""
    folder = dirname(name)
    for tag in article.select("[id]"):
        tag["id"] = anchor(name, str(tag["id"]))
    for tag in article.select("[src]"):
        if ":" not in str(tag["src"]):
            tag["src"] = normpath(join(folder, str(tag["src"])))
    for tag in article.select("a[href]"):
        path, fragment = urldefrag(str(tag["href"]))
        if ":" in path:
            continue
        target = normpath(join(folder, path)).removesuffix(".html") if path else name
        if target in site.pages:
            tag["href"] = f"#{anchor(target, fragment)}"
        else:  # a file to download, which a PDF does not have
            tag.unwrap()


def printable(name: str, page: Page, site: Site) -> str:
    """The article of a page, with what belongs on paper only."""
    article = page.article
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for tag in article.select("details"):
        tag["open"] = ""
    inside(name, article, site)
    article["id"] = anchor(name)
    return str(article)


def document(site: Site, title: str, author: str) -> str:
    """One HTML page of all articles, to lie at the site's root."""
    first = BeautifulSoup((site.root / "search.html").read_text(encoding="utf-8"), "html.parser")
    head = "".join(map(str, first.select('link[rel="stylesheet"]')))
    listed = "".join(f'<li><a href="#{anchor(e.name)}">{heading(p)}</a></li>' for e, p in site.chapters())
    articles = "".join(printable(entry.name, page, site) for entry, page in site.chapters())
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>{head}<style>{STYLE}</style>"
        '<script>window.MathJax = {options: {processHtmlClass: "math"}}</script>'
        '<script defer src="_static/mathjax/tex-chtml.js"></script></head><body>'
        f'<div class="title"><h1>{html.escape(title)}</h1><p>{html.escape(author)}</p></div>'
        f'<nav><h1>Contents</h1><ul>{listed}</ul></nav><div class="bd-content">{articles}</div></body></html>'
    )


def heading(page: Page) -> str:
    title = page.article.select_one("h1")
    return html.escape(title.get_text().removesuffix("#").strip()) if title else page.path.stem


def print_to(target: Path, source: Path) -> list[str]:
    """Print an HTML file; returns what the browser complained of."""
    seen = Seen()
    with launched() as browser:
        page = browser.new_page(color_scheme="light")
        seen.watch(page)
        page.set_default_timeout(300_000)
        problems = look(page, seen, source.resolve().as_uri())
        page.pdf(
            path=target.with_suffix(".pdf.tmp"),
            prefer_css_page_size=True,
            print_background=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
        )
    target.with_suffix(".pdf.tmp").replace(target)
    return problems + seen.take()


def main() -> int:
    parser = argparse.ArgumentParser(description="The whole book as one PDF.")
    parser.add_argument("--site", type=Path, default=Path("_build/html"), help="the folder of the built site")
    site = Site(parser.parse_args().site, Path("_toc.yml"))
    if (problem := why_not()) or (problem := "\n".join(site.missing())):
        print(f"pdf: {problem}", file=sys.stderr)
        return 1
    config = yaml.safe_load(Path("_config.yml").read_text(encoding="utf-8"))
    source, target = site.root / "book-as-one-page.html", site.root.parent / "book.pdf"
    try:
        source.write_text(document(site, config["title"], config["author"]), encoding="utf-8")
        problems = print_to(target, source)
    finally:
        source.unlink(missing_ok=True)
    for problem in problems:
        print(f"pdf: {problem}", file=sys.stderr)
    print(f"The book is ready: {target}, {target.stat().st_size / 1e6:.1f} MB")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
