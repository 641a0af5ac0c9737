"""Files are whole or absent."""

from __future__ import annotations

import os
import stat
import time

import numpy as np
import pytest
import torch

from zsl_lib.files import STALE, atomic_write, write_npy


def test_the_file_holds_what_was_written_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    atomic_write(path, lambda file: file.write(b"\x00whole"))
    assert path.read_bytes() == b"\x00whole"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_file_that_is_there_is_replaced(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"a longer one")
    atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_writer_that_fails_half_way_changes_nothing_and_leaves_nothing(tmp_path, error, old):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)

    def half(file):
        file.write(b"half of")
        file.flush()
        raise error

    with pytest.raises(error):
        atomic_write(path, half)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_the_old_file_can_be_read_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    atomic_write(path, write)
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_long_ago_is_removed_and_what_another_one_writes_now_is_not(tmp_path):
    path, now = tmp_path / "file [1].bin", time.time()
    for name, age in (("old", STALE + 60), ("new", STALE - 60)):
        left = tmp_path / f".{path.name}.{name}"
        left.write_bytes(b"half")
        os.utime(left, (now - age, now - age))
    other = tmp_path / ".file 1.bin.old"
    other.write_bytes(b"of another file")
    os.utime(other, (0, 0))
    atomic_write(path, lambda file: file.write(b"whole"))
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f".{path.name}.new", other.name}


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_others_may_read_the_file(tmp_path):
    path = tmp_path / "file.bin"
    atomic_write(path, lambda file: file.write(b""))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_blocks_become_one_array_on_disk(tmp_path):
    x = torch.randn(7, 3)
    found = write_npy(tmp_path / "x.npy", (7, 3), x.split(2))
    assert torch.equal(found, x)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x.numpy())
    found.zero_()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x.numpy())
