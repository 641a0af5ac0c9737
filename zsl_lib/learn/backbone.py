"""Train the small residual network of *hangul* and write its features.

    python -m zsl_lib.learn.backbone

Cross-entropy on the class labels of ``train`` (train classes in train typefaces) and nothing else: the
classes and typefaces of ``val`` are as new to the network as those of the test sets. The command
writes ``zsl_lib/models/hangul_backbone.pt`` and ``zsl_lib/data/hangul/features.npz``; it takes a few
minutes on one CPU core (one thread, so that sums have one order; another kind of processor or another
torch still gives a slightly different network).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsl_lib.data.hangul.files import HERE, open_archive, write_archive
from zsl_lib.models.backbone import SmallResNet, hangul_backbone, save_checkpoint


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Light random shifts, turns, stretches and contrast; float ``[n, 1, h, w]`` in [0, 1], same shape.

    Ranges: shift 2 pixels of 32, turn and shear 0.1 radian, stretch 10 %, contrast factor 0.7 to 1.
    """
    n = len(images)
    noise = 2 * torch.rand(n, 2, 2, generator=generator) - 1
    linear = torch.eye(2) + 0.1 * noise
    shift = 2 * (2 / images.shape[-1]) * (2 * torch.rand(n, 2, 1, generator=generator) - 1)
    grid = F.affine_grid(torch.cat([linear, shift], dim=2), list(images.shape), align_corners=False)
    contrast = 1 - 0.3 * torch.rand(n, 1, 1, 1, generator=generator)
    return contrast * F.grid_sample(images, grid, align_corners=False)


def train_backbone(
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    epochs: int = 25,
    batch: int = 64,
    lr: float = 2e-3,
    weight_decay: float = 5e-4,
    verbose: bool = False,
) -> SmallResNet:
    """Fit a :class:`SmallResNet` to ``images`` uint8 ``[n, 1, 32, 32]`` and any int64 ``labels`` ``[n]``.

    AdamW with a learning rate that rises for a tenth of the steps and then falls to 0 as a cosine.
    """
    values, target = labels.unique(return_inverse=True)
    model = _initialised(len(values), generator).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    batch = min(batch, len(images))
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: _warm_cosine(k / steps))
    pixels = images.float() / 255
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for index in order[: len(order) // batch * batch].split(batch):
            loss = F.cross_entropy(
                model(augment(pixels[index], generator)), target[index], label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if verbose:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.3f}", flush=True)
    return model.eval()


def _initialised(n_classes: int, generator: torch.Generator) -> SmallResNet:
    """A network whose weights are drawn from ``generator`` (He et al. 2015; the head from a small normal)."""
    with torch.random.fork_rng(devices=[]):  # PyTorch's own initial weights, thrown away here
        model = SmallResNet(n_classes)
    for p in model.parameters():
        if p.ndim == 4:
            torch.nn.init.kaiming_normal_(p, mode="fan_out", generator=generator)
        elif p.ndim == 2:
            torch.nn.init.normal_(p, std=0.01, generator=generator)
    torch.nn.init.zeros_(model.head.bias)
    return model


def _warm_cosine(progress: float) -> float:
    """Factor on the learning rate at ``progress`` in [0, 1]."""
    if progress < 0.1:
        return 0.1 + 9 * progress
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.1) / 0.9)))


def main() -> None:
    """Train on the committed images and write the checkpoint and the features."""
    torch.set_num_threads(1)
    data, _ = open_archive(HERE / "images.npz")
    splits, _ = open_archive(HERE / "splits.npz")
    images = torch.from_numpy(data["images"])[:, None]
    labels = torch.from_numpy(data["labels"].astype(np.int64))
    train = torch.from_numpy(splits["train"].astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    save_checkpoint(train_backbone(images[train], labels[train], generator=generator, verbose=True))
    features = hangul_backbone().extract(images)  # of the half-precision weights, as a reader gets them
    write_archive(HERE / "features.npz", {"features": features.numpy().astype(np.float16)})


if __name__ == "__main__":
    main()
