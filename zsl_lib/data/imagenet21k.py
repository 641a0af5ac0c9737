"""Reader for ImageNet-21K as the field passes it on: MAT v7.3 (HDF5) features and word vectors, class sets.

::

    imagenet21k/
      ImageNet_w2v.mat      w2v, wnids, no_w2v_loc: word vectors of C classes (Changpinyo et al., CVPR 2016)
      any other *.mat       features, labels; optional features_val, labels_val
      ImageNet_splits.mat   optional, MAT v5: hops2, hops3, all, mp500 … lp5000 (Xian et al., TPAMI 2019)
      imagenet-testsets.json  optional: the class sets of Kampffmeyer et al. (CVPR 2019)

MATLAB stores a matrix column by column, so HDF5 shows it transposed: ``w2v`` is ``[K, C]`` there. ``wnids``
holds C references to strings. Labels count from 1 and are rows of ``wnids``, in all files; ``no_w2v_loc``
numbers the classes without a word vector. ``features`` occur as ``[N, D]`` and as ``[D, N]``, even in one
file; the number of labels tells which. ``features_val`` are those of ILSVRC 2012's validation images.

None of these files is at hand for the book's own checks: the layout is what five public programs read, and
the tests make small files like them.

Features go once through memory, a block of rows at a time, into one .npy file in float32 (in ``zsl_cache``,
beside them), which is then mapped: peak memory is a block and eight bytes a label, whatever N is.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import scipy.io
import torch
from torch import Tensor

from zsl_lib.data import mat, wordnet
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.data.wordnet.sentences import sentence_embeddings
from zsl_lib.data.xlsa17 import sha256
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

WORDS = "ImageNet_w2v.mat"
SPLITS = "ImageNet_splits.mat"
SETS = "imagenet-testsets.json"
CACHE = "zsl_cache"
SEMANTICS = ("w2v", "sent")
SIZES = (500, 1000, 5000)
ROWS = 4096  # of features, read at a time
KEYS = {"2-hops": "hops2", "3-hops": "hops3", "all": "all"} | {
    f"{side}-{n}": f"{side[0]}p{n}" for side in ("most", "least") for n in SIZES
}
A_FILE = "a MAT file of version 7.3 (HDF5)"
Array = npt.NDArray[Any]


def read(
    folder: Path | str,
    name: str = "imagenet21k",
    *,
    classes: str = "2-hops",
    semantics: str = "w2v",
    per_class: int | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
) -> ZSLDataset:
    """The 1,000 seen classes and one of the protocol's sets of unseen ones.

    ``trainval`` are the examples of seen classes, ``test_seen`` those of ``features_val``, ``test_unseen``
    those of the set. Classes without a description are left out.

    Parameters
    ----------
    classes: an entry of :func:`class_sets`, e.g. ``"2-hops"``, ``"most-500"``.
    semantics: ``"w2v"``, the file's word vectors, or ``"sent"``, the book's sentence embeddings.
    per_class: examples a class at most, in each index set, drawn by ``seed``; None takes all.
    cache: folder for the converted features; beside the data if None.

    Raises
    ------
    DataError: a file is missing or cannot be used, or two disagree; names file and key.
    ImportError: h5py is not installed.
    """
    folder = Path(folder)
    words = read_words(folder / WORDS)
    sources = _sources(folder, len(words.wnids))
    table, described = _semantics(words, semantics)
    sets = class_sets(folder, words, sources)
    if classes not in sets:
        raise DataError(f"{folder}: classes", found=repr(classes), expected=f"one of {', '.join(sets)}")
    wanted = {
        "trainval": (words.seen & described, False),
        "test_seen": (words.seen & described, True),
        "test_unseen": (_mask(sets[classes], len(words.wnids)) & described, False),
    }
    parts = [
        (part, source, rows)
        for part, (kept, val) in wanted.items()
        for source in sources
        if source.val == val and len(rows := source.rows(kept, per_class, seed))
    ]
    if lost := [part for part in wanted if part not in {p for p, *_ in parts}]:
        found = f"no example of {lost[0]} in {', '.join(sorted({s.path.name for s in sources}))}"
        expected = {"test_seen": "features_val and labels_val of seen classes"}.get(lost[0], "some")
        raise DataError(str(folder), found=found, expected=expected)
    digests = _digests(folder, sources)
    stem = hashlib.sha256(repr((digests, classes, semantics, per_class, seed)).encode()).hexdigest()[:16]
    path = Path(cache or folder / CACHE) / f"{stem}.npy"
    if not path.exists():
        _convert(path, [(source, rows) for _, source, rows in parts])
    labels = np.concatenate([source.labels[rows] for _, source, rows in parts])
    sizes = {key: sum(len(rows) for part, _, rows in parts if part == key) for key in wanted}
    index = dict(zip(sizes, torch.arange(len(labels)).split(list(sizes.values())), strict=True))
    try:
        return ZSLDataset(
            name=name,
            features=_mapped(path),
            labels=torch.from_numpy(labels),
            semantics=table,
            class_names=tuple(f"{w} {wordnet.load().name(w)}" for w in words.wnids),
            digests=digests,
            **index,
        )
    except DataError as error:  # the container knows fields; the reader knows which files they came from
        files = ", ".join(dict.fromkeys(source.where for _, source, _ in parts))
        raise error.at(error.where.replace(f"{name}: features", files)) from None


@dataclass(frozen=True)
class Words:
    """``ImageNet_w2v.mat``: synsets of the C classes, word vectors ``[C, K]``, which classes have one."""

    wnids: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which of the classes are among the 1,000."""
        return np.isin(self.wnids, wordnet.load().seen)


def read_words(path: Path) -> Words:
    """Word vectors and synsets of the classes.

    Raises
    ------
    DataError: the file or a key cannot be used, an unknown synset, or shapes that do not fit.
    """
    with _open(path) as file:
        wnids = _strings(file, path, "wnids")
        vectors = _matrix(file, path, "w2v")
        if vectors.shape[1] != len(wnids):
            hint = (
                "it looks transposed: HDF5 shows MATLAB's [C, K] as [K, C]"
                if len(vectors) == len(wnids)
                else ""
            )
            found, expected = f"shape {vectors.shape}", f"[K, {len(wnids)}], a column a synset of wnids"
            raise DataError(f"{path}: w2v", found=found, expected=expected, hint=hint)
        lost: Any = _numbers(file, path, "no_w2v_loc", len(wnids)) if "no_w2v_loc" in file else []
        table = np.ascontiguousarray(vectors[()].T, dtype=np.float32)
    known = set(wordnet.load().classes)
    strange = [w for w in wnids if w not in known]
    if strange or len(set(wnids)) < len(wnids):
        found = f"{strange[0]!r}" if strange else "a synset twice"
        raise DataError(f"{path}: wnids", found=found, expected="each of ImageNet-21K's synsets once")
    present = ~_mask(lost, len(wnids)) & table.any(1)
    bad = ~np.isfinite(table).all(1) & present
    if bad.any():
        found = f"NaN or infinite values in {int(bad.sum())} classes, e.g. {wnids[int(bad.argmax())]}"
        raise DataError(f"{path}: w2v", found=found, expected="finite values, or the class in no_w2v_loc")
    table[~present] = 0
    return Words(wnids, table, present)


def class_sets(
    folder: Path | str, words: Words | None = None, sources: list[Source] | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """The protocol's sets of unseen classes, as ascending rows of ``wnids``.

    ``2-hops``, ``3-hops``, ``all``: from ``ImageNet_splits.mat`` if it is there, else from
    ``imagenet-testsets.json``, else from WordNet (:func:`zsl_lib.data.wordnet.hop_sets`).
    ``most-500`` … ``least-5000``: from ``ImageNet_splits.mat``, else by the numbers of labels in the folder;
    absent where there are fewer unseen classes with labels.

    Raises
    ------
    DataError: a file cannot be used.
    """
    folder = Path(folder)
    words = words or read_words(folder / WORDS)
    sources = sources if sources is not None else _sources(folder, len(words.wnids))
    counts = sum((np.bincount(s.labels, minlength=len(words.wnids)) for s in sources if not s.val), 0)
    sets = populated(np.where(words.seen, 0, counts))
    if (folder / SPLITS).exists():
        return sets | _published_splits(folder / SPLITS, len(words.wnids))
    if (folder / SETS).exists():
        named = wordnet.published_sets(folder / SETS)
    else:
        named = dict(wordnet.hop_sets(wordnet.imagenet_tree(wordnet.load())))
    return {h: np.flatnonzero(np.isin(words.wnids, named[h])) for h in wordnet.HOPS} | sets


def populated(counts: Any, sizes: tuple[int, ...] = SIZES) -> dict[str, npt.NDArray[np.int64]]:
    """``most-n`` and ``least-n``: the n classes with most and with fewest images, for each n of ``sizes``.

    Classes without an image are in none. Equal counts are told apart by the number of the class, the lower
    first. A size above the number of classes with images is left out.

    Parameters
    ----------
    counts: images of each class, whole numbers ``[C]``; 0 for those that are not to be chosen.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or (len(counts) and counts.min() < 0):
        found = f"{counts.dtype} of shape {counts.shape}"
        raise DataError("populated: counts", found=found, expected="numbers of images [C], 0 or more")
    present = np.flatnonzero(counts)
    ordered = {
        "most": present[np.argsort(-counts[present].astype(np.int64), kind="stable")],
        "least": present[np.argsort(counts[present], kind="stable")],
    }
    chosen = ((side, n, order) for side, order in ordered.items() for n in sizes if n <= len(order))
    return {f"{side}-{n}": np.sort(order[:n]) for side, n, order in chosen}


@dataclass(frozen=True)
class Source:
    """A matrix of features on disk that has been looked at and not read, with its labels from 0."""

    path: Path
    key: str
    shape: tuple[int, int]
    labels: npt.NDArray[np.int64]
    val: bool

    @property
    def where(self) -> str:
        return f"{self.path}: {self.key}"

    @property
    def width(self) -> int:
        """D."""
        return self.shape[0] if self.transposed else self.shape[1]

    @property
    def transposed(self) -> bool:
        """Whether HDF5 shows ``[D, N]``."""
        return self.shape[0] != len(self.labels)

    def rows(self, kept: npt.NDArray[np.bool_], per_class: int | None, seed: int) -> npt.NDArray[np.int64]:
        """Examples of the classes ``kept``, ascending, at most ``per_class`` of each."""
        rows = np.flatnonzero(kept[self.labels])
        if per_class is None:
            return rows
        rows = np.random.default_rng(seed).permutation(rows)
        ordered = rows[np.argsort(self.labels[rows], kind="stable")]
        starts = np.searchsorted(self.labels[ordered], self.labels[ordered])
        return np.sort(ordered[np.arange(len(ordered)) - starts < per_class])

    def blocks(self, rows: npt.NDArray[np.int64]) -> Iterator[Array]:
        """Those rows in order, some at a time, float32 ``[n, D]``."""
        with _open(self.path) as file:
            data = file[self.key]
            step = self._step(data)
            for start in range(0, len(self.labels), step):
                first, last = np.searchsorted(rows, [start, start + step])
                if first < last:
                    block = data[:, start : start + step].T if self.transposed else data[start : start + step]
                    with np.errstate(over="ignore"):  # what is too large is infinite, and refused so
                        yield np.ascontiguousarray(block[rows[first:last] - start], dtype=np.float32)

    def _step(self, data: Any) -> int:
        """About :data:`ROWS`, whole chunks of the file, so that each is read once."""
        chunk = data.chunks[1 if self.transposed else 0] if data.chunks else 1
        return max(chunk, ROWS // chunk * chunk)


def _sources(folder: Path, n_classes: int) -> list[Source]:
    """All matrices of features in the folder."""
    if not folder.is_dir():
        raise DataError(str(folder), found="no such folder", expected=f"{WORDS} and files of features")
    paths = sorted(p for p in folder.glob("*.mat") if p.name not in (WORDS, SPLITS))
    sources = [source for path in paths for source in _sources_of(path, n_classes)]
    if not sources:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
        raise DataError(str(folder), found=f"only {found}", expected="a MAT file with features and labels")
    widths = {source.width: source.where for source in sources}
    if len(widths) > 1:
        (one, at), (other, there) = list(widths.items())[:2]
        raise DataError(there, found=f"D = {other}", expected=f"D = {one}, as in {at}")
    return sources


def _sources_of(path: Path, n_classes: int) -> Iterator[Source]:
    with _open(path) as file:
        for suffix in ("", "_val"):
            if suffix and f"features{suffix}" not in file:
                continue
            labels = _numbers(file, path, f"labels{suffix}", n_classes)
            data = _matrix(file, path, f"features{suffix}")
            if data.shape.count(len(labels)) != 1:
                both = (
                    "as many rows as columns as labels"
                    if len(labels) in data.shape
                    else f"shape {data.shape}"
                )
                expected = f"[N, D] or [D, N] with N = {len(labels)}, the labels, and another D"
                raise DataError(f"{path}: features{suffix}", found=both, expected=expected)
            yield Source(path, f"features{suffix}", data.shape, labels, bool(suffix))


def _semantics(words: Words, semantics: str) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Descriptions ``[C, K]`` in the order of ``wnids``, and which classes have one."""
    if semantics in ("w2v", "att"):  # "att" is load()'s default: the publisher's own
        return torch.from_numpy(words.vectors), words.present
    if semantics != "sent":
        expected = f"one of {', '.join(SEMANTICS)}"
        raise DataError("imagenet21k: semantics", found=repr(semantics), expected=expected)
    wnids, table = sentence_embeddings()
    row = {w: i for i, w in enumerate(wnids)}
    return torch.from_numpy(table[[row[w] for w in words.wnids]]), np.ones(len(words.wnids), dtype=bool)


def _published_splits(path: Path, n_classes: int) -> dict[str, npt.NDArray[np.int64]]:
    """The sets of ``ImageNet_splits.mat`` that it has."""
    try:
        mat.check(path, KEYS.values())
        content = scipy.io.loadmat(path, variable_names=list(KEYS.values()))
    except Exception as error:  # scipy raises a dozen types on a damaged file
        found = f"a truncated or damaged file ({type(error).__name__}: {error})"
        raise DataError(str(path), found=found, expected="a MAT file of version 5") from error
    there = {name: key for name, key in KEYS.items() if key in content}
    if not set(wordnet.HOPS) <= set(there):
        raise DataError(
            str(path), found=f"keys {', '.join(there.values()) or 'none'}", expected="hops2, hops3, all"
        )
    return {
        name: np.sort(_from_one(content[key], f"{path}: {key}", n_classes)) for name, key in there.items()
    }


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """An HDF5 file; h5py and its C library raise half a dozen types on a damaged one."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(f"h5py: {error}; pip install 'zsl-book[formats]'") from error
    if not path.is_file():
        there = (
            ", ".join(sorted(p.name for p in path.parent.iterdir())[:8])
            if path.parent.is_dir()
            else "nothing"
        )
        raise DataError(str(path), found="no such file", expected=A_FILE, hint=f"beside it: {there}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        UnicodeError,
        MemoryError,
        OverflowError,
    ) as error:
        found = f"a truncated or damaged file, or another format ({type(error).__name__}: {error})"
        raise DataError(str(path), found=found, expected=A_FILE) from error


def _matrix(file: Any, path: Path, key: str) -> Any:
    """A data set of numbers with two axes, unread."""
    data = file.get(key)
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if (
        data is None
        or shape is None
        or len(shape) != 2
        or 0 in shape
        or getattr(dtype, "kind", "O") not in "fiu"
    ):
        found = (
            f"{dtype} of shape {shape}"
            if data is not None
            else f"only {', '.join(list(file)[:8]) or 'nothing'}"
        )
        raise DataError(f"{path}: {key}", found=found, expected="a matrix of numbers")
    return data


def _numbers(file: Any, path: Path, key: str, n_classes: int) -> npt.NDArray[np.int64]:
    """Numbers of classes from 1, given back from 0."""
    return _from_one(_matrix(file, path, key)[()], f"{path}: {key}", n_classes)


def _from_one(values: Array, where: str, n_classes: int) -> npt.NDArray[np.int64]:
    if min(values.shape) > 1:
        raise DataError(where, found=f"shape {values.shape}", expected="one row or one column")
    flat = values.ravel()
    if flat.dtype.kind not in "fiu" or not np.isfinite(flat).all() or (flat != np.round(flat)).any():
        raise DataError(where, found="what is no whole number", expected="whole numbers")
    if len(flat) and (flat.min() < 1 or flat.max() > n_classes):
        hint = "they count from 1 in this layout" if flat.min() == 0 else ""
        found, expected = f"{flat.min():.0f}..{flat.max():.0f}", f"1..{n_classes}, rows of wnids in {WORDS}"
        raise DataError(where, found=found, expected=expected, hint=hint)
    return flat.astype(np.int64) - 1


def _strings(file: Any, path: Path, key: str) -> tuple[str, ...]:
    """A cell array of strings: references to arrays of character codes."""
    data = file.get(key)
    if getattr(data, "dtype", None) is None or data.dtype.kind != "O":
        there = ", ".join(list(file)[:8]) or "nothing"
        raise DataError(f"{path}: {key}", found=f"no cell array; the file has {there}", expected="C strings")
    codes = [np.ravel(file[reference][()]) for reference in np.ravel(data[()])]
    return tuple("".join(map(chr, code.tolist())) for code in codes)


def _mask(rows: Any, n: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def _convert(path: Path, parts: list[tuple[Source, npt.NDArray[np.int64]]]) -> None:
    """The chosen rows, one part after the other, as one .npy file in float32: whole or absent."""
    shape = (sum(len(rows) for _, rows in parts), parts[0][0].width)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        for source, rows in parts:
            for block in source.blocks(rows):
                file.write(block.astype("<f4", copy=False).tobytes())

    try:
        atomic_write(path, write)
    except PermissionError as error:
        hint = "cache=... names another folder"
        raise DataError(
            str(path.parent), found=str(error), expected="a folder to write to", hint=hint
        ) from None


def _mapped(path: Path) -> Tensor:
    array = np.load(path, mmap_mode="c", allow_pickle=False)  # writes would go to memory, never to the file
    return torch.from_numpy(array)


def _digests(folder: Path, sources: list[Source]) -> Mapping[str, str]:
    """SHA-256 of the feature files, and of the files that say which class is what."""
    files = {"data": sorted({source.path for source in sources})}
    files["split"] = [p for p in (folder / n for n in (WORDS, SPLITS, SETS)) if p.exists()]
    return {
        key: hashlib.sha256("".join(sha256(path) for path in paths).encode()).hexdigest()
        for key, paths in files.items()
    }
