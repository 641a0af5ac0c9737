"""Get the published benchmarks from their publishers: ``python -m zsl_lib.data.fetch NAME --root data``.

A file whose publisher prints no checksum is trusted on first use: its SHA-256 is printed and written to
``<file>.sha256`` beside it, and every later fetch must match that. Put a digest from a colleague there
to share the trust. Nothing here is needed to read the book: hangul and toy come with it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch

from zsl_lib.data import data_root, load
from zsl_lib.data.images import find_images
from zsl_lib.errors import DataError


@dataclass(frozen=True)
class Archive:
    """A publisher's file.

    url: the publisher's own address. unpacks: what lies below the root afterwards, ``{name}`` being the
    data set. known_hash: ``"md5:…"`` or ``"sha256:…"`` where one is published, else None. images: holds
    images for the data set of that name, not features.
    """

    url: str
    unpacks: str
    known_hash: str | None = None
    images: bool = False

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


XLSA17 = Archive("https://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip", "xlsa17/data/{name}")
CUB_IMAGES = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "CUB_200_2011",
    known_hash="md5:97eceeb196236b17998738112f37df78",
    images=True,
)
ARCHIVES = {
    **dict.fromkeys(("CUB", "AWA1", "AWA2", "SUN", "APY"), XLSA17),
    "FLO": Archive("https://datasets.d2.mpi-inf.mpg.de/xian/cvpr18xian.zip", "cvpr18xian/data/{name}"),
    "CUB-images": CUB_IMAGES,
    "AWA2-images": Archive(
        "https://cvml.ista.ac.at/AwA2/AwA2-data.zip", "Animals_with_Attributes2", images=True
    ),
}


def fetch(name: str, root: Path, archives: dict[str, Archive]) -> Path:
    """Download and unpack ``name`` below ``root`` unless it is there; returns its folder.

    Raises
    ------
    DataError: unknown name, a checksum that does not match, no connection, or an archive that does not
        hold the folder.
    """
    if name not in archives:
        raise DataError(
            f"data set {name!r}", found="nothing to fetch", expected=f"one of {', '.join(archives)}"
        )
    archive = archives[name]
    folder = root / archive.unpacks.format(name=name)
    if folder.is_dir():
        return folder
    path = download(archive, root)
    unpack(path, root)
    if not folder.is_dir():
        raise DataError(f"{path}", found=f"no {folder.relative_to(root)} in it", expected="the data set")
    return folder


def download(archive: Archive, root: Path) -> Path:
    """The archive's file in ``root``, checked against its published or its first-seen digest."""
    seal = root / f"{archive.file}.sha256"
    known = archive.known_hash
    if known is None and seal.exists():
        known = f"sha256:{_first_word(seal)}"
    root.mkdir(parents=True, exist_ok=True)
    try:
        path = Path(pooch.retrieve(archive.url, known, fname=archive.file, path=root, progressbar=True))
    except ValueError as error:  # pooch: the digest differs
        found = f"another file than before or than published ({error})"
        hint = f"remove {seal} if the new file is right" if seal.exists() else "try again later"
        raise DataError(archive.url, found=found, expected=f"{known}", hint=hint) from None
    except OSError as error:  # requests: no connection, 404, a broken transfer
        hint = f"download it by other means to {root / archive.file}"
        raise DataError(archive.url, found=f"no download ({error})", expected="a file", hint=hint) from error
    if known is None:
        digest = pooch.file_hash(str(path), alg="sha256")
        seal.write_text(f"{digest}  {archive.file}\n", encoding="utf-8")
        print(f"{archive.file}: no published checksum; trusted on first use, SHA-256 {digest} kept in {seal}")
    return path


def unpack(path: Path, root: Path) -> None:
    """Unpack beside, then move into ``root``: an interrupted run leaves nothing half-done.

    Files that ``root`` has already stay as they are.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpack-") as temporary:
        try:
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(temporary)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(temporary, filter="data")  # no entry outside the folder
        except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            reason = str(error).partition("\n")[0]
            hint = f"remove {path} and fetch again"
            raise DataError(
                f"{path}", found=f"a damaged archive ({reason})", expected="a whole one", hint=hint
            ) from error
        _merge(Path(temporary), root)


def _merge(source: Path, target: Path) -> None:
    """Move what ``target`` lacks; a file that is there stays."""
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if not there.exists():
            os.replace(entry, there)
        elif entry.is_dir():
            _merge(entry, there)


def _first_word(seal: Path) -> str:
    words = seal.read_text(encoding="utf-8").split()
    if not words or len(words[0]) != 64:
        raise DataError(f"{seal}", found=" ".join(words)[:40] or "nothing", expected="a SHA-256 digest")
    return words[0]


def report(name: str, root: Path, archive: Archive, folder: Path) -> str:
    """What was fetched, read through the same readers as everywhere."""
    if not archive.images:
        return repr(load(name, root))
    data_set = name.removesuffix("-images")
    try:
        return f"{load(data_set, root, images=True)!r}, with images"
    except DataError as error:
        return f"{len(find_images(folder).names)} images in {folder}; not joined to {data_set}: {error}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zsl_lib.data.fetch", description=__doc__)
    parser.add_argument("name", choices=ARCHIVES, help="what to fetch")
    parser.add_argument("--root", type=Path, help="data folder (default: ZSL_DATA_DIR, else data)")
    parser.add_argument("--remove-archive", action="store_true", help="delete the archive afterwards")
    options = parser.parse_args(arguments)
    root, archive = data_root(options.root), ARCHIVES[options.name]
    try:
        folder = fetch(options.name, root, ARCHIVES)
        print(report(options.name, root, archive, folder))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    if options.remove_archive:
        (root / archive.file).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
