"""Features of your own: a manifest over .npy, Parquet and Zarr."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsl_lib.data import ZSLDataset, load, manifest
from zsl_lib.data.dataset import INDEX_SETS
from zsl_lib.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
zarr = pytest.importorskip("zarr")

PAGE = Path(__file__).parents[2] / "book" / "data.md"


def write(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".zarr":
        zarr.save_array(path, array)
    else:
        columns = array if array.ndim == 2 else array[:, None]
        pq.write_table(pa.table({f"f{i}": c for i, c in enumerate(columns.T)}), path, row_group_size=17)


class Mine:
    """A folder ``mine`` with a manifest; change ``files`` or ``text``, then :meth:`load`."""

    def __init__(self, folder: Path, suffix: str = ".npy") -> None:
        self.folder, self.data = folder, small_dataset()
        d = self.data
        tune = {
            "train": d.trainval[d.labels[d.trainval] != d.seen[0]],
            "val": d.trainval[d.labels[d.trainval] == d.seen[0]],
        }
        self.arrays = {
            "features": d.features.numpy(),
            "labels": d.labels.numpy(),
            "semantics": d.semantics.numpy(),
            **{key: tune.get(key, getattr(d, key)).numpy() for key in INDEX_SETS},
        }
        folder.mkdir()
        for key, array in self.arrays.items():
            write(folder / f"{key}{suffix}", array)
        (folder / "classes.txt").write_text("\n".join(d.class_names) + "\n", encoding="utf-8")
        index = "\n".join(f'{key} = "{key}{suffix}"' for key in INDEX_SETS)
        self.text = (
            f'labels = "labels{suffix}"\nclass_names = "classes.txt"\n[features]\nmine = "features{suffix}"\n'
            f'[semantics]\natt = "semantics{suffix}"\n[index]\n{index}\n'
        )

    def replace(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)

    def load(self, **options: str) -> ZSLDataset:
        (self.folder / "dataset.toml").write_text(self.text, encoding="utf-8")
        return load("mine", self.folder.parent, **options)

    def message(self, **options: str) -> str:
        with pytest.raises(DataError) as caught:
            self.load(**options)
        return str(caught.value)


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    return Mine(tmp_path / "mine")


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".zarr"])
def test_each_format_gives_what_was_written(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROWS", 10)  # several blocks
    mine = Mine(tmp_path / "mine", suffix)
    d = mine.load()
    assert d.name == "mine"
    for key, array in mine.arrays.items():
        np.testing.assert_array_equal(getattr(d, key).numpy(), array)
    assert d.class_names == mine.data.class_names
    assert d.features.dtype == d.semantics.dtype == torch.float32
    assert d.tuning_split().features is d.features
    assert {key: len(value) for key, value in d.digests.items()} == {"data": 64, "split": 64}


def test_digests_tell_features_from_split(mine):
    before = mine.load().digests
    write(mine.folder / "features.npy", mine.arrays["features"] * 2)
    after = mine.load().digests
    assert (before["data"] != after["data"], before["split"] == after["split"]) == (True, True)
    (mine.folder / "classes.txt").write_text("\n".join(f"c{i}" for i in range(8)))
    assert mine.load().digests["split"] != after["split"]


def test_float32_stays_on_disk_and_the_file_is_never_written(mine):
    before = (mine.folder / "features.npy").read_bytes()
    d = mine.load()
    d.features.zero_()
    assert (mine.folder / "features.npy").read_bytes() == before
    write(mine.folder / "features.npy", mine.arrays["features"].astype(np.float16))
    assert mine.load().features.dtype == torch.float32


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_features(mine):
    def own_megabytes() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3

    n = len(mine.arrays["labels"])
    write(mine.folder / "features.npy", np.ones((n, 400_000), dtype=np.float32))
    assert (mine.folder / "features.npy").stat().st_size > 100e6
    before = own_megabytes()
    d = mine.load()
    assert own_megabytes() - before < 40
    assert d.features.shape == (n, 400_000)


def test_one_table_holds_all(mine):
    d = mine.data
    table = {f"clip{i}": column for i, column in enumerate(d.features.numpy().T)}
    table["label"] = d.labels.numpy()
    table["lists"] = list(d.features.numpy())
    pq.write_table(pa.table(table), mine.folder / "examples.parquet", row_group_size=11)
    mine.replace('mine = "features.npy"', 'mine = "examples.parquet:clip*"\nlists = "examples.parquet:lists"')
    mine.replace('"labels.npy"', '"examples.parquet:label"')
    assert torch.equal(mine.load().features, d.features)
    assert torch.equal(mine.load(features="lists").features, d.features)
    assert torch.equal(mine.load().labels, d.labels)


def test_names_masks_and_the_choice_of_semantics(mine):
    mask = np.ones(mine.arrays["features"].shape, dtype=bool)
    mask[3, 2] = False
    write(mine.folder / "mask.npy", mask)
    write(mine.folder / "features.npy", np.where(mask, mine.arrays["features"], np.nan))
    (mine.folder / "names.txt").write_text("a\nb\nc\nd\n")
    write(mine.folder / "sent.npy", np.ones((8, 9)))
    mine.replace('class_names = "classes.txt"', 'mask = "mask.npy"\nattribute_names = "names.txt"')
    mine.replace("[semantics]", '[semantics]\nsent = "sent.npy"')
    d = mine.load()
    assert d.class_names[:2] == ("class 0", "class 1")
    assert d.attribute_names == ("a", "b", "c", "d")
    assert not d.mask[3, 2]
    mine.replace('attribute_names = "names.txt"', "")
    assert mine.load(semantics="sent").semantics.shape == (8, 9)
    assert "dataset.toml: semantics: found no w2v, expected one of: sent, att" in mine.message(
        semantics="w2v"
    )
    assert "dataset.toml: features: found no clip, expected one of: mine" in mine.message(features="clip")


def _saved(name: str, change: Callable) -> Callable:
    return lambda m: write(m.folder / name, change(m.arrays[name.split(".")[0]]))


def _text(name: str, text: str) -> Callable:
    return lambda m: (m.folder / name).write_text(text)


def _at(index: tuple[int, ...], value: float) -> Callable:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(float)
        array[index] = value
        return array

    return change


BAD = {
    "no TOML": (lambda m: m.replace("[features]", "[features"), "dataset.toml: found no TOML"),
    "unknown key": (lambda m: m.replace("labels =", "label ="), "dataset.toml: label: found an unknown key"),
    "no labels": (
        lambda m: m.replace('labels = "labels.npy"\n', ""),
        "dataset.toml: labels: found no labels",
    ),
    "no features": (
        lambda m: m.replace('mine = "features.npy"', ""),
        "features: found no entry, expected one of: none",
    ),
    "no test set": (
        lambda m: m.replace('test_unseen = "test_unseen.npy"', ""),
        "index: found no test_unseen",
    ),
    "unknown index": (
        lambda m: m.replace("val =", "valid ="),
        "dataset.toml: index: found trainvalid, valid",
    ),
    "no file name": (lambda m: m.replace('"labels.npy"', "3"), "labels: found 3, expected a file name"),
    "no table": (lambda m: m.replace("[features]\nmine = ", "features = "), "expected a table of file names"),
    "no such file": (
        lambda m: (m.folder / "labels.npy").unlink(),
        "labels.npy: found no such file, expected an array (beside it: ",
    ),
    "another kind": (
        lambda m: m.replace("labels.npy", "classes.txt"),
        "classes.txt: found a .txt file, expected one of .npy",
    ),
    "a vector": (
        _saved("features.npy", np.ravel),
        "features.npy: found float32 of shape (432,), expected a matrix of numbers",
    ),
    "text": (_saved("features.npy", lambda a: a.astype(str)), "features.npy: found <U"),
    "transposed": (
        _saved("features.npy", np.transpose),
        "features.npy: found 6 rows, expected 72, one a label",
    ),
    "NaN": (_saved("features.npy", _at((3, 1), np.nan)), "features.npy: found 1 NaN or infinite values"),
    "too large": (_saved("features.npy", _at((3, 1), 1e300)), "features.npy: found 1 NaN or infinite values"),
    "labels from 1": (_saved("labels.npy", lambda a: a + 1), "labels.npy: found labels 1..8, expected 0..7"),
    "half labels": (
        _saved("labels.npy", lambda a: a / 2),
        "labels.npy: found float64, not all of them whole",
    ),
    "a matrix of labels": (
        _saved("labels.npy", lambda a: a.reshape(2, -1)),
        "labels.npy: found shape (2, 36)",
    ),
    "shared indices": (
        _saved("test_seen.npy", lambda a: np.concatenate([a, [0, 1, 2, 3, 4, 5, 6, 7]])),
        "trainval.npy and ",
    ),
    "an index too many": (_saved("trainval.npy", lambda a: a + 1000), "trainval.npy: found indices 1"),
    "too few names": (_text("classes.txt", "a\nb\n"), "classes.txt: found 2 names, expected 8, one a class"),
    "names in Latin-1": (
        lambda m: (m.folder / "classes.txt").write_bytes(b"\xe9"),
        "classes.txt: found no text",
    ),
    "truncated": (
        lambda m: (m.folder / "features.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00"),
        "features.npy: found a truncated or damaged file",
    ),
    "empty": (_text("labels.npy", ""), "labels.npy: found a truncated or damaged file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_file(case, mine):
    change, expected = BAD[case]
    change(mine)
    assert expected in mine.message()


def test_a_pickle_is_never_loaded(mine):
    np.save(mine.folder / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "labels.npy: found a truncated or damaged file (ValueError" in mine.message()


@pytest.mark.parametrize(
    ("columns", "table", "expected"),
    [
        ("clip*", {"x": [1.0]}, "t.parquet:clip*: found no such column, expected of x"),
        ("*", {"x": ["text"]}, "t.parquet:*: found object of shape (1, 1), expected a matrix of numbers"),
        ("*", {"x": [[1.0, 2.0], [3.0]]}, "t.parquet:*: found lists of lengths [2, 1], expected one length"),
    ],
)
def test_bad_parquet(columns, table, expected, mine):
    pq.write_table(pa.table(table), mine.folder / "t.parquet")
    mine.replace('mine = "features.npy"', f'mine = "t.parquet:{columns}"')
    assert expected in mine.message()


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_damaged_parquet_and_zarr(suffix, tmp_path):
    mine = Mine(tmp_path / "mine", suffix)
    path = mine.folder / f"features{suffix}"
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        file.write_bytes(file.read_bytes()[:20])
    assert f"features{suffix}: found a truncated or damaged file" in mine.message()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), byte=st.integers(0, 255), suffix=st.sampled_from([".npy", ".parquet"]))
def test_one_damaged_byte_never_escapes_as_another_error(position, byte, suffix, tmp_path_factory):
    mine = Mine(tmp_path_factory.mktemp("m") / "mine", suffix)
    path = mine.folder / f"features{suffix}"
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] = byte
    path.write_bytes(bytes(content))
    with suppress(DataError):
        assert len(mine.load()) == 72


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    mine = Mine(tmp_path / "mine", ".zarr")

    def broken(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(manifest.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=r"zarr: no zarr; pip install 'zsl-book\[formats\]'"):
        mine.load()


def test_it_has_no_images_and_is_listed_by_name(mine):
    mine.load()
    with pytest.raises(DataError, match="mine: images: found none in this layout"):
        load("mine", mine.folder.parent, images=True)
    with pytest.raises(DataError, match="one of hangul, toy, mine"):
        load("yours", mine.folder.parent)


def test_the_example_of_the_page_is_read(mine):
    text = PAGE.read_text(encoding="utf-8")
    example = next(block for block in text.split("```toml\n")[1:] if "[semantics]" in block).split("```")[0]
    assert set(tomllib.loads(example)) <= {*manifest.FILES, *manifest.TABLES}
    for name, key in {
        "clip": "features",
        "att": "semantics",
        **{key: key for key in ("labels", *INDEX_SETS)},
    }.items():
        if f'"{name}.npy"' in example:
            write(mine.folder / f"{name}.npy", mine.arrays[key])
    table = {f"dino{i}": column for i, column in enumerate(mine.arrays["features"].T)}
    pq.write_table(pa.table(table), mine.folder / "examples.parquet")
    (mine.folder / "attributes.txt").write_text("a\nb\nc\nd\n")
    mine.text = example
    assert torch.equal(mine.load().features, mine.load(features="dino").features)
