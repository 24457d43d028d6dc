"""Noise of posterior samples, drawn by image index: neither the batch size nor the number of processes changes it."""

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.keyed_random import keyed_generator


def posterior_noise(seed: int, indices: range, shape: torch.Size) -> Tensor:
    """Draw standard normal numbers for the latents of the images ``indices``, float32 (n, *shape)."""
    drawn = [keyed_generator(seed, "posterior", index).standard_normal(tuple(shape), np.float32) for index in indices]
    return torch.from_numpy(np.stack(drawn))
