"""The targets of ``make fuzz`` on seeds and on damaged ones, without atheris; what fuzzing has found."""

from __future__ import annotations

import io
import random
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from fuzz_readers import TARGETS, bytes_of, main, npy, try_once

SEEDS = {name: seeds() for name, (_, seeds) in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_seed_is_read_and_damaged_ones_are_refused_by_a_data_error_or_read(name, tmp_path):
    seeds, rng = SEEDS[name], random.Random(0)
    assert try_once(name, seeds[0], tmp_path)
    for seed in [*seeds, b"", b"\0" * 600]:
        try_once(name, seed, tmp_path)
        for _ in range(10):
            damaged = bytearray(seed[: rng.randint(0, len(seed))] if rng.random() < 0.3 else seed)
            for _ in range(min(3, len(damaged))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try_once(name, bytes(damaged), tmp_path)


def png(width: int, height: int) -> bytes:
    """Of that size by its header, and of little else."""
    content = bytearray(SEEDS["image"][1])
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


def changed(name: str, old: bytes, new: bytes) -> bytes:
    assert old in SEEDS[name][0]
    return SEEDS[name][0].replace(old, new, 1)


FOUND = {
    "type 8 of a MAT file": ("splits_mat", lambda: changed("splits_mat", b"att\0\t", b"att\0\x08")),
    "type 8 of ImageNet-21K's splits": (
        "imagenet_splits",
        lambda: changed("imagenet_splits", b"all\0\t", b"all\0\x08"),
    ),
    "names in Latin-1": ("names_txt", lambda: b"\xe9t\xe9\n"),
    "lists in Latin-1": ("image_lists", lambda: changed("image_lists", b"a/1", b"\xe9/1")),
    "a superscript for a number": ("image_lists", lambda: "² a/1.jpg\n".encode()),
    "a number of 5,000 digits": ("image_lists", lambda: b"1" * 5000 + b" a/1.jpg\n"),
    "an image of a thousand million pixels": ("image", lambda: png(40_000, 40_000)),
    "an image like a thread": ("image", lambda: slender()),
    "brackets in JSON": ("record_json", lambda: b"[" * 100_000),
    "a metric of 400 digits": ("record_json", lambda: changed("record_json", b"50.0", b"5" * 400)),
    "brackets in TOML": ("manifest_toml", lambda: b"labels = " + b"[" * 100_000),
    "brackets in mirrors": ("mirrors_toml", lambda: b"a = " + b"[" * 100_000),
    "digits in TOML": ("manifest_toml", lambda: b"labels = " + b"1" * 5000),
    "a file name of 5,000 letters": (
        "manifest_toml",
        lambda: changed("manifest_toml", b"y.npy", b"y" * 5000 + b".npy"),
    ),
    "a zero byte in a file name": ("manifest_toml", lambda: changed("manifest_toml", b"names", b"\\u0000")),
    "labels beyond integers": ("labels_npy", lambda: npy([0, 0, 1, 1e300], "float64")),
    "a checkpoint without its net": ("checkpoint", lambda: without_net()),
}


def slender() -> bytes:
    return bytes_of(lambda file: Image.new("L", (1, 60_000)).save(file, "PNG"))


def without_net() -> bytes:
    state = torch.load(io.BytesIO(SEEDS["checkpoint"][0]), weights_only=True)
    return bytes_of(lambda file: torch.save(state | {"net": {}}, file))


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_is_refused(case, tmp_path):
    name, content = FOUND[case]
    assert not try_once(name, content(), tmp_path)


def test_an_error_of_another_kind_and_a_file_outside_are_findings(tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setitem(TARGETS, "zip", (fails, list))
    with pytest.raises(KeyError):
        try_once("zip", b"", tmp_path)
    monkeypatch.setitem(TARGETS, "zip", (lambda folder, _: (folder.parent / "out").touch(), list))
    with pytest.raises(AssertionError, match="written outside"):
        try_once("zip", b"", tmp_path)


def test_without_atheris_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("fuzz_readers.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["fuzz_readers.py"])
    assert main() == 1
    assert "make fuzz: found no atheris; there is one for Linux on x86-64" in capsys.readouterr().out
