"""Feature extractor: a network that turns images into the vectors whose distributions a Fréchet distance compares."""

from typing import Protocol

import torch
from torch import Tensor


class FeatureExtractor(Protocol):
    """The interface of every extractor. Extractors compute in float32 and keep the TF32 setting of the caller."""

    name: str
    distance: str
    """Printed name of the Fréchet distance of these features: FID only with FID's network and weights, else FD."""
    key: str
    """Key of the distance in records, where ``r`` (reconstruction) or ``g`` (generation) precedes the key."""
    dim: int
    """Numbers per feature vector."""
    weights_sha256: str

    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, dim) in float32 of uint8 images (n, 3, h, w), on the images' device."""
        ...


def require_uint8(images: Tensor) -> None:
    """Raise ValueError for anything but 8-bit colour images (n, 3, h, w)."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected uint8 images (n, 3, h, w), got {images.dtype} {tuple(images.shape)}")
