"""Random numbers that belong to an image: keyed by (seed, purpose, image index), never by batch or process."""

import hashlib

import numpy as np
import torch
from torch import Tensor


def posterior_noise(seed: int, indices: range, shape: torch.Size) -> Tensor:
    """Standard normal numbers (n, *shape) in float32 for the latents of some images."""
    return torch.stack([_normal(seed, "posterior", index, shape) for index in indices])


def _normal(seed: int, purpose: str, index: int, shape: torch.Size) -> Tensor:
    digest = hashlib.sha256(repr((seed, purpose, index)).encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.dtype("<u8"))))
    return torch.from_numpy(generator.standard_normal(tuple(shape), np.float32))
