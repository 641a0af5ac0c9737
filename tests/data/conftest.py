"""A small made-up benchmark in the xlsa17 layout, to be broken in one place at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

CLASSES = ("001.Auk", "002.Bee_eater", "003.Crow", "004.Dove", "005.Eagle", "006.Finch")
PER_CLASS, D, K = 10, 7, 4


def column(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.uint16).reshape(-1, 1)


def cells(strings: list[str] | tuple[str, ...]) -> np.ndarray:
    out = np.empty((len(strings), 1), dtype=object)
    out[:, 0] = strings
    return out


class World:
    """Six classes of ten: four seen (of them one is ``val``), two unseen; ``train_loc`` leaks as AWA2's.

    ``data`` and ``split`` are what the two MAT files will hold: change them, then :meth:`write`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        n = PER_CLASS * len(CLASSES)
        labels = np.repeat(np.arange(len(CLASSES)), PER_CLASS)
        where, order = np.arange(1, n + 1), np.arange(n) % PER_CLASS
        self.files = [f"{CLASSES[c]}/{i:04d}.jpg" for c, i in zip(labels, order, strict=True)]
        self.data: dict[str, Any] = {
            "features": rng.random((D, n)),
            "labels": column(labels + 1),
            "image_files": cells([f"/BS/elsewhere/images/{name}" for name in self.files]),
        }
        self.split: dict[str, Any] = {
            "att": rng.random((K, len(CLASSES))),
            "allclasses_names": cells(CLASSES),
            "trainval_loc": column(where[(labels < 4) & (order >= 2)]),
            "test_seen_loc": column(where[(labels < 4) & (order < 2)]),
            "test_unseen_loc": column(where[labels >= 4]),
            "train_loc": column(where[labels < 3]),
            "val_loc": column(where[labels == 3]),
        }

    @property
    def data_path(self) -> Path:
        return self.folder / "res101.mat"

    @property
    def split_path(self) -> Path:
        return self.folder / "att_splits.mat"

    def write(self) -> Path:
        scipy.io.savemat(self.data_path, self.data, do_compression=True)
        scipy.io.savemat(self.split_path, self.split)
        return self.folder

    def write_images(self, folder: Path | None = None, side: int = 12) -> Path:
        """CUB-200-2011's layout, one flat colour an image."""
        folder = folder or self.folder
        for i, name in enumerate(self.files):
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side + 4, side), (i, 100, 200)).save(path, quality=95)
        ids = range(1, len(self.files) + 1)
        labels = self.data["labels"].ravel()
        self._list(folder / "images.txt", ids, self.files)
        self._list(folder / "image_class_labels.txt", ids, labels)
        self._list(folder / "classes.txt", range(1, 1 + len(CLASSES)), CLASSES)
        return folder

    @staticmethod
    def _list(path: Path, ids: Any, values: Any) -> None:
        lines = [f"{i} {value}" for i, value in zip(ids, values, strict=True)]
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "CUB")
