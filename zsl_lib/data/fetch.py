"""Published data: fetched from its publisher, checked, and put in its place whole or not at all.

The command is ``python -m zsl_lib.data``. Nothing here is needed to read the book: hangul and toy come with
it.

A file whose publisher prints no checksum is trusted on first use: once it has passed the checks, its SHA-256
is kept beside it in ``<file>.sha256``, and every later download must match that. Put a digest from a
colleague there to share the trust. ``mirrors.toml`` in the data folder names addresses to try first, for each
file::

    "xlsa17.zip" = ["https://mirror.example/zsl/xlsa17.zip"]
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from zsl_lib.data import data_root, find_folder, load, xlsa17
from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.download import download, file_hash
from zsl_lib.data.images import find_images
from zsl_lib.data.published import FEATURES, SIZES, SOURCES, SPLITS, Source
from zsl_lib.data.text import read_lines
from zsl_lib.data.unpack import unpack
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

ABOUT = "SOURCE.txt"  # address, licence and citation, beside the data
MIRRORS = "mirrors.toml"


def fetch(name: str, root: Path | None = None) -> Path:
    """Download, check and place ``name``, unless it is there; returns its file or folder.

    What is there is never touched, and a run that was interrupted goes on where it stopped.

    Raises
    ------
    DataError: unknown name; no address gives the file (with the steps by hand); an archive or data that do
        not pass their checks, of which nothing is placed then.
    """
    source = _source(name)
    there = place(name, root)
    if there.exists():
        return there
    folder = there.parent if source.holds is None else data_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if source.holds is None:
            _write_about(there.with_name(f"{there.name}.{ABOUT}"), name, str(source.known_hash))
        archive = _obtain(name, source, folder, root)
        if source.holds is not None:
            _unpack_checked(name, source, archive, there)
            _seal(source, archive)
        for stale in folder.glob(f"{source.file}.part*"):  # of a run that was killed at its very end
            stale.unlink()
    return there


def place(name: str, root: Path | None = None) -> Path:
    """Where ``name`` is, or will be: below the data folder; weights in ``root``, else in torch's folder."""
    source = _source(name)
    if source.holds is None:
        return (Path(torch.hub.get_dir(), "checkpoints") if root is None else Path(root)) / source.file
    try:
        return find_folder(name, data_root(root))  # also where you put it yourself
    except DataError:
        return data_root(root) / source.holds


def check(name: str, root: Path | None = None) -> str:
    """What is there under that name, in a line, after it has passed every check we have for it.

    A published name is held to its sizes and digests, any other folder of the root to its reader.

    Raises
    ------
    DataError: names the file, what was found and what was expected.
    """
    if name not in SOURCES:
        return repr(load(name, root))
    path = place(name, root)
    if not path.exists():
        raise DataError(str(path), found="nothing there", expected=name, hint=by_hand(name, root))
    line = _check(name, path)
    return f"{line}; {_joined(name, root)}" if name.endswith("-images") else line


def by_hand(name: str, root: Path | None = None) -> str:
    """The steps for a machine without a network."""
    source, target = _source(name), place(name, root)
    where = "" if root is None else f" --root {root}"
    if source.holds is None:
        return (
            f"by hand: get {source.url} elsewhere, put it at {target}; "
            f"then `python -m zsl_lib.data check {name}{where}`"
        )
    return (
        f"by hand: get {source.url} elsewhere, put it at {data_root(root) / source.file}, and run "
        f"`python -m zsl_lib.data fetch {name}{where}`, which then needs no network; or unpack it so "
        f"that {target} is there, and run `python -m zsl_lib.data check {name}{where}`"
    )


def terms(name: str) -> str:
    """Licence and citation."""
    source = _source(name)
    return f"Licence: {source.licence}\nPlease cite:\n{source.citation}"


def split_digest(dataset: ZSLDataset) -> str:
    """SHA-256 of trainval, test_seen and test_unseen: sorted, from 0, 8 bytes an index, little-endian."""
    digest = hashlib.sha256()
    for key in INDEX_SETS[:3]:
        digest.update(getattr(dataset, key).sort().values.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def mirrors(root: Path, file: str) -> list[str]:
    """The addresses that ``mirrors.toml`` of ``root`` names for ``file``; none without it."""
    path = root / MIRRORS
    if not path.exists():
        return []
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # brackets by the thousand recurse
        raise DataError(f"{path}", found=f"no TOML ({error})", expected='"file" = ["address", ...]') from None
    for key, urls in table.items():
        fits = isinstance(urls, list) and all(str(url).startswith(("https://", "http://")) for url in urls)
        if not fits:
            raise DataError(f"{path}: {key}", found=repr(urls), expected="a list of http(s) addresses")
    return list(table.get(file, []))


def _source(name: str) -> Source:
    if name not in SOURCES:
        expected = f"one of {', '.join(SOURCES)}"
        raise DataError(f"data set {name!r}", found="nothing to fetch", expected=expected)
    return SOURCES[name]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetch at a time in a folder: two would write the same part of a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}", found="another fetch at work", expected="one at a time") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _obtain(name: str, source: Source, folder: Path, root: Path | None) -> Path:
    """The publisher's file in ``folder``, downloaded unless it is there, with its known digest."""
    path, seal = folder / source.file, folder / f"{source.file}.sha256"
    known = f"sha256:{_first_word(seal)}" if seal.exists() else source.known_hash
    if not path.exists():
        urls = [*mirrors(data_root(root), source.file), source.url]
        try:
            download(urls, path, known)
        except DataError as error:
            hint = by_hand(name, root)
            if seal.exists():
                hint += f"; remove {seal} if it is not the digest of the right file"
            raise DataError(name, found=error.found, expected=error.expected, hint=hint) from error
    elif known and (found := file_hash(path, known)) != known:
        hint = f"move it away, or {seal.name} if the file is right"
        raise DataError(f"{path}", found=found, expected=known, hint=hint)
    return path


def _unpack_checked(name: str, source: Source, archive: Path, target: Path) -> None:
    """Unpack beside, check, then rename: ``target`` is whole or absent."""
    assert source.holds is not None  # by the caller
    staging = archive.parent / f".{name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        unpack(archive, source.holds, staging)
        _check(name, staging)
        _write_about(staging / ABOUT, name, file_hash(archive))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _seal(source: Source, archive: Path) -> None:
    seal = archive.with_name(f"{archive.name}.sha256")
    if source.known_hash is None and not seal.exists():
        digest = file_hash(archive).removeprefix("sha256:")
        atomic_write(seal, lambda file: file.write(f"{digest}  {archive.name}\n".encode()))
        print(f"{archive.name}: no published checksum; trusted on first use, SHA-256 {digest} kept in {seal}")


def _first_word(seal: Path) -> str:
    words = " ".join(read_lines(seal, "a SHA-256 digest")).split()
    if not words or len(words[0]) != 64:
        raise DataError(f"{seal}", found=" ".join(words)[:40] or "nothing", expected="a SHA-256 digest")
    return words[0]


def _write_about(path: Path, name: str, digest: str) -> None:
    source = _source(name)
    text = f"{name}, from {source.url}\n{source.file}: {digest}\n\n{terms(name)}\n"
    atomic_write(path, lambda file: file.write(text.encode()))


def _check(name: str, path: Path) -> str:
    if SOURCES[name].holds is None:
        return _check_file(name, path)
    return _check_images(name, path) if name.endswith("-images") else _check_features(name, path)


def _check_file(name: str, path: Path) -> str:
    known = SOURCES[name].known_hash or ""
    found = file_hash(path, known)
    if found != known:
        raise DataError(f"{path}", found=found, expected=known, hint="move it away and fetch again")
    return f"{path}: {known}, as published"


def _check_features(name: str, folder: Path) -> str:
    dataset, size = xlsa17.read(folder, name), SIZES[name]
    assert dataset.features is not None  # of this layout
    where = str(xlsa17.feature_file(folder))
    counted = {
        "images": (len(dataset), size.images),
        "dimensions of features": (dataset.features.shape[1], FEATURES),
    }
    _expect_counts(where, counted)
    where = str(xlsa17.split_file(folder, "att"))
    sets = {key: (len(getattr(dataset, key)), getattr(size, key)) for key in INDEX_SETS[:3]}
    classes = {"seen": len(dataset.seen), "unseen": len(dataset.unseen), "classes": len(dataset.semantics)}
    of_size = {key: (found, getattr(size, key)) for key, found in classes.items()}
    _expect_counts(where, {**sets, **of_size, "description": (dataset.semantics.shape[1], size.description)})
    bytes_, split = SPLITS[name]
    if dataset.digests["split"] == bytes_:
        return f"{dataset!r}; att_splits.mat as known"
    if split_digest(dataset) != split:
        raise DataError(where, found="another split", expected="the Proposed Split, by its digest")
    return f"{dataset!r}; att_splits.mat is another file than the one we know, with the same split"


def _expect_counts(where: str, counts: Mapping[str, tuple[int, int | None]]) -> None:
    for key, (found, expected) in counts.items():
        if expected is not None and found != expected:
            raise DataError(f"{where}: {key}", found=found, expected=expected)


def _check_images(name: str, folder: Path) -> str:
    found = find_images(folder)
    missing = [file for file in found.names if not (found.folder / file).is_file()]
    if missing:
        raise DataError(f"{found.folder}", found=f"{len(missing)} images missing", expected=missing[0])
    expected = SIZES[name.removesuffix("-images")].images
    _expect_counts(str(found.listing), {"images": (len(found.names), expected)})
    return f"{len(found.names)} images in {folder}"


def _joined(name: str, root: Path | None) -> str:
    """Whether each example of the benchmark finds its image."""
    benchmark = name.removesuffix("-images")
    try:
        return f"joined to {load(benchmark, root, images=True)!r}"
    except DataError as error:
        return f"not joined to {benchmark}: {error}"
