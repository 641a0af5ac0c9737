"""ImageNet-21K's HDF5 layout, on small files like the publishers', good ones and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsl_lib.data import imagenet21k, load, wordnet
from zsl_lib.data.imagenet21k import class_sets, populated, read, read_words
from zsl_lib.data.wordnet import hop_sets, imagenet_tree
from zsl_lib.data.wordnet.sentences import sentence_embeddings
from zsl_lib.errors import DataError

h5py = pytest.importorskip("h5py")

HIERARCHY = wordnet.load()
SETS = hop_sets(imagenet_tree(HIERARCHY))
NEAR, FAR = SETS["2-hops"][:3], sorted(set(SETS["3-hops"]) - set(SETS["2-hops"]))[:2]
WNIDS = (*HIERARCHY.seen[:4], *NEAR, *FAR, sorted(set(SETS["all"]) - set(SETS["3-hops"]))[0])
D, K = 5, 3


class Folder:
    """A folder ``mine`` in the published layout: 4 seen and 6 unseen classes, class 3 without a vector."""

    def __init__(self, path: Path) -> None:
        self.path, rng = path, np.random.default_rng(0)
        path.mkdir()
        self.w2v = rng.normal(size=(K, len(WNIDS)))
        self.w2v[:, 3] = 0
        self.labels = {"train": np.repeat(np.arange(1, 5), 6), "val": np.repeat(np.arange(1, 5), 2)}
        self.labels["unseen"] = np.repeat(np.arange(5, 11), [7, 6, 5, 4, 3, 2])
        self.features = {
            key: rng.normal(size=(len(y), D)).astype(np.float32) for key, y in self.labels.items()
        }
        self.write()

    def write(self, wnids: tuple[str, ...] = WNIDS, **other: np.ndarray) -> None:
        """``other``: data sets of the training file that replace or add to its own; None leaves one out."""
        with h5py.File(self.path / "ImageNet_w2v.mat", "w") as file:
            file["w2v"], file["no_w2v_loc"] = self.w2v, np.array([[4.0]])
            cells = file.create_dataset("wnids", (len(wnids), 1), dtype=h5py.ref_dtype)
            for i, wnid in enumerate(wnids):
                codes = np.frombuffer(wnid.encode("utf-16-le"), dtype="<u2")[:, None]
                cells[i, 0] = file.create_dataset(f"#refs#/{i}", data=codes).ref
        content = {
            "features": self.features["train"].T,  # [D, N], as in the publishers' file
            "labels": self.labels["train"][None].astype(float),
            "features_val": self.features["val"],  # [N, D], in the same file
            "labels_val": self.labels["val"][:, None].astype(float),
        } | other
        with h5py.File(self.path / "ILSVRC2012_res101_feature.mat", "w") as file:
            for key, value in content.items():
                if value is not None:
                    file[key] = value
        with h5py.File(self.path / "res101_unseen.mat", "w") as file:
            file.create_dataset("features", data=self.features["unseen"], chunks=(4, 2), compression="gzip")
            file["labels"] = self.labels["unseen"][None]

    def message(self, **options: object) -> str:
        with pytest.raises(DataError) as caught:
            read(self.path, **options)
        return str(caught.value)


@pytest.fixture
def mine(tmp_path) -> Folder:
    return Folder(tmp_path / "mine")


def test_every_example_comes_with_its_class(mine):
    d = load("mine", mine.path.parent, features="all")
    kept = mine.labels["train"] != 4  # the class without a vector
    assert torch.equal(d.features[d.trainval], torch.from_numpy(mine.features["train"][kept]))
    assert d.labels[d.trainval].tolist() == (mine.labels["train"][kept] - 1).tolist()
    assert torch.equal(d.features[d.test_seen], torch.from_numpy(mine.features["val"][:6]))
    assert torch.equal(d.features[d.test_unseen], torch.from_numpy(mine.features["unseen"]))
    assert d.labels[d.test_unseen].tolist() == (mine.labels["unseen"] - 1).tolist()
    assert (d.seen.tolist(), d.unseen.tolist()) == ([0, 1, 2], [4, 5, 6, 7, 8, 9])
    assert torch.equal(d.semantics, torch.from_numpy(mine.w2v.T).float())
    assert d.class_names[0] == "n01440764 tench"
    assert {key: len(value) for key, value in d.digests.items()} == {"data": 64, "split": 64}


@pytest.mark.parametrize(("classes", "expected"), [("2-hops", [4, 5, 6]), ("3-hops", [4, 5, 6, 7, 8])])
def test_hops_are_wordnets_where_no_list_is_there(classes, expected, mine):
    assert read(mine.path, classes=classes).unseen.tolist() == expected


def test_load_gives_two_hops(mine):
    assert load("mine", mine.path.parent).unseen.tolist() == [4, 5, 6]
    with pytest.raises(DataError, match="mine: images: found none in this layout"):
        load("mine", mine.path.parent, images=True)


def test_published_lists_come_before_wordnet(mine):
    lists = {"train": WNIDS[:4], "2-hops": WNIDS[8:9], "3-hops": WNIDS[8:], "all": WNIDS[4:]}
    (mine.path / imagenet21k.SETS).write_text(json.dumps(lists))
    assert read(mine.path).unseen.tolist() == [8]
    splits = {
        "hops2": [[6.0], [5.0]],
        "hops3": [[5.0, 6.0, 7.0]],
        "all": np.arange(5, 11)[None],
        "mp500": [[5.0]],
    }
    scipy.io.savemat(mine.path / imagenet21k.SPLITS, splits)
    sets = class_sets(mine.path)
    assert {name: rows.tolist() for name, rows in sets.items()} == {
        "2-hops": [4, 5],
        "3-hops": [4, 5, 6],
        "all": [4, 5, 6, 7, 8, 9],
        "most-500": [4],
    }
    assert read(mine.path, classes="most-500").unseen.tolist() == [4]


def test_the_most_and_the_least_populated(mine, monkeypatch):
    monkeypatch.setattr(imagenet21k, "populated", lambda counts: populated(counts, (2, 3, 99)))
    sets = class_sets(mine.path)
    assert sets["most-2"].tolist() == [4, 5]
    assert sets["least-3"].tolist() == [7, 8, 9]
    assert not {"most-99", "least-99"} & set(sets)


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 10))
def test_populated_takes_the_largest_and_the_smallest(counts, n):
    found = populated(np.array(counts, dtype=int), (n,))
    present = sorted(c for c in counts if c)
    if n > len(present):
        assert found == {}
        return
    assert sorted(counts[i] for i in found[f"most-{n}"]) == present[-n:]
    assert sorted(counts[i] for i in found[f"least-{n}"]) == present[:n]


@pytest.mark.parametrize("counts", [[[1]], [0.5], [-1]])
def test_populated_of_what_are_no_counts(counts):
    with pytest.raises(DataError, match="populated: counts: found"):
        populated(counts)


def test_sentences_instead_of_word_vectors_describe_every_class(mine):
    d = read(mine.path, semantics="sent", classes="all")
    wnids, table = sentence_embeddings()
    assert d.seen.tolist() == [0, 1, 2, 3]
    assert torch.equal(d.semantics[7], torch.from_numpy(table[wnids.index(WNIDS[7])]))


def test_a_cap_keeps_some_of_each_class_and_the_same_ones(mine):
    d = read(mine.path, classes="all", per_class=3, seed=1)
    assert torch.bincount(d.labels[d.trainval]).tolist() == [3, 3, 3]
    assert torch.bincount(d.labels[d.test_unseen])[4:].tolist() == [3, 3, 3, 3, 3, 2]
    assert torch.equal(d.features, read(mine.path, classes="all", per_class=3, seed=1).features)
    whole = read(mine.path, classes="all")
    for i in d.test_unseen.tolist():
        same = (whole.features == d.features[i]).all(1).nonzero().item()
        assert whole.labels[same] == d.labels[i]


def test_the_converted_file_is_used_again_and_made_anew_for_other_data(mine, tmp_path):
    first = read(mine.path, cache=tmp_path / "cache")
    (made,) = (tmp_path / "cache").iterdir()
    stamp = made.stat().st_mtime_ns
    first.features.zero_()  # a copy in memory: the file stays
    assert read(mine.path, cache=tmp_path / "cache").features.any()
    assert made.stat().st_mtime_ns == stamp
    mine.features["train"] += 1
    mine.write()
    assert not torch.equal(read(mine.path, cache=tmp_path / "cache").features, first.features)
    assert not (mine.path / imagenet21k.CACHE).exists()


def test_blocks_of_any_size_give_the_same(mine, monkeypatch):
    expected = read(mine.path, classes="all").features.clone()
    for i, rows in enumerate((1, 3, 7)):
        monkeypatch.setattr(imagenet21k, "ROWS", rows)
        assert torch.equal(read(mine.path, classes="all", cache=mine.path / f"c{i}").features, expected)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("transposed", [True, False])
def test_memory_does_not_grow_with_the_features(transposed, mine, monkeypatch):
    peaks = []
    monkeypatch.setattr(imagenet21k, "ROWS", 256)
    original = imagenet21k.Source.blocks

    def own_megabytes() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3

    def watched(source, rows):
        for block in original(source, rows):
            peaks.append(own_megabytes())
            yield block

    monkeypatch.setattr(imagenet21k.Source, "blocks", watched)
    n = 21_000
    mine.features = {key: np.ones((len(x), 2048), np.float32) for key, x in mine.features.items()}
    big = np.ones((2048, n) if transposed else (n, 2048), np.float32)
    mine.write(features=big, labels=np.tile([1.0, 2.0, 3.0], n // 3)[None])
    del big
    before = own_megabytes()
    d = read(mine.path)
    assert len(d.trainval) * 2048 * 4 > 170e6
    assert max(peaks) - before < 60
    assert own_megabytes() - before < 60


BAD: dict[str, tuple[Callable[[Folder], object], str]] = {
    "no words": (
        lambda m: (m.path / "ImageNet_w2v.mat").unlink(),
        "w2v.mat: found no such file, expected a MAT",
    ),
    "no features": (
        lambda m: [(m.path / f).unlink() for f in ("ILSVRC2012_res101_feature.mat", "res101_unseen.mat")],
        "mine: found only ImageNet_w2v.mat, expected a MAT file with features and labels",
    ),
    "not HDF5": (
        lambda m: (m.path / "res101_unseen.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)),
        "res101_unseen.mat: found a truncated or damaged file, or another format (OSError",
    ),
    "truncated": (
        lambda m: (m.path / "res101_unseen.mat").write_bytes(
            (m.path / "res101_unseen.mat").read_bytes()[:900]
        ),
        "res101_unseen.mat: found a truncated or damaged file",
    ),
    "no labels": (lambda m: m.write(labels=None), "feature.mat: labels: found only features, features_val"),
    "labels from 0": (
        lambda m: m.write(labels=m.labels["train"][None] - 1.0),
        "labels: found 0..3, expected 1..10, rows of wnids in ImageNet_w2v.mat (they count from 1",
    ),
    "labels too high": (lambda m: m.write(labels=m.labels["train"][None] + 9.0), "labels: found 10..13"),
    "half labels": (
        lambda m: m.write(labels=m.labels["train"][None] / 2),
        "labels: found what is no whole number",
    ),
    "a matrix of labels": (
        lambda m: m.write(labels=m.labels["train"].reshape(2, 12)),
        "feature.mat: labels: found shape (2, 12), expected one row or one column",
    ),
    "too few labels": (
        lambda m: m.write(labels=m.labels["train"][None, 1:]),
        "feature.mat: features: found shape (5, 24), expected [N, D] or [D, N] with N = 23",
    ),
    "square": (
        lambda m: m.write(features=np.ones((24, 24))),
        "features: found as many rows as columns as labels",
    ),
    "text": (
        lambda m: m.write(features=np.array([[b"a"] * 24] * 5)),
        "feature.mat: features: found |S1 of shape (5, 24), expected a matrix of numbers",
    ),
    "other widths": (lambda m: m.write(features_val=np.ones((8, 9))), "found D = 9, expected D = 5, as in"),
    "NaN": (
        lambda m: m.write(features=np.where(np.arange(24) == 3, np.nan, 1.0) * np.ones((5, 1))),
        "feature.mat: features, ",
    ),
    "no validation images": (
        lambda m: m.write(features_val=None, labels_val=None),
        "found no example of test_seen in ILSVRC2012_res101_feature.mat, res101_unseen.mat, expected ",
    ),
    "a synset that is none": (lambda m: m.write(("n1", *WNIDS[1:])), "wnids: found 'n1', expected each of"),
    "a synset twice": (lambda m: m.write((WNIDS[1], *WNIDS[1:])), "wnids: found a synset twice"),
    "w2v transposed": (
        lambda m: (setattr(m, "w2v", m.w2v.T), m.write()),
        "w2v: found shape (10, 3), expected [K, 10], a column a synset of wnids (it looks transposed",
    ),
    "NaN in w2v": (
        lambda m: (m.w2v.__setitem__((0, 2), np.nan), m.write()),
        "w2v: found NaN or infinite values in 1 classes, e.g. n01484850",
    ),
    "splits without hops": (
        lambda m: scipy.io.savemat(m.path / "ImageNet_splits.mat", {"hops2": [[5.0]]}),
        "ImageNet_splits.mat: found keys hops2, expected hops2, hops3, all",
    ),
    "splits damaged": (
        lambda m: (m.path / "ImageNet_splits.mat").write_bytes(b"MATLAB"),
        "ImageNet_splits.mat: found a truncated or damaged file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_file_and_key(case, mine):
    change, expected = BAD[case]
    change(mine)
    assert expected in mine.message()


def test_bad_arguments(mine, tmp_path):
    assert "mine: classes: found '4-hops', expected one of 2-hops, 3-hops, all" in mine.message(
        classes="4-hops"
    )
    assert "imagenet21k: semantics: found 'glove', expected one of w2v, sent" in mine.message(
        semantics="glove"
    )
    with pytest.raises(DataError, match=r"w2v\.mat: found no such file"):
        read(tmp_path / "none")


def test_a_nan_under_no_w2v_loc_is_fine(mine):
    mine.w2v[:, 3] = np.nan
    mine.write()
    words = read_words(mine.path / imagenet21k.WORDS)
    assert words.present.tolist() == [i != 3 for i in range(10)]
    assert not words.vectors[3].any()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), byte=st.integers(0, 255), words=st.booleans())
def test_one_damaged_byte_never_escapes_as_another_error(position, byte, words, tmp_path_factory):
    mine = Folder(tmp_path_factory.mktemp("m") / "mine")
    path = mine.path / ("ImageNet_w2v.mat" if words else "ILSVRC2012_res101_feature.mat")
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] = byte
    path.write_bytes(bytes(content))
    with suppress(DataError):
        assert len(read(mine.path)) > 0


def test_without_the_package_it_says_how_to_get_it(mine, monkeypatch):
    def broken(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(imagenet21k.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=r"h5py: no h5py; pip install 'zsl-book\[formats\]'"):
        read(mine.path)
