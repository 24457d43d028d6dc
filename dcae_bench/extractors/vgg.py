"""VGG16 feature extractor: the trained backbone of LPIPS."""

import torch
from torch import Tensor

from dcae_bench.extractors.extractor import require_uint8
from dcae_bench.extractors.lpips import LPIPS


class VGG16Extractor:
    """Mean over the image of the last convolution's output (relu5_3, 512 numbers).

    Network, embedded ImageNet weights and normalisation are LPIPS's. Images are not resized, so features of different
    resolutions are not comparable. Raises :class:`WeightsError` when the embedded weights are missing.
    """

    name = "VGG16"
    distance = "FD (VGG16)"
    key = "fd_vgg16"
    dim = 512

    def __init__(self):
        self.model = LPIPS.load("vgg")
        self.weights_sha256 = self.model.weights_sha256

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 512) in float32 of uint8 images (n, 3, h, w) of 16 px or more."""
        require_uint8(images)
        self.model.to(images.device)
        at_once = 1 if images.device.type == "cpu" else 16
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._features(part) for part in images.split(at_once)])

    def _features(self, images: Tensor) -> Tensor:
        x = self.model.normalise(images.float() / 127.5 - 1)
        for stage in self.model.stages:
            x = stage(x)
        return x.mean(dim=(2, 3))
