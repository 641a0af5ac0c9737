"""The container: what it refuses, what scaling and the tuning split promise."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import small_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler

from zsl_lib.data import ZSLDataset, dataset, toy
from zsl_lib.errors import DataError


def small(**changes) -> ZSLDataset:
    """Four classes of five; 0 to 2 seen (2 is val), 3 unseen; example i is of class i // 5."""
    index = torch.arange(20)
    fields = {
        "name": "small",
        "features": torch.rand(20, 3, generator=torch.Generator().manual_seed(0)),
        "labels": index // 5,
        "semantics": torch.eye(4),
        "class_names": ("a", "b", "c", "d"),
        "trainval": index[(index < 15) & (index % 5 > 0)],
        "test_seen": index[(index < 15) & (index % 5 == 0)],
        "test_unseen": index[15:],
        "train": index[:10],
        "val": index[10:15],
    }
    return ZSLDataset(**{**fields, **changes})


def test_repr_and_sizes():
    d = small()
    assert len(d) == 20
    assert d.seen.tolist() == [0, 1, 2]
    assert d.unseen.tolist() == [3]
    assert repr(d) == (
        "ZSLDataset(small: N=20, D=3, K=4, 3 seen + 1 unseen classes, "
        "trainval=12, test_seen=3, test_unseen=5)"
    )


def test_x_gives_features_else_images():
    images = torch.zeros(20, 1, 2, 2, dtype=torch.uint8)
    index = torch.tensor([3, 1])
    assert small(images=images).x(index).shape == (2, 3)
    assert small(images=images, features=None).x(index).shape == (2, 1, 2, 2)


LONG = torch.int64
BAD = {
    "no input": ({"features": None}, "features: found neither features nor images, expected at least one"),
    "labels 2-d": ({"labels": torch.zeros(20, 1, dtype=LONG)}, r"labels: found \(20, 1\), expected \[N\]"),
    "labels float": ({"labels": torch.zeros(20)}, "labels: found torch.float32, expected torch.int64"),
    "labels out of range": (
        {"labels": torch.arange(20) // 4},
        r"labels: found labels 0..4, expected 0..3, the rows of semantics",
    ),
    "negative label": ({"labels": torch.arange(20) // 5 - 1}, r"labels: found labels -1..2, expected 0..3"),
    "features 1-d": ({"features": torch.zeros(20)}, r"features: found 1-d array, expected \[N, D\]"),
    "features too few": (
        {"features": torch.zeros(19, 3)},
        "features: found 19 rows, expected 20, one a label",
    ),
    "features float64": (
        {"features": torch.zeros(20, 3, dtype=torch.float64)},
        "features: found torch.float64, expected torch.float32",
    ),
    "features NaN": (
        {"features": torch.full((20, 3), torch.nan)},
        "features: found 60 NaN or infinite values, expected finite values",
    ),
    "images too few": (
        {"images": torch.zeros(5, 1, 2, 2)},
        "images: found 5 images, expected 20, one a label",
    ),
    "instances too few": (
        {"instances": {"font": np.zeros(3)}},
        r"instances\['font'\]: found length 3, expected length 20",
    ),
    "mask float": ({"mask": torch.ones(20, 3)}, "mask: found torch.float32, expected torch.bool"),
    "mask shape": (
        {"mask": torch.ones(3, 20, dtype=torch.bool)},
        r"mask: found shape \(3, 20\), expected the features' \(20, 3\)",
    ),
    "semantics 1-d": ({"semantics": torch.ones(4)}, r"semantics: found 1-d array, expected \[C, K\]"),
    "semantics float64": ({"semantics": torch.eye(4, dtype=torch.float64)}, "semantics: found torch.float64"),
    "semantics inf": ({"semantics": torch.eye(4) / 0}, "semantics: found 16 NaN or infinite values"),
    "class names": ({"class_names": ("a", "b")}, "class_names: found 2 names, expected 4, one a class"),
    "attribute names": ({"attribute_names": ("x",)}, "attribute_names: found 1 names, expected 4"),
    "points float32": ({"points": torch.ones(4)}, "points: found torch.float32, expected torch.float64"),
    "points too few": (
        {"points": torch.ones(3, dtype=torch.float64)},
        r"points: found shape \(3,\), expected \[4\], one a class",
    ),
    "points of 0": (
        {"points": torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)},
        "points: found 0, negative, NaN or infinite ones, expected numbers above 0",
    ),
    "index 2-d": ({"train": torch.zeros(2, 2, dtype=LONG)}, r"train: found 2-d array, expected \[n\]"),
    "index float": ({"val": torch.zeros(2)}, "val: found torch.float32, expected torch.int64"),
    "index empty": (
        {"test_seen": torch.zeros(0, dtype=LONG)},
        "test_seen: found no index, expected at least",
    ),
    "index outside": ({"train": torch.tensor([20])}, r"train: found indices 20..20, expected 0..19"),
    "index negative": ({"val": torch.tensor([-1, 3])}, r"val: found indices -1..3, expected 0..19"),
    "index repeated": ({"train": torch.tensor([1, 1, 2])}, "train: found 1 repeated indices, expected each"),
    "seen in unseen": (
        {"test_unseen": torch.tensor([0, 16]), "test_seen": torch.tensor([5])},
        r"test_unseen: found 1 seen classes \(\['a'\]\), expected unseen classes only",
    ),
    "unseen in seen": (
        {"test_seen": torch.tensor([0, 15]), "test_unseen": torch.tensor([16])},
        r"test_seen: found 1 classes without training examples \(\['d'\]\), expected seen classes only",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_field_is_named_with_found_and_expected(kind):
    changes, text = BAD[kind]
    with pytest.raises(DataError, match=f"^small: {text}"):
        small(**changes)


@given(st.sets(st.integers(0, 14), min_size=1), st.sets(st.integers(0, 14), min_size=1))
def test_overlap_of_trainval_and_test_seen_is_counted(a, b):
    fields = {"trainval": torch.tensor(sorted(a)), "test_seen": torch.tensor(sorted(b))}
    if a & b:
        with pytest.raises(DataError, match=f"trainval and test_seen: found {len(a & b)} shared indices"):
            small(**fields)
    elif {i // 5 for i in b} <= {i // 5 for i in a}:
        assert len(small(**fields).trainval) == len(a)
    else:
        with pytest.raises(DataError, match=r"test_seen: found . classes without training examples"):
            small(**fields)


def test_error_keeps_its_parts_and_moves():
    error = DataError("here", found=1, expected=2, hint="try")
    assert str(error) == "here: found 1, expected 2 (try)"
    assert str(error.at("there")) == "there: found 1, expected 2 (try)"
    assert isinstance(error, ValueError)


# --- scaling ------------------------------------------------------------------------------------------

numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers, min_size=40, max_size=40))
def test_scaled_trainval_spans_0_to_1_and_agrees_with_scikit_learn(values):
    d = small(features=torch.tensor(values).reshape(20, 2))
    scaled = d.scaled().features
    assert scaled is not None
    train, raw = scaled[d.trainval], d.features[d.trainval]
    assert train.min() >= 0
    assert train.max() <= 1
    for k in range(2):
        constant = raw[:, k].min() == raw[:, k].max()
        assert train[:, k].min() == 0
        assert train[:, k].max() == (0 if constant else 1)
    x = d.features.double().numpy()
    expected = MinMaxScaler().fit(x[d.trainval.numpy()]).transform(x)
    np.testing.assert_allclose(scaled.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of_one_length", [True, False])
def test_scaling_leaves_the_table_where_it_is_in_points(of_one_length):
    lengths = torch.ones(4) if of_one_length else torch.tensor([1.0, 2.0, 3.0, 4.0])
    points = torch.tensor([100.0, 50.0, 20.0, 10.0], dtype=torch.float64)
    d = small(semantics=torch.eye(4) * lengths[:, None], points=points)
    before, after = (part.semantics.double() * part.points[:, None] for part in (d, d.scaled()))
    torch.testing.assert_close(after, before)


def test_scaled_never_looks_at_test_examples():
    d = small()
    other = d.features.clone()
    other[torch.cat([d.test_seen, d.test_unseen])] = 1e9
    a, b = d.scaled(), replace(d, features=other).scaled()
    assert torch.equal(a.features[d.trainval], b.features[d.trainval])
    assert b.features[d.test_seen].min() > 1  # test values may leave [0, 1]


def test_scaled_leaves_the_original_alone():
    d = small()
    before = d.features.clone()
    d.scaled()
    assert torch.equal(d.features, before)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scaled_respects_the_mask(seed):
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(20, 3, generator=rng) < 0.5
    features = torch.rand(20, 3, generator=rng)
    a = small(features=features.masked_fill(~mask, 1e20), mask=mask).scaled().features
    b = small(features=features.masked_fill(~mask, torch.nan), mask=mask).scaled().features
    assert a is not None
    assert b is not None
    assert torch.equal(a, b)
    assert (a[~mask] == 0).all()
    trainval = small().trainval
    observed = a[trainval][mask[trainval]]
    assert bool(((observed >= 0) & (observed <= 1)).all())


def test_dimension_that_trainval_never_observes_becomes_zero():
    mask = torch.ones(20, 3, dtype=torch.bool)
    mask[small().trainval, 1] = False
    scaled = small(mask=mask).scaled().features
    assert scaled is not None
    assert (scaled[:, 1] == 0).all()
    assert (scaled[small().trainval, 0].max(), scaled[small().trainval, 0].min()) == (1, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_range_from_blocks_is_that_of_all_at_once(seed, hide):
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(20, 3, generator=rng) < 0.3 if hide else None
    d = small(features=torch.randn(20, 3, generator=rng), mask=mask)
    values = d.features[d.trainval].double().numpy()
    shown = np.ones_like(values, dtype=bool) if mask is None else mask[d.trainval].numpy()
    low = np.where(shown, values, np.inf).min(0)
    span = np.where(shown, values, -np.inf).max(0).astype(np.float32) - low.astype(np.float32)
    low, span = np.where(shown.any(0), low, 0), np.where(shown.any(0), span, np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_rows", lambda features: 3)
        found = d.observed_range()
    np.testing.assert_array_equal(found[0], low)
    np.testing.assert_array_equal(found[1], np.where(span < 1e-15, 1, span))


@pytest.mark.parametrize("hide", [False, True])
def test_scaled_to_a_file_is_the_same_and_stays_there(tmp_path, monkeypatch, hide):
    monkeypatch.setattr(dataset, "_rows", lambda features: 3)
    mask = torch.rand(20, 3, generator=torch.Generator().manual_seed(2)) < 0.5 if hide else None
    d = small(mask=mask)
    found, file = d.scaled(tmp_path / "scaled.npy"), tmp_path / "scaled.npy"
    assert torch.equal(found.features, d.scaled().features)
    assert torch.equal(found.semantics, d.scaled().semantics)
    before = file.read_bytes()
    found.features.zero_()
    assert file.read_bytes() == before
    with pytest.raises(DataError, match=r"scaled\.npy: found a file, expected a new one"):
        d.scaled(file)


def test_scaled_without_features():
    d = small(features=None, images=torch.zeros(20, 1, 2, 2))
    with pytest.raises(DataError, match="small: features: found none, expected features to scale"):
        d.scaled()


# --- the tuning split ---------------------------------------------------------------------------------


def assert_safe(d: ZSLDataset, tuning: ZSLDataset) -> None:
    """Nothing of a test set is in it, and it is a zero-shot problem of its own (checked on construction)."""
    used = torch.cat([tuning.trainval, tuning.test_seen, tuning.test_unseen])
    assert torch.isin(used, d.trainval).all()
    assert len(used.unique()) == len(used)
    assert not torch.isin(tuning.labels[tuning.test_unseen], d.unseen).any()
    assert not torch.isin(tuning.unseen, tuning.seen).any()


def test_tuning_split_of_leaking_sets():
    d = small()
    assert torch.isin(d.train, d.test_seen).any()  # it leaks, as AWA2's does
    tuning = d.tuning_split()
    assert_safe(d, tuning)
    assert tuning.seen.tolist() == [0, 1]
    assert tuning.unseen.tolist() == [2]
    assert tuning.name == "small-tuning"
    assert len(tuning.test_seen) == 2  # a fifth of four, at least one, of each class


def test_tuning_split_uses_what_train_leaves_of_its_classes():
    d = small(train=torch.tensor([1, 2, 6, 7]))
    tuning = d.tuning_split()
    assert_safe(d, tuning)
    assert tuning.trainval.tolist() == [1, 2, 6, 7]
    assert tuning.test_seen.tolist() == [3, 4, 8, 9]


def test_tuning_split_drops_val_images_of_train_classes():
    d = small(val=torch.tensor([4, 11, 12]), train=torch.tensor([1, 2, 3, 6, 7, 8]))
    tuning = d.tuning_split()
    assert_safe(d, tuning)
    assert tuning.test_unseen.tolist() == [11, 12]


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.95), classes=st.integers(2, 3))
def test_tuning_split_is_disjoint_from_tests_whatever_was_published(seed, share, classes):
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(15, generator=rng)
    labels = torch.arange(20) // 5
    n = max(1, round(share * 15))
    part = order[:n]  # any seen images, test images among them
    d = small(train=part[labels[part] < classes - 1], val=part[labels[part] >= classes - 1])
    with suppress(DataError):  # where nothing is left to tune on
        assert_safe(d, d.tuning_split(seed=seed))


def test_tuning_split_is_the_same_for_the_same_seed():
    d = toy.load()
    a, b, c = d.tuning_split(seed=1), d.tuning_split(seed=1), d.tuning_split(seed=2)
    assert torch.equal(a.trainval, b.trainval)
    assert not torch.equal(a.trainval, c.trainval)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train": torch.zeros(0, dtype=LONG)}, "train: found no index inside trainval"),
        ({"val": torch.tensor([10])}, "val: found no index inside trainval"),  # a test_seen image
        (
            {"val": torch.tensor([1, 2]), "train": torch.tensor([3, 6])},
            "val: found no class that train lacks",
        ),
    ],
)
def test_tuning_split_that_cannot_be(changes, text):
    with pytest.raises(DataError, match=text):
        small(**changes).tuning_split()


def test_scaling_brings_semantics_of_unequal_length_to_length_one():
    data = small_dataset()
    unit = data.scaled().semantics
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(len(unit)))
    torch.testing.assert_close(unit, torch.nn.functional.normalize(data.semantics, dim=1))
    same = replace(data, semantics=unit * 3**0.5)
    assert torch.equal(same.scaled().semantics, same.semantics), "one length already: left as it is"
    zero = replace(data, semantics=data.semantics * (torch.arange(len(unit)) > 0)[:, None])
    assert zero.scaled().semantics.isfinite().all()


def test_candidates_are_the_seen_and_the_unseen_classes_in_order():
    data = small_dataset()
    assert data.candidates.tolist() == sorted({*data.seen.tolist(), *data.unseen.tolist()})


# --- fewer seen classes ----------------------------------------------------------------------------------


def test_with_seen_keeps_the_unseen_task_and_drops_the_other_seen_classes():
    data = small_dataset()
    few = data.with_seen(data.seen[[0, 3]])
    assert torch.equal(few.seen, data.seen[[0, 3]])
    assert torch.equal(few.unseen, data.unseen)
    assert torch.equal(few.test_unseen, data.test_unseen)
    assert torch.equal(few.labels[few.test_seen].unique(), few.seen)
    assert len(few.trainval) == 2 * 6
    assert len(few.train) == len(few.val) == 0


def test_with_all_seen_classes_the_training_set_is_the_same():
    data = small_dataset()
    assert torch.equal(data.with_seen(data.seen).trainval, data.trainval)


def test_with_seen_refuses_no_class_and_classes_that_are_not_seen():
    data = small_dataset()
    for classes in (data.seen[:0], torch.cat([data.seen[:1], data.unseen[:1]])):
        with pytest.raises(DataError, match=r"with_seen: found .* expected some of the seen classes"):
            data.with_seen(classes)
