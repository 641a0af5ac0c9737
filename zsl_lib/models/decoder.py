"""A generator of small grey images: what c and z say becomes pixels that one can look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.errors import DataError
from zsl_lib.models.generator import SLOPE, linear

POSE = ("rotation", "shear", "size", "shift_x", "shift_y")
"""What the first five latents of a :class:`LetterGenerator` do, in this order."""

START = (0.07, 0.08, 0.08, 0.06, 0.06)
"""Amount of each for a latent of 1, before learning: radians, slope, log scale, half widths of the image."""


class LetterGenerator(nn.Module):
    """g_θ(c, z) for square grey images: a drawing, then an affine warp by the first five latents.

    The drawing is a network of two hidden layers of c and the other latents, with a sigmoid output. The
    warp turns, slants, scales and shifts it by ``amount * z[:, :5]``; ``amount`` is learned. So the same z
    moves each letter alike, which the drawing's weights need not learn for each letter anew.

    Parameters
    ----------
    semantic_dim, latent_dim: K and d, of which five are the pose and at least one is left to the drawing.
    pixels: of the image, a square number.
    hidden: width of the second hidden layer; the first has half of it.
    generator: source of the initial weights.
    """

    def __init__(
        self,
        semantic_dim: int,
        latent_dim: int,
        pixels: int,
        hidden: int = 512,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if latent_dim <= len(POSE):
            raise DataError("LetterGenerator: latent_dim", found=latent_dim, expected="6 or more")
        self.side = math.isqrt(pixels)
        if self.side**2 != pixels:
            raise DataError("LetterGenerator: pixels", found=pixels, expected="a square number")
        self.from_c = linear(semantic_dim, hidden // 2, generator, 0.3)
        self.from_z = linear(latent_dim - len(POSE), hidden // 2, generator, 0.3)
        self.joined = linear(hidden // 2, hidden, generator, (hidden // 2) ** -0.5)
        self.ink = linear(hidden, pixels, generator, hidden**-0.5)
        self.amount = nn.Parameter(torch.tensor(START))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        """Mean image g_θ(c, z), flat ``[n, pixels]``, of semantics ``[n, K]`` and latents ``[n, d]``."""
        return self.decode(self.condition(c), z)

    def condition(self, c: Tensor) -> Tensor:
        """The first layer's share of the semantics, ``[n, hidden / 2]``: constant while z moves."""
        return self.from_c(c)

    def decode(self, from_c: Tensor, z: Tensor) -> Tensor:
        """g_θ from :meth:`condition`'s output and z. ``forward`` is their composition."""
        pose, style = z[:, : len(POSE)], z[:, len(POSE) :]
        return warp(self.draw(from_c, style), pose * self.amount)

    def draw(self, from_c: Tensor, style: Tensor) -> Tensor:
        """The upright letter ``[n, side, side]``."""
        first = F.leaky_relu(from_c + self.from_z(style), SLOPE)
        second = F.leaky_relu(self.joined(first), SLOPE)
        return torch.sigmoid(self.ink(second)).unflatten(1, (self.side, self.side))


def warp(images: Tensor, pose: Tensor) -> Tensor:
    """Grey images ``[n, H, W]`` seen through an affine map, flat ``[n, H W]``; 0 outside, bilinear.

    ``pose [n, 5]``: rotation r (radians), shear k, size s (logarithm of the scale), shifts t. The image at u,
    in coordinates from -1 to 1, is the drawing at e⁻ˢ R(r) (u₁ + k u₂, u₂) - t.
    """
    r, k, s, tx, ty = pose.unbind(1)
    cos, sin = r.cos() * (-s).exp(), r.sin() * (-s).exp()
    rows = [torch.stack([cos, k * cos - sin, -tx], 1), torch.stack([sin, k * sin + cos, -ty], 1)]
    n, height, width = images.shape
    grid = F.affine_grid(torch.stack(rows, 1), [n, 1, height, width], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False).flatten(1)
