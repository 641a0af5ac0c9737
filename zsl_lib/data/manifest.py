"""Reader for your own features: a folder whose ``dataset.toml`` names arrays as .npy, Parquet or Zarr.

::

    labels = "labels.npy"              # [N] whole numbers from 0, rows of the semantics
    class_names = "classes.txt"        # optional: C lines
    attribute_names = "attributes.txt" # optional: K lines
    mask = "mask.npy"                  # optional: [N, D], True where a feature is observed

    [features]                         # one or several; the first is the default
    clip = "clip.npy"                  # [N, D]
    dino = "examples.parquet:dino*"    # the columns of that name, in the file's order

    [semantics]
    att = "att.npy"                    # [C, K]

    [index]                            # numbers of examples from 0; train and val are optional
    trainval = "trainval.npy"
    test_seen = "test_seen.npy"
    test_unseen = "test_unseen.npy"

Paths are relative to the folder. Features in .npy and float32 stay on disk, mapped into memory; all else is
read a block of rows at a time into float32.
"""

from __future__ import annotations

import hashlib
import importlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.text import read_lines
from zsl_lib.data.xlsa17 import name_files, sha256
from zsl_lib.errors import DataError

MANIFEST = "dataset.toml"
FILES = ("labels", "class_names", "attribute_names", "mask")
TABLES = ("features", "semantics", "index")
ROWS = 8192  # read at a time
NONE = torch.empty(0, dtype=torch.int64)
Array = npt.NDArray[Any]


def read(folder: Path, name: str, *, semantics: str = "att", features: str | None = None) -> ZSLDataset:
    """The data set of ``folder/dataset.toml``.

    Parameters
    ----------
    semantics, features: entries of those tables; None takes the first of the features.

    Raises
    ------
    DataError: the manifest or a file cannot be used, or two of them disagree; names the file.
    ImportError: a Parquet or Zarr file without the package that reads it.
    """
    path = folder / MANIFEST
    manifest = _manifest(path)
    features = features or next(iter(manifest.get("features", {})), "")
    files = {
        "features": _file(path, manifest, "features", features),
        "semantics": _file(path, manifest, "semantics", semantics),
        "labels": _file(path, manifest, "labels"),
        **{key: _file(path, manifest, "index", key) for key in INDEX_SETS if _is_given(manifest, key)},
        **{key: _file(path, manifest, key) for key in FILES[1:] if key in manifest},
    }
    table = _matrix(_open(files["semantics"]))
    numbered = tuple(f"class {c}" for c in range(len(table)))
    index = {key: _whole(_open(files[key])) if key in files else NONE for key in INDEX_SETS}
    try:
        return ZSLDataset(
            name=name,
            features=_matrix(_open(files["features"])),
            labels=_whole(_open(files["labels"])),
            semantics=table,
            class_names=_lines(files["class_names"]) if "class_names" in files else numbered,
            attribute_names=_lines(files["attribute_names"]) if "attribute_names" in files else (),
            mask=_mask(_open(files["mask"])) if "mask" in files else None,
            digests=_digests(path, files),
            trainval=index["trainval"],
            test_seen=index["test_seen"],
            test_unseen=index["test_unseen"],
            train=index["train"],
            val=index["val"],
        )
    except DataError as error:  # the container knows fields; the reader knows which file they came from
        raise error.at(name_files(error.where, name, files)) from None


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest's keys, all known ones."""
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # brackets by the thousand recurse
        raise DataError(f"{path}", found=f"no TOML ({error})", expected="a manifest") from None
    for key, value in manifest.items():
        if key not in FILES + TABLES:
            expected = f"one of {', '.join(FILES + TABLES)}"
            raise DataError(f"{path}: {key}", found="an unknown key", expected=expected)
        entries = value if key in TABLES else {key: value}
        if not isinstance(entries, dict) or not all(isinstance(entry, str) for entry in entries.values()):
            kind = "a table of file names" if key in TABLES else "a file name"
            raise DataError(f"{path}: {key}", found=repr(value), expected=kind)
    strangers = set(manifest.get("index", {})) - set(INDEX_SETS)
    if strangers:
        expected = f"of {', '.join(INDEX_SETS)}"
        raise DataError(f"{path}: index", found=", ".join(sorted(strangers)), expected=expected)
    return manifest


def _is_given(manifest: Mapping[str, Any], key: str) -> bool:
    """Whether there is that index set; all but ``train`` and ``val`` must be there."""
    return key in manifest.get("index", {}) or key not in ("train", "val")


def _file(path: Path, manifest: Mapping[str, Any], key: str, entry: str | None = None) -> str:
    """The file that ``key`` names, or the ``entry`` of its table."""
    values = manifest.get(key, {}) if entry is not None else manifest
    wanted = key if entry is None else entry
    if wanted not in values:
        there = ", ".join(values) or "none" if entry is not None else ", ".join(manifest)
        raise DataError(f"{path}: {key}", found=f"no {wanted or 'entry'}", expected=f"one of: {there}")
    return str(path.parent / values[wanted])


@dataclass(frozen=True)
class _Opened:
    """An array that has been looked at and not read. blocks: its rows, some at a time, in order."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]
    mapped: Array | None = None


def _parts(spec: str) -> tuple[Path, str]:
    """``table.parquet:name*`` as file and columns; all of them where none are named."""
    file, colon, columns = spec.partition(".parquet:")
    return (Path(f"{file}.parquet"), columns) if colon else (Path(spec), "*")


def _open(spec: str) -> _Opened:
    path, columns = _parts(spec)
    with _readable(path):  # a name may be longer than a name can be
        if not path.exists():
            beside = sorted(p.name for p in path.parent.iterdir())[:8] if path.parent.is_dir() else []
            hint = f"beside it: {', '.join(beside)}"
            raise DataError(str(path), found="no such file", expected="an array", hint=hint)
    readers: dict[str, Callable[[Path], _Opened]] = {
        ".npy": _npy,
        ".zarr": _zarr,
        ".parquet": partial(_parquet, columns=columns),
    }
    if path.suffix not in readers:
        raise DataError(str(path), found=f"a {path.suffix} file", expected=f"one of {', '.join(readers)}")
    with _readable(path):
        return readers[path.suffix](path)


@contextmanager
def _readable(where: object) -> Iterator[None]:
    """NumPy, pyarrow and zarr raise a dozen types on a damaged file."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        found = f"a truncated or damaged file ({type(error).__name__}: {error})"
        raise DataError(str(where), found=found, expected="an array") from error


def _npy(path: Path) -> _Opened:
    array = np.load(path, mmap_mode="c", allow_pickle=False)  # writes would go to memory, never to the file
    if not isinstance(array, np.ndarray):
        raise DataError(str(path), found=f"a {type(array).__name__}", expected="one array, by numpy.save")
    return _Opened(str(path), array.shape, array.dtype, lambda: _slices(array), array)


def _zarr(path: Path) -> _Opened:
    array = _optional("zarr").open_array(path, mode="r")
    return _Opened(str(path), array.shape, np.dtype(array.dtype), lambda: _slices(array))


def _slices(array: Any) -> Iterator[Array]:
    return (np.asarray(array[i : i + ROWS]) for i in range(0, array.shape[0], ROWS))


def _parquet(path: Path, columns: str) -> _Opened:
    """Columns of numbers side by side, or one column of lists of one length."""
    file = _optional("pyarrow.parquet").ParquetFile(path)
    names = [name for name in file.schema_arrow.names if fnmatchcase(name, columns)]
    where = f"{path}:{columns}"
    if not names:
        raise DataError(
            where, found="no such column", expected=f"of {', '.join(file.schema_arrow.names[:8])}"
        )

    def blocks() -> Iterator[Array]:
        return (_columns(where, batch) for batch in file.iter_batches(ROWS, columns=names))

    first = next(blocks(), np.empty((0, len(names))))
    return _Opened(where, (file.metadata.num_rows, first.shape[1]), first.dtype, blocks)


def _columns(where: str, batch: Any) -> Array:
    """``[n, D]`` of a batch of a Parquet file."""
    columns = batch.columns
    if len(columns) == 1 and _optional("pyarrow.types").is_nested(columns[0].type):
        lengths = _optional("pyarrow.compute").list_value_length(columns[0]).unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise DataError(where, found=f"lists of lengths {lengths[:4]}", expected="one length")
        return np.asarray(columns[0].flatten().to_numpy(zero_copy_only=False)).reshape(len(batch), lengths[0])
    return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)


def _matrix(array: _Opened) -> Tensor:
    """float32 ``[n, m]``; on disk if it is float32 there."""
    if len(array.shape) != 2 or array.dtype.kind not in "fiub":
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(array.where, found=found, expected="a matrix of numbers")
    mapped = array.mapped
    if mapped is not None and mapped.dtype == np.float32 and mapped.flags.c_contiguous and mapped.size:
        return torch.from_numpy(mapped)
    out, row = np.empty(array.shape, np.float32), 0
    with _readable(array.where), np.errstate(over="ignore"):  # what is too large is infinite, and refused so
        for block in array.blocks():
            if block.shape[1:] != array.shape[1:]:
                raise DataError(
                    array.where, found=f"rows of {block.shape[1:]}", expected=f"{array.shape[1:]}"
                )
            out[row : row + len(block)] = block
            row += len(block)
    return torch.from_numpy(out)


def _whole(array: _Opened) -> Tensor:
    """int64 ``[n]`` of a vector, or of a matrix of one row or column."""
    if sum(n > 1 for n in array.shape) > 1 or not array.shape:
        raise DataError(array.where, found=f"shape {array.shape}", expected="one row or one column")
    values = _values(array)
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all() or (values != np.round(values)).any():
        found = f"{values.dtype}, not all of them whole"
        raise DataError(array.where, found=found, expected="whole numbers")
    with np.errstate(invalid="ignore"):  # what is too large becomes a number out of range, and is refused so
        return torch.from_numpy(values.ravel().astype(np.int64))


def _mask(array: _Opened) -> Tensor:
    values = _values(array)
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise DataError(array.where, found="other values", expected="0 and 1, or False and True")
    return torch.from_numpy(values.astype(bool))


def _values(array: _Opened) -> Array:
    with _readable(array.where):
        return np.concatenate([*array.blocks()] or [np.empty(0)])


def _lines(file: str) -> tuple[str, ...]:
    lines = read_lines(Path(file), "a name a line, in UTF-8")
    return tuple(line.strip() for line in lines if line.strip())


def _digests(path: Path, files: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of the features' file, and of the manifest and all other files."""
    rest = [_parts(spec)[0] for key, spec in files.items() if key != "features"]
    return {"data": _sha256(_parts(files["features"])[0]), "split": _sha256(path, *rest)}


def _sha256(*paths: Path) -> str:
    """Of one file; of several, or of a folder, that of their digests."""
    files = [f for p in paths for f in ([p] if p.is_file() else sorted(p.rglob("*"))) if f.is_file()]
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def _optional(name: str) -> ModuleType:
    """A package that only this format needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name}: {error}; pip install 'zsl-book[formats]'") from error
