"""A small residual network for 32 x 32 letters, and the one trained on *hangul*."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

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
        """
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        x = (x - 0.14) / 0.26  # mean and standard deviation of train's pixels
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
