"""Reader for the layout of the xlsa17 benchmark (Xian et al., TPAMI 2019): two MAT files in one folder.

``res101.mat`` (or another feature file): ``features [D, N]``, ``labels [N, 1]`` from 1, ``image_files``.
``att_splits.mat``: ``att [K, C]`` (one column a class), ``allclasses_names``, and 1-based index sets
``trainval_loc``, ``test_seen_loc``, ``test_unseen_loc``, and perhaps ``train_loc`` and ``val_loc``.

Every inconsistency is a :class:`~zsl_lib.errors.DataError` that names file, key, found and expected.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io
import torch
from torch import Tensor

from zsl_lib.data import mat
from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.images import ImageFiles, find_images
from zsl_lib.data.text import read_lines
from zsl_lib.errors import DataError

Array = npt.NDArray[Any]
DEFAULT_FEATURES = "res101.mat"
SPLITS = "_splits.mat"
ATTRIBUTE_FILES = ("attributes.txt", "predicates.txt", "attributes/attributes.txt")
A_MAT_FILE = "a MAT file of version 5 or 7"
HOW_TO_CONVERT = (
    "save it with -v7 in MATLAB, or convert its numbers in Python: scipy.io.savemat('new.mat', "
    "{k: v[()].T for k, v in h5py.File('old.mat').items() if hasattr(v, 'dtype') and v.dtype.kind in 'fiu'})"
)


def read(
    folder: Path,
    name: str,
    *,
    semantics: str = "att",
    features: str | None = None,
    images: bool = False,
    image_size: int = 224,
) -> ZSLDataset:
    """Read ``<features>.mat`` and ``<semantics>_splits.mat`` of ``folder``.

    Parameters
    ----------
    folder: holds the two files.
    name: of the data set, for messages and records.
    semantics: ``"att"`` reads ``att_splits.mat``, ``"sent"`` reads ``sent_splits.mat``.
    features: the feature file, with or without ``.mat``; None takes ``res101.mat``, else the only other
        MAT file.
    images: match ``image_files`` to JPEGs on disk and give them as ``images``, read when asked for.
    image_size: height and width of those, in pixels.

    Raises
    ------
    DataError: a file or key is missing or cannot be used, or two of them disagree.
    """
    data_path, split_path = feature_file(folder, features), split_file(folder, semantics)
    data = _load(data_path, ("features", "labels", "image_files", "mask"))
    split = _load(
        split_path, ("att", "original_att", "allclasses_names", *(f"{key}_loc" for key in INDEX_SETS))
    )
    labels = _labels(data_path, data)
    att, class_names = _semantics(split_path, split, int(labels.max()))
    _expect_semantics(data_path, split_path, labels, class_names)
    values, mask = _features(data_path, data, len(labels))
    index = {key: _index(split_path, split, key, len(labels), data_path) for key in INDEX_SETS}
    where = {key: f"{split_path}: {key}_loc" for key in INDEX_SETS}
    try:
        dataset = ZSLDataset(
            name=name,
            features=values,
            labels=torch.from_numpy(labels - 1),
            semantics=torch.from_numpy(att),
            class_names=class_names,
            mask=mask,
            attribute_names=_attribute_names(folder, att.shape[1]),
            points=_points(split_path, split, att),
            digests={"data": sha256(data_path), "split": sha256(split_path)},
            trainval=index["trainval"],
            test_seen=index["test_seen"],
            test_unseen=index["test_unseen"],
            train=index["train"],
            val=index["val"],
        )
    except DataError as error:  # the container knows fields; the reader knows which file they came from
        raise error.at(name_files(error.where, name, where)) from None
    if not images:
        return dataset
    return replace(dataset, images=_images(data_path, data, folder, dataset, image_size))


def feature_file(folder: Path, features: str | None = None) -> Path:
    """The feature file of ``folder``: as named, else ``res101.mat``, else the only one there is."""
    if features is not None:
        return folder / f"{features.removesuffix('.mat')}.mat"
    if (folder / DEFAULT_FEATURES).exists():
        return folder / DEFAULT_FEATURES
    others = sorted(p for p in folder.glob("*.mat") if not p.name.endswith(SPLITS))
    if len(others) == 1:
        return others[0]
    if not others:
        raise DataError(
            f"{folder / DEFAULT_FEATURES}", found=f"no feature file, only {_listing(folder)}", expected="one"
        )
    names = ", ".join(p.name for p in others)
    hint = "choose one, e.g. features=" + repr(others[0].stem)
    raise DataError(
        f"{folder}", found=f"several feature files ({names})", expected=f"{DEFAULT_FEATURES}", hint=hint
    )


def split_file(folder: Path, semantics: str) -> Path:
    """``<semantics>_splits.mat`` of ``folder``."""
    path = folder / f"{semantics}{SPLITS}"
    if path.exists():
        return path
    there = [p.name.removesuffix(SPLITS) for p in sorted(folder.glob(f"*{SPLITS}"))]
    hint = f"semantics={' or '.join(map(repr, there))}" if there else f"{folder} holds {_listing(folder)}"
    raise DataError(f"{path}", found="no such file", expected=f"{semantics}{SPLITS}", hint=hint)


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(p.name for p in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Array]:
    """Those of ``keys`` that the MAT file holds."""
    _expect_mat(path)
    try:
        mat.check(path, keys)
        return scipy.io.loadmat(path, variable_names=keys)
    except Exception as error:  # scipy raises a dozen types on a damaged file, zlib's and struct's too
        reason = f"a truncated or damaged file ({type(error).__name__}: {error})"
        raise DataError(
            f"{path}", found=reason, expected=A_MAT_FILE, hint="fetch or save it again"
        ) from error


def _expect_mat(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}", found="a directory", expected=A_MAT_FILE)
    if not path.exists():
        there = _listing(path.parent) if path.parent.is_dir() else "no such folder"
        raise DataError(f"{path}", found="no such file", expected=A_MAT_FILE, hint=f"beside it: {there}")
    with path.open("rb") as file:
        head = file.read(128)
    if not head:
        raise DataError(f"{path}", found="an empty file", expected=A_MAT_FILE, hint="fetch it again")
    if head.startswith((b"MATLAB 7.3 MAT-file", b"\x89HDF\r\n")):
        raise DataError(
            f"{path}", found="a MAT file of version 7.3 (HDF5)", expected=A_MAT_FILE, hint=HOW_TO_CONVERT
        )
    if head[126:128] not in (b"IM", b"MI"):  # the byte-order mark of version 5
        raise DataError(f"{path}", found=f"a file that starts with {head[:16]!r}", expected=A_MAT_FILE)


def _require(path: Path, content: dict[str, Array], key: str) -> Array:
    if key not in content:
        there = ", ".join(k for k, *_ in scipy.io.whosmat(path)) or "none"
        raise DataError(f"{path}: {key}", found="no such key", expected=key, hint=f"keys there: {there}")
    return content[key]


def _numbers(path: Path, content: dict[str, Array], key: str) -> Array:
    """A dense numeric matrix."""
    value = _require(path, content, key)
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim == 2
    if not numeric:
        found = f"{type(value).__name__} of {getattr(value, 'dtype', '?')}, shape {np.shape(value)}"
        raise DataError(f"{path}: {key}", found=found, expected="a dense numeric matrix")
    return value


def _integers(path: Path, content: dict[str, Array], key: str) -> npt.NDArray[np.int64]:
    """A row or column of whole numbers, as int64 ``[n]``."""
    value = _numbers(path, content, key)
    if min(value.shape) > 1:
        raise DataError(f"{path}: {key}", found=f"shape {value.shape}", expected="one row or one column")
    flat = value.ravel()
    whole = np.isfinite(flat).all() and bool((flat == np.round(flat)).all())
    if not whole:
        raise DataError(f"{path}: {key}", found="fractions, NaN or infinity", expected="whole numbers")
    with np.errstate(invalid="ignore"):  # what is too large becomes a number out of range, and is refused so
        return flat.astype(np.int64)


def _strings(path: Path, content: dict[str, Array], key: str) -> tuple[str, ...]:
    """A cell array of strings (or a char matrix)."""
    value = _require(path, content, key)
    cells = [np.ravel(cell) for cell in np.ravel(value)]
    empty = sum(cell.size != 1 or not isinstance(cell[0], str) for cell in cells)
    if empty:
        found = f"{empty} of {len(cells)} cells that hold no string"
        raise DataError(f"{path}: {key}", found=found, expected="a cell array of strings")
    return tuple(str(cell[0]).strip() for cell in cells)


def _labels(path: Path, content: dict[str, Array]) -> npt.NDArray[np.int64]:
    """Labels from 1, int64 ``[N]``."""
    labels = _integers(path, content, "labels")
    if len(labels) == 0:
        raise DataError(f"{path}: labels", found="no label", expected="one an example")
    if labels.min() < 1:
        hint = "labels count from 1 in this layout: add 1" if labels.min() == 0 else ""
        found = f"labels {labels.min()}..{labels.max()}"
        raise DataError(f"{path}: labels", found=found, expected="labels from 1", hint=hint)
    return labels


def _features(path: Path, content: dict[str, Array], n: int) -> tuple[Tensor, Tensor | None]:
    """float32 ``[N, D]`` and bool ``[N, D]`` or None; entries under a False mask become 0."""
    raw = _numbers(path, content, "features")
    if raw.shape[1] != n or raw.shape[0] == 0:
        hint = "it looks transposed: save features.T" if raw.shape[0] == n else ""
        raise DataError(
            f"{path}: features", found=f"shape {raw.shape}", expected=f"[D, {n}], a column a label", hint=hint
        )
    mask = _mask(path, content, raw.shape) if "mask" in content else None
    _expect_finite(f"{path}: features", raw, mask)
    content.pop("features")  # AWA2 in float64 is 0.6 GB: do not keep it beside the copy
    values = np.ascontiguousarray(raw.T, dtype=np.float32)
    if mask is None:
        return torch.from_numpy(values), None
    values[~mask.T] = 0
    return torch.from_numpy(values), torch.from_numpy(np.ascontiguousarray(mask.T))


def _mask(path: Path, content: dict[str, Array], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask = _numbers(path, content, "mask")
    if mask.shape != shape:
        raise DataError(f"{path}: mask", found=f"shape {mask.shape}", expected=f"the features' {shape}")
    if not np.isin(mask, (0, 1)).all():
        raise DataError(f"{path}: mask", found=f"values {mask.min()}..{mask.max()}", expected="0 and 1")
    return mask.astype(bool)


def _expect_finite(where: str, raw: Array, mask: npt.NDArray[np.bool_] | None = None) -> None:
    limit = np.finfo(np.float32).max
    if raw.size and -limit <= raw.min() and raw.max() <= limit:  # false for NaN; needs no memory
        return
    bad = ~(np.abs(raw) <= limit)
    if mask is not None:
        bad &= mask
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        found = f"{int(bad.sum())} NaN or infinite values, the first in row {row + 1}, column {column + 1}"
        raise DataError(where, found=found, expected="finite values (in float32)")


def _semantics(
    path: Path, content: dict[str, Array], top: int
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """float32 ``[C, K]`` and C names; numbered names where the file has none, as FLO's.

    ``top`` is the highest label: where there are no names, it alone can tell a transposed matrix.
    """
    att = _numbers(path, content, "att")
    named = "allclasses_names" in content
    names = _strings(path, content, "allclasses_names") if named else _numbered(att.shape[1])
    transposed = att.shape[0] == (len(names) if named else top) and att.shape[1] != att.shape[0]
    if (named and att.shape[1] != len(names)) or (not named and transposed and att.shape[1] != top):
        c = len(names) if named else top
        hint = "it looks transposed: save att.T" if transposed else ""
        raise DataError(
            f"{path}: att", found=f"shape {att.shape}", expected=f"[K, {c}], a column a class", hint=hint
        )
    _expect_finite(f"{path}: att", att)
    zero = [name for name, column in zip(names, att.T, strict=True) if not column.any()]
    if zero:
        found = f"{len(zero)} classes without semantics, all zero ({', '.join(zero[:3])})"
        raise DataError(f"{path}: att", found=found, expected="a description of each class")
    return np.ascontiguousarray(att.T, dtype=np.float32), names


def _points(path: Path, content: dict[str, Array], att: npt.NDArray[np.float32]) -> Tensor | None:
    """Points of 100 in one unit of each row of ``att`` ``[C, K]``, float64 ``[C]``, by ``original_att``.

    CUB's and AwA's are percentages, SUN's and APY's shares of 1. None if there is none, or if ``att`` is not
    it with other lengths of its columns.
    """
    if "original_att" not in content:
        return None
    original = _numbers(path, content, "original_att").astype(np.float64)
    if original.shape != att.T.shape:
        return None
    lengths = np.linalg.norm(original, axis=0) / np.linalg.norm(att, axis=1)
    top = np.abs(original).max()
    if not np.allclose(att.T * lengths, original, atol=1e-4 * top) or not lengths.all():
        return None
    return torch.from_numpy(lengths * (100 if top <= 1 else 1))


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(f"class {i + 1}" for i in range(n))


def _expect_semantics(
    data_path: Path, split_path: Path, labels: npt.NDArray[np.int64], names: tuple[str, ...]
) -> None:
    if labels.max() > len(names):
        missing = np.unique(labels[labels > len(names)])
        found = f"labels up to {labels.max()}: {len(missing)} classes without semantics"
        expected = f"1..{len(names)}, the columns of att in {split_path}"
        raise DataError(f"{data_path}: labels", found=found, expected=expected)


def _index(path: Path, content: dict[str, Array], key: str, n: int, data_path: Path) -> Tensor:
    """0-based int64 index set; an absent ``train_loc`` or ``val_loc`` is empty."""
    name = f"{key}_loc"
    if name not in content and key in ("train", "val"):
        return torch.empty(0, dtype=torch.int64)
    index = _integers(path, content, name)
    if len(index) and (index.min() < 1 or index.max() > n):
        hint = "indices count from 1 in this layout: add 1" if index.min() == 0 else ""
        found = f"indices {index.min()}..{index.max()}"
        expected = f"1..{n}, the examples of {data_path}"
        raise DataError(f"{path}: {name}", found=found, expected=expected, hint=hint)
    return torch.from_numpy(index - 1)


def name_files(where: str, name: str, files: dict[str, str]) -> str:
    """``"CUB: trainval and test_seen"`` as file and keys."""
    field = where.removeprefix(f"{name}: ")
    return " and ".join(files.get(part, part) for part in field.split(" and "))


def _attribute_names(folder: Path, k: int) -> tuple[str, ...]:
    """Names from a text file beside, ``<number> <name>`` or ``<name>`` a line, if there are K of them."""
    for candidate in ATTRIBUTE_FILES:
        path = folder / candidate
        if path.is_file():
            lines = [line.split() for line in read_lines(path) if line.strip()]
            names = tuple(" ".join(words[1:] if words[0].isdigit() else words) for words in lines)
            if len(names) == k:
                return names
    return ()


def _images(
    path: Path, content: dict[str, Array], folder: Path, dataset: ZSLDataset, size: int
) -> ImageFiles:
    """The image of each example, by the ``class/file`` tail of its ``image_files`` entry."""
    listed = _strings(path, content, "image_files")
    if len(listed) != len(dataset):
        expected = f"{len(dataset)}, one a label"
        raise DataError(f"{path}: image_files", found=f"{len(listed)} names", expected=expected)
    source = find_images(folder)
    files = source.match(f"{path}: image_files", listed)
    if dataset.class_names == _numbered(len(dataset.class_names)):  # no name to compare with
        return ImageFiles(files, size)
    folders = [file.parent.name for file in files]
    wrong = [
        (folders[i], dataset.class_names[c])
        for i, c in enumerate(dataset.labels.tolist())
        if folders[i] != dataset.class_names[c]
    ]
    if wrong:
        found = f"{len(wrong)} images in another class's folder, e.g. {wrong[0][0]}"
        raise DataError(f"{path}: labels", found=found, expected=f"{wrong[0][1]}, by its label")
    return ImageFiles(files, size)
