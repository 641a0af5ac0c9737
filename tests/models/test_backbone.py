"""The small residual network and its committed checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zsl_lib.data.hangul import load
from zsl_lib.errors import DataError
from zsl_lib.learn.backbone import augment, train_backbone
from zsl_lib.models.backbone import CHECKPOINT, SmallResNet, hangul_backbone, save_checkpoint


def test_checkpoint_is_small() -> None:
    assert CHECKPOINT.stat().st_size <= 3_000_000
    assert 250_000 <= sum(p.numel() for p in hangul_backbone().parameters()) <= 600_000


def test_checkpoint_reproduces_the_committed_features() -> None:
    data = load(images=True)
    assert data.images is not None
    assert data.features is not None
    index = torch.arange(0, len(data), 41)
    found = hangul_backbone().extract(data.images[index])
    torch.testing.assert_close(found, data.features[index], rtol=2e-3, atol=2e-3)


def test_head_knows_the_train_classes_in_new_typefaces() -> None:
    data = load(images=True)
    assert data.images is not None
    tuning = data.tuning_split()
    classes = data.labels[data.train].unique()
    index = tuning.test_seen[::5]
    with torch.no_grad():
        found = classes[hangul_backbone()(data.images[index]).argmax(1)]
    assert (found == data.labels[index]).float().mean() > 0.8


def test_bytes_and_floats_give_the_same_features() -> None:
    images = torch.randint(0, 256, (5, 1, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    model = SmallResNet(7).eval()
    torch.testing.assert_close(model.features(images), model.features(images.float() / 255))
    assert model.features(images).shape == (5, 128)
    assert model.features(images).min() >= 0
    assert model(images).shape == (5, 7)


def test_extract_leaves_the_mode_and_batches_alike() -> None:
    images = torch.rand(9, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model = SmallResNet(3)
    torch.testing.assert_close(model.extract(images, batch=4), model.extract(images))
    assert model.training


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = SmallResNet(4).eval()
    save_checkpoint(model, tmp_path / "a.pt")
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        hangul_backbone(tmp_path / "a.pt")(images), model(images), rtol=1e-2, atol=1e-2
    )
    with pytest.raises(DataError, match=r"b\.pt"):
        hangul_backbone(tmp_path / "b.pt")


def test_training_learns_and_is_repeatable() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 40, (64, 1, 32, 32), generator=rng).byte()
    images[labels == 1, :, 8:24, 14:18] += 200  # class 1 has a bar
    runs = [
        train_backbone(images, labels + 5, generator=torch.Generator().manual_seed(1), epochs=8, batch=16)
        for _ in range(2)
    ]
    with torch.no_grad():
        assert (runs[0](images).argmax(1) == labels).float().mean() > 0.9
        torch.testing.assert_close(runs[0](images), runs[1](images))


def test_training_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    images = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    train_backbone(images, torch.arange(4), generator=torch.Generator().manual_seed(0), epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_augmentation_is_seeded_and_stays_in_range() -> None:
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    a, b = (augment(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.min() >= 0
    assert a.max() <= 1
    assert not torch.equal(a, images)
