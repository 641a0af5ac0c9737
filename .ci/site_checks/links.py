"""Where a page leads and what it loads: links, anchors, other hosts, weight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from bs4 import Tag

from site_checks.pages import Page, Site

WEIGHT_LIMIT_MB = 6.0  # a page with all that its HTML and its style sheets name
LOADING = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "image": "href",
    "img": "src",
    "input": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "track": "src",
    "use": "href",
    "video": "src",
}
LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest", "apple-touch-icon"}
IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


def is_outside(url: SplitResult) -> bool:
    return bool(url.netloc) or url.scheme in ("http", "https")


def local_file(page: Path, url: SplitResult) -> Path:
    """The file that a relative address leads to; an absolute one leads nowhere on a disk."""
    return (page.parent / unquote(url.path)).resolve() if url.path else page.resolve()


def link_problems(site: Site) -> list[str]:
    """Each href leads to a file of the site, and its fragment to an element of that file."""
    by_path = {page.path.resolve(): page for page in site.pages.values()}
    problems = []
    for page in site.pages.values():
        hrefs = dict.fromkeys(str(tag["href"]) for tag in page.soup.select("a[href], area[href]"))
        for href in hrefs:
            url = urlsplit(href)
            if url.scheme or url.netloc:
                continue
            path = local_file(page.path, url)
            fragment = unquote(url.fragment)
            if not path.is_file() or url.path.startswith("/"):
                problems.append(page.problem(f"a link to {href}", "a link to a file of the site"))
            elif fragment and path in by_path and fragment not in by_path[path].ids:
                where = path.relative_to(site.root.resolve())
                problems.append(page.problem(f"a link to {href}", f"an element of that id in {where}"))
    return problems


def tag_loads(tag: Tag) -> Iterator[str]:
    """The addresses that a browser fetches for a tag."""
    rel = tag.get("rel") or []
    if tag.name != "link" or LOADING_LINKS & {word.lower() for word in rel}:
        address = tag.get(LOADING.get(tag.name, "")) or ""
        if address:
            yield str(address)
    for candidate in str(tag.get("srcset") or "").split(","):
        if candidate.strip():
            yield candidate.split()[0]
    yield from IN_CSS.findall(str(tag.get("style") or ""))
    if tag.name == "style":
        yield from IN_CSS.findall(tag.get_text())


def loads(page: Page) -> list[str]:
    """What the page's HTML loads, each address once, in the page's order."""
    found = dict.fromkeys(address for tag in page.soup.find_all(True) for address in tag_loads(tag))
    return [address for address in found if not address.startswith(("data:", "blob:", "#"))]


def style_loads(path: Path) -> list[str]:
    """What a style sheet loads, without the pieces that are inside it as data."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [address for address in IN_CSS.findall(text) if not address.startswith(("data:", "#"))]


def load_problems(site: Site) -> list[str]:
    """Nothing is loaded from another host, and what is loaded is there; style sheets count too."""
    problems, sheets = [], {}
    for page in site.pages.values():
        for address in loads(page):
            url = urlsplit(address)
            path = local_file(page.path, url)
            if is_outside(url):
                problems.append(f"{page.path}: loads {address}; expected nothing from another host")
            elif not path.is_file() or url.path.startswith("/"):
                problems.append(f"{page.path}: loads {address}; expected a file of the site")
            elif path.suffix == ".css":
                sheets[path] = site.root / path.relative_to(site.root.resolve())
    for path in sheets.values():
        for address in style_loads(path):
            if is_outside(urlsplit(address)):
                problems.append(f"{path}: loads {address}; expected nothing from another host")
    return problems


def weight(page: Page) -> int:
    """Bytes of the page and of every local file that its HTML names."""
    paths = {local_file(page.path, urlsplit(address)) for address in loads(page)} | {page.path.resolve()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def weight_problems(site: Site) -> list[str]:
    problems = []
    for page in site.pages.values():
        megabytes = weight(page) / 1e6
        if megabytes > WEIGHT_LIMIT_MB:
            problems.append(page.problem(f"{megabytes:.1f} MB to load", f"at most {WEIGHT_LIMIT_MB:g} MB"))
    return problems
