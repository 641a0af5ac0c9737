"""The embedded data set: what is committed, how it is split, and that it can be remade."""

from __future__ import annotations

import csv
import shutil
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import features

from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.hangul import DISTORTION, load
from zsl_lib.data.hangul.files import HERE, open_archive, read_sums, write_archive
from zsl_lib.data.hangul.render import Setting, build, locate, read_faces, render_one
from zsl_lib.data.hangul.syllables import attributes, choose_classes, common_syllables, letters
from zsl_lib.errors import DataError

ARCHIVES = ("images.npz", "features.npz", "splits.npz")
MB = 1_000_000


@pytest.fixture(scope="module")
def hangul() -> ZSLDataset:
    return load(images=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (*ARCHIVES, "SHA256SUMS"):
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


# What is committed


def test_archives_are_small_and_listed() -> None:
    assert sum((HERE / name).stat().st_size for name in ARCHIVES) <= 5 * MB
    assert set(read_sums(HERE)) == set(ARCHIVES)


def test_load_is_fast() -> None:
    start = time.perf_counter()
    load(images=True)
    assert time.perf_counter() - start < 2


def test_shapes_and_types(hangul: ZSLDataset) -> None:
    n, c = len(hangul), len(hangul.class_names)
    assert hangul.images.shape == (n, 1, 32, 32)  # type: ignore[union-attr]
    assert hangul.images.dtype == torch.uint8  # type: ignore[union-attr]
    assert hangul.features.shape[0] == n  # type: ignore[union-attr]
    assert hangul.features.min() >= 0  # type: ignore[union-attr]
    assert hangul.semantics.shape == (c, 68) == (c, len(hangul.attribute_names))
    assert set(hangul.instances) == {"font", "family", *DISTORTION}
    assert set(hangul.digests) == {"data", "features", "split"}
    assert load().images is None


def test_every_image_has_ink(hangul: ZSLDataset) -> None:
    ink = hangul.images[:].float().mean(dim=(1, 2, 3))  # type: ignore[index]
    assert ink.min() > 3
    assert hangul.images[:].flatten(1).unique(dim=0).shape[0] == len(hangul)  # type: ignore[index]


# Attributes


def test_attributes_follow_from_the_code_points(hangul: ZSLDataset) -> None:
    for name, row in zip(hangul.class_names, hangul.semantics, strict=True):
        k = ord(name) - 0xAC00
        expected = torch.zeros(68)
        expected[[k // 588, 19 + k % 588 // 28, 40 + k % 28]] = 1
        assert torch.equal(row, expected), name


def test_letters_agree_with_unicode_decomposition() -> None:
    for syllable in common_syllables()[::7]:
        jamo = [ord(j) for j in unicodedata.normalize("NFD", syllable)]
        final = jamo[2] - 0x11A7 if len(jamo) == 3 else 0
        assert letters(syllable) == (jamo[0] - 0x1100, jamo[1] - 0x1161, final)


def test_attribute_names(hangul: ZSLDataset) -> None:
    row = hangul.semantics[hangul.class_names.index(hangul.class_names[0])]
    assert int(row.sum()) == 3
    names = hangul.attribute_names
    spelled = [names[k] for k in np.flatnonzero(attributes(["값"])[0])]
    assert spelled == ["initial ㄱ", "medial ㅏ", "final ㅄ"]
    assert names[40] == "final none"


def test_train_classes_use_every_letter(hangul: ZSLDataset) -> None:
    used = hangul.semantics[hangul.labels[hangul.train].unique()].sum(0)
    assert (used >= 1).all()


# Splits


def test_index_sets_are_products_of_classes_and_typefaces(hangul: ZSLDataset) -> None:
    split = {f.typeface: f.split for f in read_faces()}
    font = np.array([split[str(f)] for f in hangul.instances["font"]])
    labels = hangul.labels
    classes = {
        "train": labels[hangul.train].unique(),
        "val": labels[hangul.val].unique(),
        "unseen": hangul.unseen,
    }
    seen = torch.cat([classes["train"], classes["val"]])
    assert len(seen) == len(seen.unique()) == len(hangul.seen)
    expected = {
        "trainval": (seen, ("train", "val")),
        "test_seen": (seen, ("test",)),
        "test_unseen": (classes["unseen"], ("test",)),
        "train": (classes["train"], ("train",)),
        "val": (classes["val"], ("val",)),
    }
    for key in INDEX_SETS:
        members, fonts = expected[key]
        mask = torch.isin(labels, members).numpy() & np.isin(font, fonts)
        assert np.array_equal(getattr(hangul, key).numpy(), np.flatnonzero(mask)), key
    everything = torch.cat([hangul.trainval, hangul.test_seen, hangul.test_unseen])
    assert len(everything.unique()) == len(hangul)


def test_no_family_in_two_splits() -> None:
    rows = list(csv.DictReader((HERE / "fonts.csv").open(encoding="utf-8")))
    assert all(row[key] for row in rows for key in row if key != "face")
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["family"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len({row["typeface"] for row in rows}) == len(rows)


def test_instances_agree_with_the_font_table(hangul: ZSLDataset) -> None:
    families = {f.typeface: f.family for f in read_faces()}
    assert all(
        families[str(a)] == b for a, b in zip(*(hangul.instances[k] for k in ("font", "family")), strict=True)
    )


def test_tuning_split_uses_new_typefaces_for_seen_classes(hangul: ZSLDataset) -> None:
    tuning = hangul.tuning_split()
    held = set(hangul.instances["family"][tuning.test_seen.numpy()])
    assert held.isdisjoint(hangul.instances["family"][tuning.trainval.numpy()])
    assert held == set(hangul.instances["family"][tuning.test_unseen.numpy()])


# Errors


def test_other_semantics_are_refused() -> None:
    with pytest.raises(DataError, match="semantics"):
        load(semantics="sent")


@pytest.mark.parametrize("name", ARCHIVES)
def test_altered_archive(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(DataError, match=f"hangul/{name}.*SHA-256"):
        load(root=copy)


@pytest.mark.parametrize("name", ARCHIVES)
def test_missing_archive(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"hangul/{name}.*no file"):
        load(root=copy)


def test_archive_without_a_checksum(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.npz", {"x": np.zeros(3)})
    assert open_archive(tmp_path / "a.npz")[0]["x"].shape == (3,)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match=r"a\.npz.*SHA256SUMS"):
        open_archive(tmp_path / "a.npz")


# What the README says


def test_readme_reports_the_committed_numbers() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    keys = ("eszsl_T1", "abp_T1", "ceiling_knn", "ceiling_softmax", "eszsl_H", "abp_H")
    for row in csv.DictReader((HERE / "difficulty.csv").open(encoding="utf-8")):
        line = " | ".join(row[key] for key in ("n_train", "strength", *keys))
        assert f"| {line} |" in text.replace("**", "")
    (test,) = csv.DictReader((HERE / "difficulty_test.csv").open(encoding="utf-8"))
    assert f"ESZSL {test['eszsl_T1']} and ABP {test['abp_T1']}" in text


# Making it again


def test_choice_of_classes(hangul: ZSLDataset) -> None:
    k = Setting()
    groups = choose_classes(k.n_train, k.n_val, k.n_unseen, seed=k.seed)
    assert sorted(s for members in groups.values() for s in members) == list(hangul.class_names)
    assert {hangul.class_names[c] for c in hangul.unseen} == set(groups["unseen"])
    with pytest.raises(ValueError, match="unused"):
        choose_classes(20, 1, 1, seed=0)


def test_missing_fonts_name_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("zsl_lib.data.hangul.render.FONT_ROOTS", (tmp_path,))
    with pytest.raises(DataError, match="apt-get install fonts-alee fonts-baekmuk"):
        build(Setting())


def test_rendering_again_gives_the_same_pixels(hangul: ZSLDataset) -> None:
    faces = read_faces()
    try:
        where = locate(faces)
    except DataError as error:
        pytest.skip(str(error))
    _skip_other_freetype()
    typefaces = [f.typeface for f in faces]
    for i in np.random.default_rng(0).choice(len(hangul), 12, replace=False):
        face = faces[typefaces.index(hangul.instances["font"][i])]
        name = hangul.class_names[int(hangul.labels[i])]
        image, distortion = render_one(name, face, where[face.file], "".join(hangul.class_names), Setting())
        assert np.array_equal(image, hangul.images[int(i), 0].numpy()), (name, face.typeface)  # type: ignore[index]
        for key in DISTORTION:
            assert hangul.instances[key][i] == np.float32(distortion[key])


def _skip_other_freetype() -> None:
    made_with = str(open_archive(HERE / "images.npz")[0]["freetype"])
    if features.version("freetype2") != made_with:
        pytest.skip(f"FreeType {features.version('freetype2')}, archive made with {made_with}")
