"""The generator of images: its warp against scipy, its parts against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng
from scipy import ndimage

from zsl_lib.errors import DataError
from zsl_lib.models.decoder import LetterGenerator, warp


def test_no_pose_changes_nothing():
    images = torch.rand(3, 8, 8, generator=rng())
    assert torch.allclose(warp(images, torch.zeros(3, 5)), images.flatten(1), atol=1e-6)


def test_the_warp_is_scipys():
    image, pose = (
        torch.rand(16, 16, generator=rng()).double(),
        torch.tensor([0.3, 0.2, -0.1, 0.15, -0.05]).double(),
    )
    r, k, s, tx, ty = pose.tolist()
    cos, sin = np.cos(r) * np.exp(-s), np.sin(r) * np.exp(-s)
    matrix = np.array([[sin * k + cos, sin], [cos * k - sin, cos]])  # of (row, column)
    centre = np.full(2, 7.5)
    offset = centre - matrix @ centre - 8 * np.array([ty, tx])  # a half width is 8 pixels
    expected = ndimage.affine_transform(image.numpy(), matrix, offset, order=1)
    found = warp(image[None], pose[None]).view(16, 16).numpy()
    inside = ndimage.affine_transform(np.ones((16, 16)), matrix, offset, order=1) == 1
    assert inside.mean() > 0.5
    assert np.allclose(found[inside], expected[inside], atol=1e-9)


def test_a_positive_size_is_a_larger_letter_and_a_shift_moves_it():
    image = torch.zeros(1, 32, 32)
    image[:, 12:20, 12:20] = 1
    pose = torch.tensor([[0, 0, 0.5, 0, 0], [0, 0, 0, 0.25, 0], [0, 0, 0, 0, 0.25]])
    larger, right, down = (warp(image, p[None]).view(32, 32) for p in pose)
    assert larger.sum() > 1.5 * image.sum()
    assert right.sum(0).argmax() > 12 + 3
    assert down.sum(1).argmax() > 12 + 3


def test_images_are_grey_and_the_class_share_is_constant():
    net = LetterGenerator(5, 8, 64, hidden=16, generator=rng())
    c, z = torch.rand(4, 5, generator=rng(1)), torch.randn(4, 8, generator=rng(2))
    image = net(c, z)
    assert image.shape == (4, 64)
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(net.decode(net.condition(c), z), image)
    same = LetterGenerator(5, 8, 64, hidden=16, generator=rng())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))


def test_the_gradient_in_z_is_that_of_finite_differences():
    net = LetterGenerator(5, 8, 64, hidden=16, generator=rng()).double()
    c, z = torch.rand(1, 5, generator=rng(1)).double(), torch.randn(1, 8, generator=rng(2)).double()
    assert torch.autograd.gradcheck(lambda z: net(c, z), z.requires_grad_(), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(("d", "pixels"), [(5, 64), (8, 60)])
def test_impossible_sizes_are_refused(d, pixels):
    with pytest.raises(DataError, match="LetterGenerator"):
        LetterGenerator(5, d, pixels)
