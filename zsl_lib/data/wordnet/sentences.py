"""The table of sentence embeddings of ImageNet-21K's classes that is inside the package.

Made by :mod:`zsl_lib.models.sentence_encoder`, which says how.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from zsl_lib.data.wordnet import HERE, load
from zsl_lib.errors import DataError

TABLE = HERE / "sentences.npz"


def sentence_embeddings(path: Path = TABLE) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Synsets and their embeddings ``[21842, 96]`` from the table of the package, rows of length 1.

    Raises
    ------
    DataError: the file is missing or damaged, or its parts do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            codes, scale = archive["codes"], archive["scale"]
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types on a damaged file
        found = f"no archive of arrays ({type(error).__name__}: {error})"
        raise DataError(str(path), found=found, expected="codes and scale", hint="git checkout it") from None
    wnids = load().classes
    if codes.dtype != np.int8 or codes.shape != (len(wnids), len(scale)):
        found = f"{codes.dtype} of shape {codes.shape}"
        raise DataError(f"{path}: codes", found=found, expected=f"int8 [{len(wnids)}, {len(scale)}]")
    rows = codes.astype(np.float32) * scale
    return wnids, rows / np.linalg.norm(rows, axis=1, keepdims=True)
