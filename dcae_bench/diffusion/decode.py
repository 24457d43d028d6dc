"""From a denoiser's latents to images."""

import torch
from torch import Tensor

from dcae_bench.data.latents import LatentManifest
from dcae_bench.metrics.image import to_uint8
from dcae_bench.models.autoencoder import Autoencoder, images_at_once


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, manifest: LatentManifest) -> Tensor:
    """Scaled latents (n, c, h, w) to images, uint8 (n, 3, H, W); the scale is that of the cache they learned from.

    Large images are decoded in parts: a batch of latents is small beside its images on the way.
    """
    z = latents / manifest.scaling_factor + manifest.shift
    parts = z.split(images_at_once(z.shape[-1] * autoencoder.compression))
    return torch.cat([to_uint8(autoencoder.decode(part)) for part in parts])
