"""The embedded data set *hangul*: letter shapes of Hangul syllables in free typefaces.

Made by ``python -m zsl_lib.data.hangul.render`` (images, index sets) and
``python -m zsl_lib.learn.backbone`` (features); see README.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.hangul.files import HERE, open_archive
from zsl_lib.data.hangul.syllables import ATTRIBUTE_NAMES, attributes
from zsl_lib.errors import DataError

__all__ = ["load"]

DISTORTION = ("rotation", "shear", "shift_x", "shift_y", "scale", "contrast", "blur")


def load(images: bool = False, semantics: str = "att", *, root: Path | None = None) -> ZSLDataset:
    """Read *hangul* from the archives inside the package.

    Parameters
    ----------
    images: also unpack the images, uint8 ``[N, 1, 32, 32]``, light ink on 0.
    semantics: ``"att"`` is all there is: one-hot letters, float32 ``[C, 68]``.
    root: folder with the archives, for tests.

    Returns
    -------
    Features (float32 ``[N, D]``, of the committed backbone), semantics, index sets, and for each image
    ``instances``: ``font`` (typeface), ``family``, ``rotation`` (degrees), ``shear``, ``shift_x`` and
    ``shift_y`` (pixels), ``scale``, ``contrast`` (factors) and ``blur`` (pixels).

    Raises
    ------
    DataError: if an archive is missing or altered, or for other semantics.
    """
    if semantics != "att":
        raise DataError("hangul: semantics", found=repr(semantics), expected="'att'")
    folder = HERE if root is None else root
    data, data_sha = open_archive(folder / "images.npz")
    features, features_sha = open_archive(folder / "features.npz")
    splits, split_sha = open_archive(folder / "splits.npz")
    names = tuple(str(s) for s in data["class_names"])
    return ZSLDataset(
        name="hangul",
        labels=torch.from_numpy(data["labels"].astype(np.int64)),
        semantics=torch.from_numpy(attributes(names)),
        class_names=names,
        features=torch.from_numpy(features["features"].astype(np.float32)),
        images=torch.from_numpy(data["images"])[:, None] if images else None,
        attribute_names=ATTRIBUTE_NAMES,
        points=torch.full((len(names),), 100.0, dtype=torch.float64),
        instances=_instances(data),
        digests={"data": data_sha, "features": features_sha, "split": split_sha},
        **{key: torch.from_numpy(splits[key].astype(np.int64)) for key in INDEX_SETS},
    )


def _instances(data: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    font = data["font"]
    out = {"font": data["typefaces"][font], "family": data["families"][font]}
    return out | {key: data[key] for key in DISTORTION}
