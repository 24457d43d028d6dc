"""Decoding a denoiser's latents to images."""

from typing import Protocol

import torch
from torch import Tensor

from dcae_bench.data.pixels import to_uint8
from dcae_bench.models.autoencoder import Autoencoder, images_at_once
from dcae_bench.specs.latent_scale import Numbers, over_cells


class Scale(Protocol):
    """How a denoiser's latents were scaled for training: (latent - shift) * scaling_factor."""

    @property
    def scaling_factor(self) -> Numbers:
        """The factor of all channels, or of each, above 0."""

    @property
    def shift(self) -> Numbers:
        """The number subtracted before scaling, of all channels or of each."""


def unscale(latents: Tensor, scale: Scale) -> Tensor:
    """Latents (n, c, h, w) of an autoencoder, from those that a denoiser works on."""
    factor, shift = _numbers(scale.scaling_factor, latents), _numbers(scale.shift, latents)
    return latents / factor + shift


def _numbers(numbers: Numbers, latents: Tensor) -> float | Tensor:
    if not isinstance(numbers, tuple):
        return numbers
    return torch.from_numpy(over_cells(numbers, tuple(latents.shape[1:]))).to(latents)


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, scale: Scale) -> Tensor:
    """Decode scaled latents (n, c, h, w) to images, uint8 (n, 3, H, W).

    ``scale`` is the scale that the denoiser's training latents had. Large images are decoded a few at a time, because
    the decoder's activations take far more memory than the batch of latents.
    """
    z = unscale(latents, scale)
    parts = z.split(images_at_once(z.shape[-1] * autoencoder.compression))
    return torch.cat([to_uint8(autoencoder.decode(part)) for part in parts])
