"""What every diffusion process offers to training."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dcae_bench.diffusion_specs import ProcessName

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A denoiser: noisy latent, time, label to prediction."""


class Process(ABC):
    """How latents become noise, and what a denoiser learns from it.

    Nothing here draws random numbers: uniform numbers and noise come from the caller, who keys them.
    """

    name: ProcessName

    @abstractmethod
    def times(self, uniform: Tensor) -> Tensor:
        """Training times (n,), as the model takes them, from numbers (n,) uniform in [0, 1)."""

    @abstractmethod
    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Loss of each sample (n,) in float32: x0 and noise are (n, c, h, w), t comes from :meth:`times`."""


class Tables:
    """Coefficients by step, made in float64 and kept on each device that asked for them."""

    def __init__(self, **tables: np.ndarray) -> None:
        self._tables = {name: torch.from_numpy(values) for name, values in tables.items()}
        self._kept: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def at(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """A table's entries of steps t (n,), shaped to scale ``like`` (n, c, h, w)."""
        key = (name, like.device, like.dtype)
        if key not in self._kept:
            with torch.inference_mode(False):  # sampling may ask first, and training cannot use inference tensors
                self._kept[key] = self._tables[name].to(like.device, like.dtype, copy=True)
        return per_sample(self._kept[key][t], like)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Values (n,) shaped to scale samples ``like`` (n, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def mean_per_sample(values: Tensor) -> Tensor:
    """Mean of each sample: (n, ...) to (n,)."""
    return values.flatten(1).mean(dim=1)
