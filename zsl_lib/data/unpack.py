"""One folder of an archive, into a new folder, from an archive that may be hostile or damaged.

Refused as a whole: names that lead out of the folder, links and devices, one name twice, encrypted members,
and more than there should be: ``MOST_MEMBERS`` members, ``MOST_BYTES`` of content, or ``MOST_TIMES`` the
archive's own size. The count is of what the members declare, and none gives more than it declares.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from zsl_lib.errors import DataError

MOST_MEMBERS = 200_000
MOST_BYTES = 100 * 2**30
MOST_TIMES = 20  # photographs hardly shrink; features in float64 by a factor of five
SPARE = 2**20  # bytes granted to small archives beyond that
MOST_HEADER = 4 * 2**20  # bytes that one read of a tar file may ask for


@dataclass(frozen=True)
class Member:
    """kind: ``"file"``, ``"folder"``, or what else it is. size: bytes, as declared."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Write what lies in ``folder`` of ``archive`` (.zip or .tgz) to the folder ``target``, which is new.

    Every member is looked at, and only those of ``folder`` are written.

    Raises
    ------
    DataError: names the archive and the member; or there is no such folder in it, or no room on the disk.
        ``target`` is then incomplete, for the caller to remove.
    """
    target.mkdir(parents=True)
    try:
        tops = _write(archive, PurePosixPath(folder), target)
    except DataError:
        raise
    except Exception as error:  # zipfile and tarfile raise a dozen types on a damaged file
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            # no room; or a member that is in the way of another
            found = f"what cannot be written ({error})"
            raise DataError(f"{archive}", found=found, expected="files") from error
        found = f"a damaged archive ({str(error).partition(chr(10))[0] or type(error).__name__})"
        raise DataError(
            f"{archive}", found=found, expected="a whole one", hint="remove it and fetch again"
        ) from error
    if not any(target.iterdir()):
        hint = f"it holds {', '.join(sorted(tops)[:8]) or 'nothing'}"
        raise DataError(f"{archive}", found=f"no {folder} in it", expected="the data set", hint=hint)


def _write(archive: Path, top: PurePosixPath, target: Path) -> set[str]:
    """The names on the archive's first level, after all has been checked and the folder written."""
    limit = min(MOST_BYTES, MOST_TIMES * archive.stat().st_size + SPARE)
    total, tops = 0, set()
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    for number, member in enumerate(members(archive), start=1):
        path = _confined(archive, member)
        total += member.size
        if number > MOST_MEMBERS or total > limit:
            found = f"{number} members of {total / 1e6:.1f} MB so far"
            expected = f"at most {MOST_MEMBERS} members and {limit / 1e6:.1f} MB"
            raise DataError(f"{archive}", found=found, expected=expected, hint="a decompression bomb?")
        tops.add(path.parts[0] if path.parts else ".")
        if path.is_relative_to(top):
            _place(archive, member, target / path.relative_to(top))
    return tops


def _confined(archive: Path, member: Member) -> PurePosixPath:
    """The member's path, if it is a file or folder inside."""
    where = f"{archive}: member {member.name[:100]!r}"
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*\\", member.name):
        raise DataError(where, found="a path that may lead out", expected="one inside the folder")
    if not member.name.isprintable():
        raise DataError(where, found="control characters in its name", expected="none")
    if member.kind not in ("file", "folder"):
        raise DataError(where, found=member.kind, expected="a file or a folder")
    return path


def _place(archive: Path, member: Member, path: Path) -> None:
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(f"{archive}: member {member.name!r}", found="the name twice", expected="once")
    source = member.open()
    assert source is not None  # of a file
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder"}.get(
                stat.S_IFMT(info.external_attr >> 16), "a link or a device"
            )
            if info.is_dir() and kind == "file":
                kind = "folder"
            if info.flag_bits & 1:
                kind = "an encrypted member"
            yield Member(info.orig_filename, kind, info.file_size, partial(file.open, info))


class _Gzip(gzip.GzipFile):
    """For tarfile, which reads a header's extensions in one piece: pieces of gigabytes are refused."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _tar_members(archive: Path) -> Iterator[Member]:
    with _Gzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for info in tar:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a link or a device"
            yield Member(info.name, kind, info.size, partial(tar.extractfile, info))
        if len(stream.read(MOST_HEADER)) == MOST_HEADER:  # to the end, where gzip has its checksum
            raise tarfile.ReadError("megabytes behind its last member")
