"""A small web server on this machine that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shelf:
    """What is served, and how.

    files: content by path. troubles: what happens to the next requests, in order: a number of HTTP, a share
    of the content after which the line is cut, ``"stall"`` (half, then silence), ``"moved"`` (to ``/moved``).
    ranges: whether a part can be asked for. tags: whether a file has an ETag. requests: what was asked for,
    as (path, Range header).
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.troubles: list[int | float | str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = self.tags = True
        self.pause = 0.0  # seconds between pieces of 4 KiB


class Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        shelf, asked = self.shelf, self.headers.get("Range")
        shelf.requests.append((self.path, asked))
        trouble = shelf.troubles.pop(0) if shelf.troubles else None
        content = shelf.files.get(self.path.removeprefix("/moved"))
        if content is None or isinstance(trouble, int):
            self.send_error(trouble if isinstance(trouble, int) else 404)
        elif trouble == "moved":
            self.send_response(302)
            self.send_header("Location", f"/moved{self.path}")
            self.end_headers()
        else:
            self._send(content, asked, trouble)

    def _send(self, content: bytes, asked: str | None, trouble: float | str | None) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if asked and self.shelf.ranges and self.headers.get("If-Range") == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.shelf.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Encoding", "x-gzip")  # as some servers say of .tgz; the bytes must stay
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        share = trouble if isinstance(trouble, float) else 0.5 if trouble == "stall" else 1.0
        self._body(content[start : start + round(share * (len(content) - start))])
        if trouble == "stall":
            time.sleep(0.5)
        self.close_connection = True

    def _body(self, body: bytes) -> None:
        for i in range(0, len(body), 4096):
            self.wfile.write(body[i : i + 4096])
            time.sleep(self.shelf.pause)


@contextmanager
def serving() -> Iterator[Shelf]:
    handler = type("OneShelf", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a client that was killed  # type: ignore[method-assign]
        handler.shelf = Shelf(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield handler.shelf
        server.shutdown()
