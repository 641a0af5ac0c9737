"""A file from the first address that gives it whole: resumed, tried again, checked before it gets its name.

What has come so far is ``<file>.part``, and ``<file>.part.from`` says of which version of which address. A
later try asks for the rest of that version only; where the server has another one, or cannot give a part, it
starts over.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pooch
import requests

from zsl_lib.errors import DataError

TIMEOUT = 30.0  # seconds without a byte after which a try has failed
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds between tries; one that got further starts the row again
CHUNK = 1 << 16
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)  # answers that may be another one soon


class _Whole(Exception):
    """The server has nothing beyond the part that is here."""


def download(urls: Sequence[str], path: Path, known_hash: str | None = None) -> None:
    """Put the file at ``urls`` (one file, several addresses) at ``path``.

    known_hash: ``"md5:…"`` or ``"sha256:…"``; None accepts what comes.

    Raises
    ------
    DataError: no address gives it, or what comes has another digest; or the disk is full. What has come of
        it stays for the next time, unless its digest is wrong.
    """
    reasons = []
    part = path.with_name(f"{path.name}.part")
    for url in urls:
        try:
            _persist(url, part)
            _expect_hash(part, known_hash)
            os.replace(part, path)
        except requests.RequestException as error:
            reasons.append(f"{url}: {_brief(error)}")
            continue
        except DataError as error:
            reasons.append(f"{url}: {error}")
            continue
        except OSError as error:
            raise DataError(f"{part}", found=f"no way to write it ({error})", expected="a file") from error
        _origin(part).unlink(missing_ok=True)
        return
    raise DataError(path.name, found=f"no download ({'; '.join(reasons)})", expected="the publisher's file")


def _persist(url: str, part: Path) -> None:
    """Try until ``part`` is whole, or until a row of tries got no further."""
    tries = most = 0
    while True:
        try:
            return _transfer(url, part)
        except requests.RequestException as error:
            size = part.stat().st_size
            if size > most:
                tries, most = 0, size
            if tries == len(WAITS) or not _is_passing(error):
                if not size:
                    part.unlink()
                raise
            wait, tries = WAITS[tries], tries + 1
            told = f"{_brief(error)}: again in {wait:g} s, from {size / 1e6:.1f} MB on"
            print(f"\n{told}", file=sys.stderr, flush=True)  # below the progress bar
            time.sleep(wait)


def _transfer(url: str, part: Path) -> None:
    """One try; adds to ``part`` what it lacks."""
    with part.open("ab") as file:
        version = _version(url, part)
        start = file.tell() if version else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": version}
        get = pooch.HTTPDownloader(
            progressbar=True,
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers=headers,
            hooks={"response": _beginning(url, file, start)},
        )
        try:
            get(url, file, None)
        except _Whole:
            return


def _beginning(url: str, file: IO[bytes], start: int) -> Callable[..., None]:
    """What is done with the head of each answer, before its body is written to the end of ``file``."""

    def hook(response: requests.Response, **_: Any) -> None:
        if url.startswith("https:") and not str(response.url).startswith("https:"):
            raise DataError("redirect", found=f"a way to {response.url}", expected="https all along")
        span = response.headers.get("Content-Range", "")
        if start and response.status_code == 416 and span == f"bytes */{start}":
            raise _Whole
        if response.status_code == 206 and not re.match(rf"bytes {start}-\d+/", span):
            raise DataError("Content-Range", found=repr(span), expected=f"bytes from {start} on")
        if response.status_code in (200, 416):  # the whole file, or a part that is none of it
            file.truncate(0)
            tag = response.headers.get("ETag", "")
            version = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
            _origin(Path(file.name)).write_text(f"{url}\n{version}\n", encoding="utf-8")
        response.raw.headers.pop("Content-Encoding", None)  # the bytes as they are, not unpacked on the way

    return hook


def _origin(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _version(url: str, part: Path) -> str:
    """The validator under which ``part`` came from ``url``; empty if it came from elsewhere or had none."""
    origin = _origin(part)
    lines = origin.read_text(encoding="utf-8", errors="replace").splitlines() if origin.exists() else []
    return lines[1] if len(lines) == 2 and lines[0] == url else ""


def _expect_hash(part: Path, known_hash: str | None) -> None:
    if known_hash is None:
        return
    found = file_hash(part, known_hash)
    if found != known_hash:
        part.unlink()
        raise DataError(part.name, found=found, expected=known_hash, hint="another file, or a damaged one")


def file_hash(path: Path, like: str = "sha256:") -> str:
    """``"<algorithm>:<digest>"`` of a file, by the algorithm of the digest ``like``."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _is_passing(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code in PASSING
    return isinstance(
        error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    )


def _brief(error: requests.RequestException) -> str:
    """The kind of failure and its innermost reason: the text of requests' own errors is a paragraph."""
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the line was cut"
    cause = error.args[0] if error.args else ""
    return f"{type(error).__name__}, {str(getattr(cause, 'reason', cause)).rsplit(': ', 1)[-1]}"
