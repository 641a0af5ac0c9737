r"""The relation network of paper 2 (ATZSL), Eq. 1 and 2: how well does an image fit a description?

An image has the embedding :math:`f_\phi(x)`, a description :math:`g_\varphi(p)`, both of width d, and a third
network, of one hidden layer of H units, looks at both:

.. math:: r_{ij} = g_\psi([f_\phi(x_i), g_\varphi(p_j)]) = v^\top [W_f f_i + W_g g_j + b]_+ + b_0

The first layer on the concatenation is a sum of a part of the image and a part of the description. So each
image and each description goes through it once, O((n + C) d H), and pairs cost O(n C H), where the
concatenations of all pairs, multiplied out, cost O(n C d H) and take O(n C d) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.errors import DataError
from zsl_lib.models.generator import linear

Combine = Literal["concatenation", "product", "elementwise"]


class Backbone(Protocol):
    """An ``nn.Module`` that makes pooled features: see :mod:`zsl_lib.models.backbone`."""

    @property
    def width(self) -> int: ...

    def features(self, images: Tensor) -> Tensor:
        """``[n, width]`` of images, uint8 or float in [0, 1]."""
        ...


class RelationNetwork(nn.Module):
    """Relation scores of images and class descriptions (paper 2, Eq. 1; §4.3).

    Parameters
    ----------
    backbone: the feature extraction module, an ``nn.Module`` that is a :class:`Backbone`.
    n_attributes: K.
    embedding: d. Where the backbone's features have another width, a linear map and a ReLU bring them to
        d; ResNet34's are 512 wide, so that the paper needs none.
    attribute_hidden: hidden units of the attribute MLP (the paper: 300 on AWA2, 400 on CUB).
    hidden: H, hidden units of the relation MLP.
    combine: ``"concatenation"`` is Eq. 1. ``"product"`` is :math:`f^\\top g`, the operator that §3.2 argues
        against and that Baseline3 has, with no relation MLP after it. Its scores start about √d times as
        large as those of Eq. 1, and with γ = 1 it learns badly: √d is the temperature that suits it.
        ``"elementwise"``, the relation MLP on :math:`f \\odot g`, is the other way to read §5.3's words; it
        has no split and costs O(n C d H).
    temperature: γ of Eq. 2.
    attribute_scale: descriptions are multiplied by this before all else. It makes their unit no matter of
        training: see :func:`unit_scale`.
    generator: source of the initial weights (He et al. 2015; biases 0).

    Raises
    ------
    DataError: another ``combine``, or a temperature of 0 or less.
    """

    attribute_scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_attributes: int,
        *,
        embedding: int = 512,
        attribute_hidden: int = 400,
        hidden: int = 400,
        combine: Combine = "concatenation",
        temperature: float = 1.0,
        attribute_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if combine not in get_args(Combine):
            raise DataError("RelationNetwork: combine", found=repr(combine), expected=get_args(Combine))
        if not temperature > 0:
            raise DataError("RelationNetwork: temperature", found=temperature, expected="above 0")
        self.backbone, self.combine, self.temperature = backbone, combine, temperature
        self.register_buffer("attribute_scale", torch.tensor(float(attribute_scale)))
        width = int(backbone.width)  # type: ignore[arg-type]
        self.adapt: nn.Module = nn.Identity()
        if width != embedding:
            self.adapt = nn.Sequential(_he(width, embedding, generator), nn.ReLU())
        self.attributes = nn.Sequential(
            _he(n_attributes, attribute_hidden, generator),
            nn.ReLU(),
            _he(attribute_hidden, embedding, generator),
            nn.ReLU(),
        )
        if combine != "product":
            self.first = _he((1 + (combine == "concatenation")) * embedding, hidden, generator)
            self.last = linear(hidden, 1, generator, std=hidden**-0.5)

    def forward(self, images: Tensor, semantics: Tensor) -> Tensor:
        """Scores r / γ ``[n, C]`` of images and descriptions ``[C, K]``; their softmax is Eq. 2.

        ``images``: ``[n, channels, h, w]``, uint8 or float in pixels of [0, 255], or the backbone's
        features ``[n, width]``.
        """
        return self.compare_with(semantics)(images)

    def image_embedding(self, images: Tensor) -> Tensor:
        """f ``[n, d]``, non-negative where the backbone's features are."""
        if images.ndim == 2:
            return self.adapt(images)
        pixels = images if images.dtype == torch.uint8 else images / 255
        return self.adapt(self.backbone.features(pixels))  # type: ignore[operator]

    def attribute_embedding(self, semantics: Tensor) -> Tensor:
        """g ``[C, d]``, non-negative, of descriptions ``[C, K]``; ``[n, C, d]`` of ``[n, C, K]``."""
        return self.attributes(self.attribute_scale * semantics)

    def relation(self, image: Tensor, attribute: Tensor) -> Tensor:
        """r ``[n, C]`` of embeddings ``[n, d]`` and ``[C, d]``, before the temperature.

        ``[n, C, d]`` compares each image with descriptions of its own.
        """
        return self._relation(self._image_share(image), self._share(attribute))

    def compare_with(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """images ↦ scores ``[n, C]`` as :meth:`forward`, of these descriptions, embedded here and once."""
        share = self._share(self.attribute_embedding(semantics))
        return lambda images: (
            self._relation(self._image_share(self.image_embedding(images)), share) / self.temperature
        )

    def compare_embedded(self, image: Tensor) -> Callable[[Tensor], Tensor]:
        """descriptions ``[C, K]`` or ``[n, C, K]`` ↦ scores ``[n, C]`` of image embeddings ``[n, d]``."""
        share = self._image_share(image)
        return lambda tables: (
            self._relation(share, self._share(self.attribute_embedding(tables))) / self.temperature
        )

    def _share(self, attribute: Tensor) -> Tensor:
        """What an attribute embedding ``[C, d]`` has in all its pairs: W_g g + b, or itself."""
        if self.combine != "concatenation":
            return attribute
        return F.linear(attribute, self.first.weight.chunk(2, dim=1)[1], self.first.bias)

    def _image_share(self, image: Tensor) -> Tensor:
        """The same of an image embedding ``[n, d]``: W_f f, or itself."""
        if self.combine != "concatenation":
            return image
        return F.linear(image, self.first.weight.chunk(2, dim=1)[0])

    def _relation(self, image: Tensor, share: Tensor) -> Tensor:
        """r ``[n, C]`` of shares ``[n, d or H]`` and ``[C, d or H]`` or ``[n, C, d or H]``."""
        if self.combine == "product":
            return image @ share.T if share.ndim == 2 else (image[:, None] * share).sum(2)
        pairs = (
            image[:, None] + share if self.combine == "concatenation" else self.first(image[:, None] * share)
        )
        return self.last(pairs.relu_()).squeeze(2)


def unit_scale(semantics: Tensor) -> float:
    """The factor that gives the entries of descriptions ``[C, K]`` a mean square of 1.

    The paper has attributes from 0 to 100; the benchmark's are of length 1, hangul's are 0 or 1. With this
    factor in front the unit is the same for all, and so are the initial weights that suit it. It shifts
    nothing: an attribute of 0 stays one.
    """
    return float(semantics.square().mean().clamp(min=1e-12).rsqrt())


def _he(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    return linear(inputs, outputs, generator, std=(2 / inputs) ** 0.5)
