"""Noise of posterior samples, by image: no batch and no process moves it."""

import numpy as np
import torch
from torch import Tensor

from dcae_bench.keyed_random import keyed


def posterior_noise(seed: int, indices: range, shape: torch.Size) -> Tensor:
    """Standard normal numbers (n, *shape) in float32 for the latents of some images."""
    drawn = [keyed(seed, "posterior", index).standard_normal(tuple(shape), np.float32) for index in indices]
    return torch.from_numpy(np.stack(drawn))
