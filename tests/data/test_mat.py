"""MAT files that would end the process in SciPy's reader are refused before it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from zsl_lib.data import mat

NAMES = np.array([["a"], ["b"], ["long enough"]], dtype=object)


def saved(path: Path, **options: bool) -> bytes:
    file = io.BytesIO()
    numbers, sparse = np.array([[1.5, 2], [3, 4]]), scipy.sparse.csc_matrix(np.eye(3))
    scipy.io.savemat(
        file, {"numbers": numbers, "names": NAMES, "text": "one", "sparse": sparse, "s": {"a": 1}}, **options
    )
    path.write_bytes(file.getvalue())
    return file.getvalue()


def changed(path: Path, content: bytes, place: bytes, after: int, byte: int) -> None:
    """The content with one byte changed, some bytes after the first ``place``."""
    at = content.index(place) + after
    path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_pass_and_what_is_not_asked_for_is_not_looked_at(compressed, tmp_path):
    path = tmp_path / "a.mat"
    saved(path, do_compression=compressed)
    mat.check(path, {"numbers", "names", "text", "sparse"})
    with pytest.raises(ValueError, match="an array of class 2"):
        mat.check(path, {"s"})


@pytest.mark.parametrize("code", [0, 8, 10, 11, 14, 15, 19, 20, 200])
def test_a_type_that_scipy_has_no_place_for(code, tmp_path):
    """SciPy follows it out of its table: a segmentation fault."""
    path = tmp_path / "a.mat"
    changed(path, saved(path), b"numbers\0", 8, code)
    with pytest.raises(ValueError, match=f"data of type {code} "):
        mat.check(path, {"numbers"})
    mat.check(path, {"names"})


def test_strings_without_dimensions(tmp_path):
    """SciPy looks for the last one: a segmentation fault."""
    path = tmp_path / "a.mat"
    content = saved(path)
    start = content.index(b"text") - 24  # the tag of the dimensions: type 5, 8 bytes
    start = content.rindex(b"\5\0\0\0\x08\0\0\0", 0, start + 24)
    path.write_bytes(content[: start + 4] + b"\0" + content[start + 5 :])
    with pytest.raises(ValueError, match="an array of shape"):
        mat.check(path, {"text"})


def test_truncated(tmp_path):
    path = tmp_path / "a.mat"
    content = saved(path)
    path.write_bytes(content[: content.index(b"long enough") + 4])
    with pytest.raises(ValueError, match="bytes of"):
        mat.check(path, {"names"})
