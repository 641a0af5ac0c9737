"""A browser for the checks: finding one, starting it, serving the site to it, hearing what it says."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from site_checks.allowed import CONSOLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGES = ("playwright", "axe_playwright_python")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other host can be reached
)


def find_browser() -> str | None:
    """ZSL_CHROMIUM where it is set (empty: no browser), else the first one on PATH."""
    if "ZSL_CHROMIUM" in os.environ:
        return os.environ["ZSL_CHROMIUM"] or None
    return next(filter(None, map(shutil.which, NAMES)), None)


def why_not() -> str | None:
    """Why there can be no check in a browser, in one line; None if there can."""
    executable = find_browser()
    if executable is None:
        return "found no Chromium on PATH; ZSL_CHROMIUM can name one"
    if shutil.which(executable) is None:
        return f"ZSL_CHROMIUM: found {executable!r}; expected a program"
    lacking = [name for name in PACKAGES if find_spec(name) is None]
    return (
        f"{' and '.join(lacking)} not installed; see the extra 'site' in pyproject.toml" if lacking else None
    )


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """A fresh browser, in a thread of its own if need be."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """The site's address over http while the block runs."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Seen:
    """What the browser said and fetched since the last `take`, where it should have kept silent."""

    problems: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        passed = any(message.text.startswith(entry.what) for entry in CONSOLE)
        if message.type in ("error", "warning") and not passed:
            self.problems.append(f"found the console's {message.type} {message.text!r}; expected none")

    def script_error(self, error: Exception) -> None:
        self.problems.append(f"found the script error {str(error)!r}; expected none")

    def request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("file", "data", "blob") and url.hostname != "127.0.0.1":
            self.problems.append(f"found a request for {request.url}; expected nothing from another host")

    def request_failed(self, request: Request) -> None:
        if urlsplit(request.url).scheme == "file":
            self.problems.append(f"found no file for {unquote(request.url)}; expected one")

    def response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"found {response.status} for {unquote(response.url)}; expected its file")

    def watch(self, page: Page) -> None:
        page.on("console", self.console)
        page.on("pageerror", self.script_error)
        page.on("request", self.request)
        page.on("requestfailed", self.request_failed)
        page.on("response", self.response)

    def take(self) -> list[str]:
        problems, self.problems = self.problems, []
        return list(dict.fromkeys(problems))
