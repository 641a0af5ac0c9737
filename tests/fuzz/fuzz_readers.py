"""Fuzzing of all that reads files: ``make fuzz SECONDS=60``.

Whatever bytes a file holds, a reader gives what it should or raises DataError; it raises nothing else, and
writes nowhere but where it should. A target takes an empty folder and the bytes. To run one target only, or
the input that it failed on::

    python tests/fuzz/fuzz_readers.py --seconds 600 zip
    python tests/fuzz/fuzz_readers.py --input _build/fuzz/zip-crash-0123 zip
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec

if __name__ == "__main__" and "--input" not in sys.argv and find_spec("atheris"):
    import atheris

    with atheris.instrument_imports(include=["zipfile", "tarfile", "tomllib"]):
        import tarfile
        import tomllib  # noqa: F401
        import zipfile
    import scipy.io
    import torch  # their branches are too many to follow

    with atheris.instrument_imports(include=["zsl_lib"]):
        import zsl_lib.data.fetch
        import zsl_lib.learn
        import zsl_lib.record  # noqa: F401

import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch
from PIL import Image

from zsl_lib import record
from zsl_lib.data import imagenet21k, load, manifest, wordnet
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.data.fetch import mirrors
from zsl_lib.data.images import find_images, read_image
from zsl_lib.data.unpack import unpack
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "_build" / "fuzz"
BETWEEN = b"\n--\n"  # the files of a target that reads several


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def bytes_of(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def npy(values: object, dtype: str) -> bytes:
    return bytes_of(lambda file: np.save(file, np.array(values, dtype)))


def mat(**values: object) -> bytes:
    return bytes_of(lambda file: scipy.io.savemat(file, values))


# --- small files of each kind: four examples, three classes, the last one unseen --------------------------

FEATURES = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]
ARRAYS = {
    "x.npy": npy(FEATURES, "float32"),
    "y.npy": npy([0, 0, 1, 2], "int64"),
    "s.npy": npy([[1, 0], [0, 1], [1, 1]], "float32"),
    "a.npy": npy([0, 2], "int64"),
    "b.npy": npy([1], "int64"),
    "c.npy": npy([3], "int64"),
    "names.txt": b"one\ntwo\nthree\n",
}
TOML = b"""labels = "y.npy"
class_names = "names.txt"
[features]
x = "x.npy"
[semantics]
att = "s.npy"
[index]
trainval = "a.npy"
test_seen = "b.npy"
test_unseen = "c.npy"
"""
RES101 = mat(
    features=np.array(FEATURES).T,
    labels=np.array([[1], [1], [2], [3]]),
    image_files=np.array([["a/1.jpg"], ["a/2.jpg"], ["b/3.jpg"], ["c/4.jpg"]], dtype=object),
)
SPLITS = mat(
    att=np.array([[1.0, 0, 1], [0, 1, 1]]),
    original_att=np.array([[100.0, 0, 70], [0, 100, 70]]),
    allclasses_names=np.array([["a"], ["b"], ["c"]], dtype=object),
    trainval_loc=np.array([[1], [3]]),
    test_seen_loc=np.array([[2]]),
    test_unseen_loc=np.array([[4]]),
)
LISTS = (b"1 a/1.jpg\n2 b/2.jpg\n", b"1 1\n2 2\n", b"1 a\n2 b\n")
RECORD = {
    "experiment": "fuzz",
    "dataset": "toy",
    "method": "abp",
    "seed": 0,
    "parameters": {"epochs": 1},
    "metrics": {"T1": 50.0},
    "curves": {"epoch": [1, 2], "T1": [40.0, 50.0]},
    "selection": "none",
    "seconds": 1.0,
    "peak_memory_mb": 1.0,
    "device": "cpu",
    "digests": {"data": "0" * 64},
    "git_commit": "unknown",
    "versions": {"torch": "2"},
    "command": "pytest",
}


def zipped(compression: int) -> bytes:
    def save(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name in ("set/data/a.txt", "set/data/deep/b.txt", "readme"):
                archive.writestr(name, name * 3)

    return bytes_of(save)


def tarred(form: int) -> bytes:
    def save(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name in ("set/data/a.txt", "set/data/" + 110 * "b" + "/ü.txt", "readme"):
                info = tarfile.TarInfo(name)
                info.size = 3
                archive.addfile(info, io.BytesIO(b"abc"))

    return bytes_of(save)


def picture(form: str) -> bytes:
    return bytes_of(lambda file: Image.new("RGB", (6, 4), (200, 30, 90)).save(file, form))


def parquet() -> bytes:
    pa, pq = (__import__(name, fromlist=["_"]) for name in ("pyarrow", "pyarrow.parquet"))
    columns = {f"f{i}": column for i, column in enumerate(np.array(FEATURES, "float32").T)}
    return bytes_of(lambda file: pq.write_table(pa.table(columns), file))


def hdf5(**values: object) -> bytes:
    """Each a data set; a tuple of strings becomes a cell array, as MATLAB writes it."""
    h5py = __import__("h5py")

    def save(file: io.BytesIO) -> None:
        with h5py.File(file, "w") as content:
            for key, value in values.items():
                if not isinstance(value, tuple):
                    content[key] = value
                    continue
                cells = content.create_dataset(key, (len(value), 1), dtype=h5py.ref_dtype)
                for i, word in enumerate(value):
                    codes = np.frombuffer(word.encode("utf-16-le"), dtype="<u2")[:, None]
                    cells[i, 0] = content.create_dataset(f"#refs#/{i}", data=codes).ref

    return bytes_of(save)


WNIDS = (*wordnet.load().seen[:2], sorted(set(wordnet.load().classes) - set(wordnet.load().seen))[0])


@cache
def imagenet() -> dict[str, bytes]:
    """ImageNet-21K's files with three classes."""
    words = hdf5(w2v=np.ones((2, 3)), no_w2v_loc=np.array([[2.0]]), wnids=WNIDS)
    val = {"features_val": np.array(FEATURES[:1]), "labels_val": np.array([[1.0]])}
    features = hdf5(features=np.array(FEATURES).T, labels=np.array([[1.0, 1, 3, 3]]), **val)
    one = np.array([[3.0]])
    splits = mat(hops2=one, hops3=one, all=one)
    return {imagenet21k.WORDS: words, "res101.mat": features, imagenet21k.SPLITS: splits}


# --- the targets ---------------------------------------------------------------------------------------


def expect_dataset(found: ZSLDataset) -> None:
    assert len(found) > 0
    assert found.features is not None
    assert len(found.features) == len(found)


def features_mat(folder: Path, content: bytes) -> None:
    write(folder, {"res101.mat": content, "att_splits.mat": SPLITS})
    expect_dataset(load(folder.name, folder.parent))


def splits_mat(folder: Path, content: bytes) -> None:
    write(folder, {"res101.mat": RES101, "att_splits.mat": content})
    expect_dataset(load(folder.name, folder.parent))


def manifest_toml(folder: Path, content: bytes) -> None:
    write(folder, ARRAYS | {"dataset.toml": content})
    expect_dataset(manifest.read(folder, "mine"))


def features_npy(folder: Path, content: bytes) -> None:
    write(folder, ARRAYS | {"dataset.toml": TOML, "x.npy": content})
    expect_dataset(manifest.read(folder, "mine"))


def labels_npy(folder: Path, content: bytes) -> None:
    write(folder, ARRAYS | {"dataset.toml": TOML, "y.npy": content})
    expect_dataset(manifest.read(folder, "mine"))


def names_txt(folder: Path, content: bytes) -> None:
    """The texts beside the arrays: names of classes, and of attributes as xlsa17 has them."""
    write(folder, ARRAYS | {"dataset.toml": TOML, "names.txt": content})
    with suppress(DataError):
        expect_dataset(manifest.read(folder, "mine"))
    (folder / "dataset.toml").unlink()
    write(folder, {"res101.mat": RES101, "att_splits.mat": SPLITS, "attributes.txt": content})
    expect_dataset(load(folder.name, folder.parent))


def features_parquet(folder: Path, content: bytes) -> None:
    toml = TOML.replace(b'"x.npy"', b'"x.parquet"')
    write(folder, ARRAYS | {"dataset.toml": toml, "x.parquet": content})
    expect_dataset(manifest.read(folder, "mine"))


def one_of_imagenet(file: str) -> Callable[[Path, bytes], None]:
    """That file of ImageNet-21K's, the others as they should be."""

    def target(folder: Path, content: bytes) -> None:
        write(folder, imagenet() | {file: content})
        expect_dataset(imagenet21k.read(folder))

    return target


def record_json(folder: Path, content: bytes) -> None:
    (folder / "fuzz").mkdir()
    write(folder / "fuzz", {"toy-abp-0.json": content})
    assert len(record.curves(record.read_records(folder))) >= 0


def image_lists(folder: Path, content: bytes) -> None:
    parts = [*content.split(BETWEEN), b"", b""]
    write(folder, dict(zip(("images.txt", "image_class_labels.txt", "classes.txt"), parts, strict=False)))
    found = find_images(folder)
    assert len(found.match("here", found.names)) == len(found.names)


def image(folder: Path, content: bytes) -> None:
    write(folder, {"a.jpg": content})
    assert read_image(folder / "a.jpg", 8).shape == (3, 8, 8)


def zip_archive(folder: Path, content: bytes) -> None:
    write(folder, {"a.zip": content})
    unpack(folder / "a.zip", "set/data", folder / "new")


def tgz_archive(folder: Path, content: bytes) -> None:
    """Raw, or what is to be compressed: mutations of compressed bytes rarely get past the checksum."""
    write(folder, {"a.tgz": content if content[:1] == b"\x1f" else gzip.compress(content, 1)})
    unpack(folder / "a.tgz", "set/data", folder / "new")


def mirrors_toml(folder: Path, content: bytes) -> None:
    write(folder, {"mirrors.toml": content})
    assert all(url.startswith("http") for url in mirrors(folder, "a.zip"))


def checkpoint(folder: Path, content: bytes) -> None:
    write(folder, {"abp.pt": content})
    tiny = ABPConfig(latent_dim=1, hidden=2, langevin_steps=1, epochs=1)
    ABP(tiny, device="cpu").fit(FEW, checkpoint=folder / "abp.pt", progress=False)


FEW = ZSLDataset(
    name="few",
    features=torch.tensor(FEATURES),
    labels=torch.tensor([0, 0, 1, 2]),
    semantics=torch.eye(3),
    class_names=("one", "two", "three"),
    trainval=torch.tensor([0, 2]),
    test_seen=torch.tensor([1]),
    test_unseen=torch.tensor([3]),
)


def saved_checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with suppress(DataError):
            checkpoint(Path(folder), b"")
        (Path(folder) / "abp.pt").unlink()
        tiny = ABPConfig(latent_dim=1, hidden=2, langevin_steps=1, epochs=1)
        ABP(tiny, device="cpu").fit(FEW, checkpoint=Path(folder) / "abp.pt", progress=False)
        return (Path(folder) / "abp.pt").read_bytes()


# name: the target, and files to begin with (a function, where they take long to make)
TARGETS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[], list[bytes]]]] = {
    "features_mat": (features_mat, lambda: [RES101]),
    "splits_mat": (splits_mat, lambda: [SPLITS]),
    "manifest_toml": (manifest_toml, lambda: [TOML]),
    "features_npy": (features_npy, lambda: [ARRAYS["x.npy"], npy(FEATURES, "float16"), npy([1], "int8")]),
    "labels_npy": (labels_npy, lambda: [ARRAYS["y.npy"], npy([[0.0, 0, 1, 2]], "float64")]),
    "names_txt": (
        names_txt,
        lambda: [ARRAYS["names.txt"], b"1 has_wing::long\n2 red\n", "é\n".encode("latin-1")],
    ),
    "features_parquet": (features_parquet, lambda: [parquet()]),
    "imagenet_words": (one_of_imagenet(imagenet21k.WORDS), lambda: [imagenet()[imagenet21k.WORDS]]),
    "imagenet_features": (one_of_imagenet("res101.mat"), lambda: [imagenet()["res101.mat"]]),
    "imagenet_splits": (one_of_imagenet(imagenet21k.SPLITS), lambda: [imagenet()[imagenet21k.SPLITS]]),
    "record_json": (record_json, lambda: [json.dumps(RECORD).encode()]),
    "image_lists": (image_lists, lambda: [BETWEEN.join(LISTS)]),
    "image": (image, lambda: [picture("JPEG"), picture("PNG"), picture("GIF")]),
    "zip": (zip_archive, lambda: [zipped(zipfile.ZIP_STORED), zipped(zipfile.ZIP_DEFLATED)]),
    "tgz": (
        tgz_archive,
        lambda: [
            *(tarred(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)),
            gzip.compress(tarred(tarfile.PAX_FORMAT)),
        ],
    ),
    "mirrors_toml": (mirrors_toml, lambda: [b'"a.zip" = ["https://mirror.example/a.zip"]\n']),
    "checkpoint": (checkpoint, lambda: [saved_checkpoint()]),
}


def try_once(name: str, content: bytes, parent: Path) -> bool:
    """Whether the bytes were read; False for a DataError. Any other exception is a finding.

    The target works in a folder below ``parent``, beside which nothing may appear.
    """
    folder = parent / "in"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        TARGETS[name][0](folder, content)
        return True
    except DataError:
        return False
    finally:
        assert os.listdir(parent) == ["in"], f"written outside: {os.listdir(parent)}"


# --- the runs ------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="try this file only")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.input:
        return _try_file(options.targets[0], options.input)
    if find_spec("atheris") is None:
        print("make fuzz: found no atheris; there is one for Linux on x86-64: pip install 'zsl-book[fuzz]'")
        return 1
    failed = [name for name in options.targets or TARGETS if not _run(name, options.seconds)]
    print(f"fuzzed; failed: {', '.join(failed) or 'none'}")
    return bool(failed)


def _try_file(name: str, path: Path) -> int:
    with tempfile.TemporaryDirectory() as parent:
        print("read" if try_once(name, path.read_bytes(), Path(parent)) else "refused with DataError")
    return 0


def _run(name: str, seconds: int) -> bool:
    """One target in a process of its own, which libFuzzer ends as it likes."""
    print(f"==> {name}", flush=True)
    with tempfile.TemporaryDirectory() as parent:
        child = os.fork()
        if child == 0:
            _fuzz(name, seconds, Path(parent))
        return os.waitpid(child, 0)[1] == 0


def _fuzz(name: str, seconds: int, parent: Path) -> None:
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name][1]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    torch.set_num_threads(1)
    limits = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=6000", "-max_len=65536"]
    where = f"-artifact_prefix={FOLDER / name}-"
    words = [sys.argv[0], *limits, where, "-print_final_stats=1", "-verbosity=0", str(corpus)]
    atheris.Setup(words, lambda content: try_once(name, content, parent))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
