"""What a MAT file of version 5 or 7 declares, checked before SciPy reads it.

SciPy takes the type of each piece of data for a place in a table without a look at the table's length, so one
wrong byte ends the process (SciPy's pull request 25349). This goes through the same tags in the same order
and refuses what SciPy has no type for. Only the beginning of a large matrix is read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}
TEXT = NUMBERS | {16, 17, 18}
MATRIX, COMPRESSED = 14, 15
CELL, CHAR, SPARSE, NUMERIC = 1, 4, 5, range(6, 16)  # classes of arrays
DEEPEST, MOST = 4, 10**7  # cells in cells; cells of one array
Read = Callable[[int], bytes]


class Tag(NamedTuple):
    """kind: of the data. size: in bytes, as declared. small: the data itself, where it is in the tag."""

    kind: int
    size: int
    small: bytes | None


def check(path: Path, keys: Collection[str]) -> None:
    """Raise ValueError unless each of ``keys`` that the file holds is of types that there are."""
    with path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        while head := file.read(8):
            kind, size = struct.unpack(f"{order}II", head)
            end = file.tell() + size
            read: Read = file.read
            if kind == COMPRESSED:
                read = _Inflated(file, size).read
                kind = _tag(read, order).kind
            if kind != MATRIX:
                raise ValueError(f"a variable of type {kind}")
            _matrix(read, order, keys)
            file.seek(end)


class _Inflated:
    """What compressed bytes of a file stand for, as far as it is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left, self.inflate = file, size, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        out = b""
        while len(out) < size and not self.inflate.eof:
            packed = self.inflate.unconsumed_tail or self.file.read(min(self.left, 1 << 16))
            if not self.inflate.unconsumed_tail:
                self.left -= len(packed)
            got = self.inflate.decompress(packed, size - len(out))
            if not got and not packed:
                break
            out += got
        return out


def _matrix(read: Read, order: str, keys: Collection[str] | None, depth: int = 0) -> None:
    """A variable, if it is one of ``keys``, or a cell of it."""
    (flags,) = struct.unpack(f"{order}8xI4x", read(16))
    dims = _data(read, order, {5, 6})
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    if (
        len(shape) < 2 or min(shape) < 0
    ):  # SciPy looks for the last length of strings, and ends if there is none
        raise ValueError(f"an array of shape {shape}")
    name = _data(read, order, TEXT).decode("latin-1")
    if keys is not None and name not in keys:
        return
    kind = flags & 0xFF
    if kind in (CELL, CHAR) and math.prod(shape) > MOST:
        raise ValueError(f"{math.prod(shape)} cells or letters")
    if flags & 0x800:
        raise ValueError("complex numbers")
    if kind in NUMERIC and keys is not None:
        _tag(read, order, NUMBERS)  # SciPy reads as much as it says and not a byte more
    elif kind in NUMERIC or kind == CHAR:
        _data(read, order, TEXT if kind == CHAR else NUMBERS)
    elif kind == SPARSE:
        for _ in range(3):
            _data(read, order, NUMBERS)
    elif kind == CELL and depth < DEEPEST:
        for _ in range(math.prod(shape)):
            if _tag(read, order, {MATRIX}).size:
                _matrix(read, order, None, depth + 1)
    else:
        raise ValueError(f"an array of class {kind}")


def _tag(read: Read, order: str, kinds: Collection[int] = range(20)) -> Tag:
    first, second = struct.unpack(f"{order}II", head := read(8))
    kind, size = (first & 0xFFFF, first >> 16) if first >> 16 else (first, second)
    if kind not in kinds or (first >> 16 and size > 4):
        raise ValueError(f"data of type {kind} and {size} bytes")
    return Tag(kind, size, head[4 : 4 + size] if first >> 16 else None)


def _data(read: Read, order: str, kinds: Collection[int]) -> bytes:
    tag = _tag(read, order, kinds)
    if tag.small is not None:
        return tag.small
    data = read(tag.size)
    if len(data) < tag.size:
        raise ValueError(f"{len(data)} bytes of {tag.size}")
    read(-tag.size % 8)
    return data
