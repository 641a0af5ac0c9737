"""A GAN for incomplete features: the critic sees of a synthetic feature only what is observed of a real one.

AmbientGAN's idea (Bora et al. 2018), with the mask as the measurement.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zsl_lib.learn.gan import Batch, FeatureGAN
from zsl_lib.learn.learner import Training


class MaskedGAN(FeatureGAN):
    """:class:`FeatureGAN` whose terms compare M ∘ x with M ∘ x̃: each x̃ takes the mask of its batch's x.

    Without a mask it is FeatureGAN. A synthetic feature is complete: the mask is on while learning only.
    """

    def _epoch(self, data: Training) -> dict[str, float]:
        if data.mask is None:
            return super()._epoch(data)
        hook = self.net.register_forward_hook(self._cover)
        try:
            return super()._epoch(data)
        finally:
            hook.remove()

    def _take(self, data: Training, index: Tensor) -> Batch:
        self._observed = None if data.mask is None else data.mask[index]
        return super()._take(data, index)

    def _cover(self, net: nn.Module, inputs: tuple[Tensor, ...], fake: Tensor) -> Tensor:
        assert self._observed is not None  # _epoch registers this with a mask only
        return torch.where(self._observed, fake, 0.0)
