"""Score functions of the tests of attacks, and what they measure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import foolbox
import torch
from filelock import FileLock
from torch import Tensor, nn

with FileLock(Path(tempfile.gettempdir()) / "zsl-book-art.lock"):
    # Its first import writes a file of settings, and fails where another process is just doing the same.
    from art.estimators.classification import PyTorchClassifier


class Problem(NamedTuple):
    """A score function in pixels, images that it recognises, and their classes."""

    scores: nn.Module
    x: Tensor
    y: Tensor


class Linear(nn.Module):
    """Scores x W' + b, in pixels."""

    def __init__(self, W: Tensor, b: Tensor) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(W), nn.Parameter(b)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.W.T + self.b


class Network(nn.Module):
    """Convolution, normalisation, two layers; pixels become [0, 1] inside."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(8 * 36, 24),
            nn.Softplus(),
            nn.Linear(24, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / 255 - 0.5)


class InUnits(nn.Module):
    """The same scores for images in [0, 1], as other packages want them."""

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(255 * x)


def in_foolbox(problem: Problem) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(InUnits(problem.scores).eval(), bounds=(0, 1), device="cpu")


def in_art(problem: Problem) -> PyTorchClassifier:
    model, loss = InUnits(problem.scores).eval(), nn.CrossEntropyLoss()
    return PyTorchClassifier(model, loss, problem.x.shape[1:], 5, clip_values=(0, 1))


def fooled(problem: Problem, x_adv: Tensor) -> Tensor:
    """Which attacked images are misrecognised, ``[n]``."""
    with torch.no_grad():
        return problem.scores(x_adv).argmax(1) != problem.y


def lengths(x_adv: Tensor, x: Tensor, order: float = 2) -> Tensor:
    """Norm of each perturbation, ``[n]``."""
    return torch.linalg.vector_norm((x_adv - x).flatten(1), order, dim=1)
