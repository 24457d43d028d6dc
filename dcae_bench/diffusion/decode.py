"""Decoding a denoiser's latents to images."""

from typing import Protocol

import torch
from torch import Tensor

from dcae_bench.data.pixels import to_uint8
from dcae_bench.models.autoencoder import Autoencoder, images_at_once


class Scale(Protocol):
    """How a denoiser's latents were scaled for training: (latent - shift) * scaling_factor."""

    @property
    def scaling_factor(self) -> float:
        """The factor, above 0."""

    @property
    def shift(self) -> float:
        """The number subtracted before scaling."""


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, scale: Scale) -> Tensor:
    """Decode scaled latents (n, c, h, w) to images, uint8 (n, 3, H, W).

    ``scale`` is the scale that the denoiser's training latents had. Large images are decoded a few at a time, because
    the decoder's activations take far more memory than the batch of latents.
    """
    z = latents / scale.scaling_factor + scale.shift
    parts = z.split(images_at_once(z.shape[-1] * autoencoder.compression))
    return torch.cat([to_uint8(autoencoder.decode(part)) for part in parts])
