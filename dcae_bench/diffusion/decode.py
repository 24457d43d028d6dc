"""From a denoiser's latents to images."""

import torch
from torch import Tensor

from dcae_bench.data.latents import LatentManifest
from dcae_bench.metrics.image import to_uint8
from dcae_bench.models.autoencoder import Autoencoder


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, manifest: LatentManifest) -> Tensor:
    """Scaled latents (n, c, h, w) to images, uint8 (n, 3, H, W); the scale is that of the cache they learned from."""
    return to_uint8(autoencoder.decode(latents / manifest.scaling_factor + manifest.shift))
