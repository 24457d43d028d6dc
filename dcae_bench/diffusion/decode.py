"""From a denoiser's latents to images."""

from typing import Protocol

import torch
from torch import Tensor

from dcae_bench.metrics.image import to_uint8
from dcae_bench.models.autoencoder import Autoencoder, images_at_once


class Scale(Protocol):
    """How a denoiser's latents were scaled: (latent - shift) * scaling_factor."""

    @property
    def scaling_factor(self) -> float:
        """The factor, positive."""

    @property
    def shift(self) -> float:
        """What is taken away before."""


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, scale: Scale) -> Tensor:
    """Scaled latents (n, c, h, w) to images, uint8 (n, 3, H, W); the scale is that of the latents in training.

    Large images are decoded in parts: a batch of latents is small beside its images on the way.
    """
    z = latents / scale.scaling_factor + scale.shift
    parts = z.split(images_at_once(z.shape[-1] * autoencoder.compression))
    return torch.cat([to_uint8(autoencoder.decode(part)) for part in parts])
