"""The committed archives: written with, and read against, their SHA-256."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

HERE = Path(__file__).parent
SUMS = "SHA256SUMS"


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` as a compressed ``.npz`` and put its SHA-256 into ``SHA256SUMS`` beside it."""
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    sums = read_sums(path.parent) | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    atomic_write(path.parent / SUMS, lambda file: file.write(text.encode()))


def read_sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, from ``SHA256SUMS`` (the format of ``sha256sum``); empty if there is none."""
    path = folder / SUMS
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in lines}


def open_archive(path: Path) -> tuple[np.lib.npyio.NpzFile, str]:
    """The archive and its SHA-256; :class:`DataError` if it is missing or not the committed one."""
    where = f"hangul/{path.name}"
    if not path.exists():
        raise DataError(where, found="no file", expected="the committed archive", hint="git checkout it")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    expected = read_sums(path.parent).get(path.name)
    if digest != expected:
        wanted = f"{expected}, as in {SUMS}" if expected else f"a line in {SUMS}"
        raise DataError(where, found=f"SHA-256 {digest}", expected=wanted, hint="the file was altered")
    return np.load(io.BytesIO(data), allow_pickle=False), digest
