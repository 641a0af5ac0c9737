"""Data sets: one container, and readers for the embedded and the published ones."""

from __future__ import annotations

import os
from pathlib import Path

from zsl_lib.data import imagenet21k, manifest, toy, xlsa17
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.files import project_root

__all__ = ["EMBEDDED", "ZSLDataset", "data_root", "find_folder", "load"]

EMBEDDED = ("hangul", "toy")
LAYOUTS = ("", "xlsa17/data", "cvpr18xian/data")  # as the publishers' archives unpack


def load(
    name: str,
    root: str | Path | None = None,
    *,
    semantics: str = "att",
    features: str | None = None,
    images: bool = False,
    image_size: int = 224,
) -> ZSLDataset:
    """A data set by name.

    Parameters
    ----------
    name: ``"hangul"`` (embedded), ``"toy"`` (generated), or a folder of ``root`` in the layout of the
        xlsa17 benchmark: CUB, AWA1, AWA2, SUN, APY, FLO, or one of your own; or a folder with a
        ``dataset.toml`` (:mod:`zsl_lib.data.manifest`) or with ImageNet-21K's files
        (:mod:`zsl_lib.data.imagenet21k`).
    root: where those folders are; the environment's ``ZSL_DATA_DIR`` if None, else ``data``.
    semantics: which class descriptions, e.g. ``"att"`` for ``att_splits.mat``.
    features: which feature file, e.g. ``"res101"``; None takes ``res101.mat``, else the only other one, or
        the first of ``dataset.toml``. Of ImageNet-21K it is the set of unseen classes, ``"2-hops"`` if None.
    images: give the images too.
    image_size: height and width in pixels of images read from JPEGs (hangul and toy have their own).

    Raises
    ------
    DataError: unknown name (lists what is there), or a file that cannot be used.
    """
    if name == "hangul":
        from zsl_lib.data import hangul  # its archive is read only when asked for

        return hangul.load(images=images, semantics=semantics)
    if name == "toy":
        return toy.load(images=images, semantics=semantics)
    folder = find_folder(name, data_root(root))
    is_imagenet = (folder / imagenet21k.WORDS).exists()
    if images and (is_imagenet or (folder / manifest.MANIFEST).exists()):
        raise DataError(f"{folder}: images", found="none in this layout", expected="images=False")
    if is_imagenet:
        return imagenet21k.read(folder, name, semantics=semantics, classes=features or "2-hops")
    if (folder / manifest.MANIFEST).exists():
        return manifest.read(folder, name, semantics=semantics, features=features)
    return xlsa17.read(
        folder, name, semantics=semantics, features=features, images=images, image_size=image_size
    )


def data_root(root: str | Path | None = None) -> Path:
    """``root``, else the environment's ``ZSL_DATA_DIR``, else ``data``.

    A relative path is one from the current folder, or from the project's root if it is not there: so a
    notebook finds the same data whatever folder it runs in.
    """
    path = Path(root if root is not None else os.environ.get("ZSL_DATA_DIR") or "data").expanduser()
    return path if path.is_absolute() or path.exists() else project_root() / path


def find_folder(name: str, root: Path) -> Path:
    """``root/name``, or where the publishers' archives put it below ``root``."""
    for layout in LAYOUTS:
        folder = root / layout / name
        if name and folder.is_dir():
            return folder
    there = [*EMBEDDED, *_folders(root)]
    hint = (
        f"get CUB, AWA1, AWA2, SUN, APY or FLO with `python -m zsl_lib.data fetch NAME --root {root}`; "
        "see the book's data page"
    )
    raise DataError(
        f"data set {name!r}", found=f"no folder {root / name}", expected=_one_of(there), hint=hint
    )


def _folders(root: Path) -> list[str]:
    """Names below ``root`` that hold a MAT file or a manifest."""
    kinds = ("*/*.mat", f"*/{manifest.MANIFEST}")
    return sorted({p.parent.name for layout in LAYOUTS for kind in kinds for p in (root / layout).glob(kind)})


def _one_of(names: list[str]) -> str:
    return f"one of {', '.join(names)}"
