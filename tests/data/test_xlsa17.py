"""The reader of the xlsa17 layout: what it reads, and what it says about bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsl_lib.data import ZSLDataset, load
from zsl_lib.data.xlsa17 import sha256
from zsl_lib.errors import DataError


def read(world, **options) -> ZSLDataset:
    world.write()
    return load("CUB", world.folder.parent, **options)


def message(world, **options) -> str:
    with pytest.raises(DataError) as caught:
        read(world, **options)
    return str(caught.value)


def test_reads_what_was_written(world):
    d = read(world)
    assert d.features.dtype == torch.float32
    np.testing.assert_allclose(d.features.numpy(), world.data["features"].T, rtol=1e-6)
    np.testing.assert_allclose(d.semantics.numpy(), world.split["att"].T, rtol=1e-6)
    assert d.class_names[1] == "002.Bee_eater"
    assert d.labels[[0, 10, 59]].tolist() == [0, 1, 5]
    assert d.trainval.tolist() == (world.split["trainval_loc"].ravel() - 1).tolist()
    assert d.digests == {"data": sha256(world.data_path), "split": sha256(world.split_path)}
    assert len(d.digests["data"]) == 64
    assert d.mask is None
    assert d.images is None


def test_labels_may_be_a_row_and_of_any_number_type(world):
    expected = read(world).labels
    for labels in (world.data["labels"].T, world.data["labels"].astype(float)):
        world.data["labels"] = labels
        assert torch.equal(read(world).labels, expected)


def test_tuning_sets_may_be_absent_as_in_one_file_of_cub(world):
    del world.split["train_loc"], world.split["val_loc"]
    d = read(world)
    assert len(d.train) == len(d.val) == 0
    with pytest.raises(DataError, match="train: found no index inside trainval"):
        d.tuning_split()


def test_class_names_may_be_absent_as_in_flo(world):
    del world.split["allclasses_names"]
    assert read(world).class_names[:2] == ("class 1", "class 2")


def test_mask_is_read_and_hides_nan(world):
    mask = np.ones_like(world.data["features"])
    mask[2, 5] = 0
    world.data["mask"], world.data["features"][2, 5] = mask, np.nan
    d = read(world)
    assert d.mask is not None
    assert d.mask.shape == d.features.shape
    assert not d.mask[5, 2]
    assert int((~d.mask).sum()) == 1
    assert d.features[5, 2] == 0
    world.data["features"][2, 6] = np.nan
    assert "res101.mat: features: found 1 NaN" in message(world)


@pytest.mark.parametrize("file", ["attributes.txt", "predicates.txt", "attributes/attributes.txt"])
def test_attribute_names_beside(world, file):
    path = world.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("1 has_wing::long\n   2\tblack\nred tail\n4 x\n")
    assert read(world).attribute_names == ("has_wing::long", "black", "red tail", "x")
    path.write_text("1 a\n2 b\n")  # of another number: somebody else's
    assert read(world).attribute_names == ()


def test_other_semantics_and_other_features(world):
    world.write()
    sent = {**world.split, "att": np.ones((9, 6))}
    scipy.io.savemat(world.folder / "sent_splits.mat", sent)
    scipy.io.savemat(world.folder / "lite.mat", {**world.data, "features": np.ones((3, 60))})
    root = world.folder.parent
    assert load("CUB", root, semantics="sent").semantics.shape == (6, 9)
    assert load("CUB", root, features="lite").features.shape == (60, 3)
    assert load("CUB", root, features="lite.mat").features.shape == (60, 3)
    assert load("CUB", root).features.shape == (60, 7)
    world.data_path.unlink()
    assert load("CUB", root).features.shape == (60, 3)  # the only one left
    scipy.io.savemat(world.folder / "vgg.mat", world.data)
    with pytest.raises(DataError, match=r"several feature files \(lite.mat, vgg.mat\).*features='lite'"):
        load("CUB", root)
    with pytest.raises(DataError, match=r"res50.mat: found no such file.*att_splits.mat, lite.mat"):
        load("CUB", root, features="res50")
    (world.folder / "vgg.mat").unlink()
    with pytest.raises(DataError, match=r"w2v_splits.mat: found no such file.*semantics='att' or 'sent'"):
        load("CUB", root, semantics="w2v")


@pytest.mark.parametrize("layout", ["", "xlsa17/data", "cvpr18xian/data"])
def test_folder_is_found_where_archives_unpack(world, layout, tmp_path, monkeypatch):
    world.write()
    target = tmp_path / "root" / layout / "Mine"
    target.parent.mkdir(parents=True)
    world.folder.rename(target)
    assert load("Mine", tmp_path / "root").name == "Mine"
    monkeypatch.setenv("ZSL_DATA_DIR", str(tmp_path / "root"))
    assert len(load("Mine")) == 60


def test_default_root_is_data(world, monkeypatch):
    world.write()
    monkeypatch.delenv("ZSL_DATA_DIR", raising=False)
    monkeypatch.chdir(world.folder.parent.parent)
    world.folder.parent.rename("data")
    assert len(load("CUB")) == 60


def test_unknown_name_lists_what_is_there(world):
    world.write()
    with pytest.raises(DataError, match="'COB': found no folder") as caught:
        load("COB", world.folder.parent)
    assert "one of hangul, toy, CUB (get" in str(caught.value)
    assert "python -m zsl_lib.data fetch NAME" in str(caught.value)
    with pytest.raises(DataError, match="one of hangul, toy"):
        load("CUB", world.folder / "nowhere")


def test_folder_without_features(world):
    world.write()
    world.data_path.unlink()
    with pytest.raises(DataError, match=r"res101.mat: found no feature file, only att_splits.mat"):
        load("CUB", world.folder.parent)


# --- each kind of bad content: what is changed, and what the message must say -------------------------


def _drop(part: str, key: str) -> Callable:
    return lambda w: getattr(w, part).pop(key)


def _put(part: str, key: str, change: Callable) -> Callable:
    return lambda w: getattr(w, part).__setitem__(key, change(getattr(w, part)[key]))


def _with(value: float, row: int, col: int) -> Callable:
    def change(matrix):
        matrix = matrix.astype(float)
        matrix[row, col] = value
        return matrix

    return change


def _object_cell(names):
    names[2, 0] = np.array([])
    return names


DATA, SPLIT = "res101.mat", "att_splits.mat"
BAD = {
    "no features": (_drop("data", "features"), DATA, "features", "no such key", "labels"),
    "no labels": (_drop("data", "labels"), DATA, "labels", "no such key", "keys there: features"),
    "no att": (_drop("split", "att"), SPLIT, "att", "no such key", "keys there: allclasses_names"),
    "no trainval": (_drop("split", "trainval_loc"), SPLIT, "trainval_loc", "no such key", "test_seen_loc"),
    "no test_unseen": (_drop("split", "test_unseen_loc"), SPLIT, "test_unseen_loc", "no such key", "att"),
    "features N x D": (
        _put("data", "features", np.transpose),
        *(DATA, "features", "shape (60, 7)", "[D, 60], a column a label (it looks transposed"),
    ),
    "att C x K": (
        _put("split", "att", np.transpose),
        *(SPLIT, "att", "shape (6, 4)", "[K, 6], a column a class (it looks transposed"),
    ),
    "too few features": (
        _put("data", "features", lambda f: f[:, :-1]),
        *(DATA, "features", "shape (7, 59)", "[D, 60]"),
    ),
    "features of no dimension": (
        _put("data", "features", lambda f: f[:0]),
        *(DATA, "features", "shape (0, 60)", "[D, 60]"),
    ),
    "features are text": (
        _put("data", "features", lambda f: "hello"),
        *(DATA, "features", "ndarray of <U5", "a dense numeric matrix"),
    ),
    "features are sparse": (
        _put("data", "features", scipy.sparse.csc_array),
        *(DATA, "features", "csc", "a dense numeric matrix"),
    ),
    "NaN features": (
        _put("data", "features", _with(np.nan, 2, 9)),
        *(DATA, "features", "1 NaN or infinite values, the first in row 3, column 10", "finite values"),
    ),
    "infinite features": (
        _put("data", "features", _with(-np.inf, 0, 0)),
        *(DATA, "features", "1 NaN or infinite values", "finite values"),
    ),
    "features beyond float32": (
        _put("data", "features", _with(1e200, 0, 0)),
        *(DATA, "features", "1 NaN or infinite values", "in float32"),
    ),
    "NaN att": (
        _put("split", "att", _with(np.nan, 1, 3)),
        *(SPLIT, "att", "1 NaN or infinite values, the first in row 2, column 4", "finite values"),
    ),
    "labels from 0": (
        _put("data", "labels", lambda y: y - 1),
        *(DATA, "labels", "labels 0..5", "labels from 1 (labels count from 1 in this layout: add 1)"),
    ),
    "negative labels": (
        _put("data", "labels", lambda y: y.astype(int) - 3),
        *(DATA, "labels", "labels -2..3", "labels from 1"),
    ),
    "classes without semantics": (
        _put("data", "labels", lambda y: y + 2),
        *(DATA, "labels", "2 classes without semantics", "1..6, the columns of att in"),
    ),
    "all-zero semantics": (
        _put("split", "att", lambda a: a * (np.arange(6) != 2)),
        *(SPLIT, "att", "1 classes without semantics, all zero (003.Crow)", "a description of each class"),
    ),
    "fractional labels": (
        _put("data", "labels", lambda y: y + 0.5),
        *(DATA, "labels", "fractions, NaN or infinity", "whole numbers"),
    ),
    "labels as one-hot": (
        _put("data", "labels", lambda y: np.eye(6)[y.ravel() - 1]),
        *(DATA, "labels", "shape (60, 6)", "one row or one column"),
    ),
    "no label at all": (
        _put("data", "labels", lambda y: y[:0]),
        *(DATA, "labels", "no label", "one an example"),
    ),
    "too few names": (
        _put("split", "allclasses_names", lambda names: names[:5]),
        *(SPLIT, "att", "shape (4, 6)", "[K, 5], a column a class"),
    ),
    "a name that is none": (
        _put("split", "allclasses_names", _object_cell),
        *(SPLIT, "allclasses_names", "1 of 6 cells that hold no string", "a cell array of strings"),
    ),
    "0-based index": (
        _put("split", "train_loc", lambda i: i - 1),
        *(SPLIT, "train_loc", "indices 0..29", "1..60", "indices count from 1 in this layout: add 1"),
    ),
    "index outside": (
        _put("split", "test_unseen_loc", lambda i: i + 7),
        *(SPLIT, "test_unseen_loc", "indices 48..67", "1..60, the examples of", DATA),
    ),
    "empty trainval": (
        _put("split", "trainval_loc", lambda i: i[:0]),
        *(SPLIT, "trainval_loc", "no index", "at least one"),
    ),
    "repeated index": (
        _put("split", "test_seen_loc", lambda i: np.concatenate([i, i[:3]])),
        *(SPLIT, "test_seen_loc", "3 repeated indices", "each index once"),
    ),
    "trainval and test_seen overlap": (
        lambda w: w.split.update(trainval_loc=np.concatenate([w.split["trainval_loc"], [[1], [2]]])),
        *(SPLIT, "trainval_loc and", "test_seen_loc", "2 shared indices", "disjoint sets"),
    ),
    "a seen class in test_unseen": (
        lambda w: w.split.update(trainval_loc=w.split["trainval_loc"][1:], test_unseen_loc=[[3], [41]]),
        *(SPLIT, "test_unseen_loc", "1 seen classes (['001.Auk'])", "unseen classes only"),
    ),
    "a stranger in test_seen": (
        lambda w: w.split.update(trainval_loc=w.split["trainval_loc"][:16]),
        *(SPLIT, "test_seen_loc", "2 classes without training examples", "seen classes only"),
    ),
    "mask of another shape": (
        lambda w: w.data.update(mask=np.ones((60, 7))),
        *(DATA, "mask", "shape (60, 7)", "the features' (7, 60)"),
    ),
    "mask of other values": (
        lambda w: w.data.update(mask=np.full((7, 60), 255.0)),
        *(DATA, "mask", "values 255.0..255.0", "0 and 1"),
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_content_names_file_key_found_and_expected(world, kind):
    change, *parts = BAD[kind]
    change(world)
    text = message(world)
    at = 0
    for part in ("CUB", *parts):  # in this order
        assert part in text[at:], f"{part!r} not after position {at} of {text!r}"
        at = text.index(part, at)
    assert ": found " in text
    assert ", expected " in text


def test_transposed_att_without_names_is_seen(world):
    del world.split["allclasses_names"]
    world.split["att"] = np.ones((9, 6)).T
    assert re.search(r"att: found shape \(6, 9\), expected \[K, 6\].*transposed", message(world))


# --- files that are no MAT file at all ----------------------------------------------------------------


@pytest.mark.parametrize("which", ["data_path", "split_path"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" + bytes(200), "a file that starts with b'PK"),
        (b"<!DOCTYPE html><html>404" + b" " * 200, "a file that starts with b'<!DOCTYPE html>"),
        (b"short", "a file that starts with b'short'"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM", "version 7.3"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "version 7.3"),
    ],
)
def test_file_of_another_kind(world, which, content, found):
    world.write()
    path = getattr(world, which)
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load("CUB", world.folder.parent)
    text = str(caught.value)
    assert text.startswith(f"{path}: found ")
    assert found in text
    assert "expected a MAT file of version 5 or 7" in text
    if "7.3" in found:
        assert "save it with -v7 in MATLAB" in text
        assert "h5py.File" in text


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("which", ["data_path", "split_path"])
def test_truncated_file(world, which, keep):
    world.write()
    path = getattr(world, which)
    content = path.read_bytes()
    path.write_bytes(content[: max(200, int(len(content) * keep))])
    with pytest.raises(DataError) as caught:
        load("CUB", world.folder.parent)
    assert str(path) in str(caught.value)
    assert re.search("truncated or damaged|no such key", str(caught.value))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), byte=st.integers(0, 255))
def test_one_damaged_byte_never_escapes_as_another_error(world, position, byte):
    world.write()
    content = bytearray(world.data_path.read_bytes())
    content[int(position * (len(content) - 1))] = byte
    world.data_path.write_bytes(bytes(content))
    with suppress(DataError):
        assert len(load("CUB", world.folder.parent)) == 60


@pytest.mark.parametrize("which", ["data_path", "split_path"])
def test_directory_instead_of_file(world, which):
    world.write()
    path = getattr(world, which)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{path.name}: found a directory, expected a MAT file"):
        load("CUB", world.folder.parent)


@pytest.mark.parametrize(("top", "of_100"), [(87.0, 1), (0.9, 100)])
def test_points_come_from_the_attributes_before_they_were_normalised(world, top, of_100):
    original = world.split["att"] / world.split["att"].max() * top
    world.split |= {"original_att": original, "att": original / np.linalg.norm(original, axis=0)}
    d = read(world)
    table = d.semantics.double() * d.points[:, None]
    np.testing.assert_allclose(table.numpy(), of_100 * original.T, rtol=1e-5)


@pytest.mark.parametrize("change", ["absent", "another shape", "other directions"])
def test_without_such_attributes_there_are_no_points(world, change):
    if change != "absent":
        world.split["original_att"] = world.split["att"][: 3 if change == "another shape" else 4] + 1
    assert read(world).points is None


# --- real data ----------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(("semantics", "k"), [("att", 312), ("sent", 1024)])
def test_cub100(real, semantics, k):
    folder = real("CUB100")
    d = load("CUB100", folder.parent, semantics=semantics)
    assert d.features.shape == (5902, 1280)
    assert d.semantics.shape == (100, k)
    assert [len(i) for i in (d.trainval, d.test_seen, d.test_unseen)] == [3432, 860, 1610]
    assert (len(d.seen), len(d.unseen)) == (73, 27)
    assert len(d.attribute_names) == (312 if k == 312 else 0)
    assert (d.points is None) == (semantics == "sent")
    if semantics == "att":
        table = d.semantics * d.points[:, None]
        assert 99 < table.max() <= 100 + 1e-3
    tuning = d.tuning_split()
    assert (len(tuning.seen), len(tuning.unseen), len(tuning.test_unseen)) == (47, 26, 1222)


def made_up_features(path: Path, split: dict[str, np.ndarray]) -> None:
    """A feature file that fits a real split file: 2 random features, labels that respect its sets."""
    sets = {key: value.ravel() for key, value in split.items() if key.endswith("_loc")}
    n = max(int(index.max()) for index in sets.values())
    classes = np.arange(1, split["att"].shape[1] + 1)
    groups = np.array_split(classes, 3)  # made up: train, val, unseen
    labels = np.zeros(n, dtype=np.int64)
    seen = np.concatenate([sets["trainval_loc"], sets["test_seen_loc"]])
    val = sets.get("val_loc", seen[:0])
    for index, group in ((seen, groups[0]), (val, groups[1]), (sets["test_unseen_loc"], groups[2])):
        labels[np.sort(index) - 1] = np.resize(group, len(index))
    features = np.random.default_rng(0).random((2, n)).astype(np.float32)
    scipy.io.savemat(path, {"features": features, "labels": labels[:, None]})


@pytest.mark.data
@pytest.mark.parametrize("source", ["CUB/sent", "AWA1/att", "AWA2/att", "SUN/att", "FLO/att", "APY/att"])
def test_published_splits_leak_and_tuning_split_does_not(real, tmp_path, source):
    name, semantics = source.split("/")
    published = real(f"splits/{name}") / f"{semantics}_splits.mat"
    copy = tmp_path / name
    copy.mkdir()
    (copy / published.name).symlink_to(published)
    made_up_features(copy / "res101.mat", scipy.io.loadmat(published))
    d = load(name, tmp_path, semantics=semantics)
    leaked = torch.isin(torch.cat([d.train, d.val]), d.test_seen).sum()
    assert leaked == (0 if name == "APY" else len(d.test_seen))  # all of it, in each but APY
    tuning = d.tuning_split()
    used = torch.cat([tuning.trainval, tuning.test_seen, tuning.test_unseen])
    assert len(used.unique()) == len(used)
    assert torch.isin(used, d.trainval).all()
    assert not torch.isin(used, torch.cat([d.test_seen, d.test_unseen])).any()
    assert not torch.isin(tuning.seen, tuning.unseen).any()


@pytest.mark.data
def test_cub_att_file_publishes_no_tuning_split(real, tmp_path):
    published = real("splits/CUB") / "att_splits.mat"
    (tmp_path / published.name).symlink_to(published)
    made_up_features(tmp_path / "res101.mat", scipy.io.loadmat(published))
    d = load(tmp_path.name, tmp_path.parent)
    assert len(d.train) == len(d.val) == 0
    assert [len(i) for i in (d.trainval, d.test_seen, d.test_unseen)] == [7057, 1764, 2967]
