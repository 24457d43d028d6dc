"""The interface of a diffusion process, and helpers that the processes share."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dcae_bench.specs.diffusion import ProcessName

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A denoiser: maps noisy latents (n, c, h, w), times (n,) and labels (n,) to a prediction."""


class Process(ABC):
    """How latents become noise, and which loss a denoiser learns from.

    A process draws no random numbers: the caller passes uniform numbers and noise, keyed by image.
    """

    name: ProcessName

    @abstractmethod
    def times(self, uniform: Tensor) -> Tensor:
        """Training times (n,) on the model's scale, from numbers (n,) that are uniform in [0, 1)."""

    @abstractmethod
    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Loss of each sample (n,) in float32. x0 and noise are (n, c, h, w); t comes from :meth:`times`."""


class Tables:
    """Named tables of coefficients by step, computed in float64; a copy stays on each device that uses them."""

    def __init__(self, **tables: np.ndarray) -> None:
        self._tables = {name: torch.from_numpy(values) for name, values in tables.items()}
        self._kept: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def at(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """The table's entries for steps t (n,), in a shape that scales ``like`` (n, c, h, w)."""
        key = (name, like.device, like.dtype)
        if key not in self._kept:
            with torch.inference_mode(False):  # training cannot use tensors that sampling made in inference mode
                self._kept[key] = self._tables[name].to(like.device, like.dtype, copy=True)
        return per_sample(self._kept[key][t], like)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape values (n,) so that they scale samples ``like`` (n, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def mean_per_sample(values: Tensor) -> Tensor:
    """Mean over each sample's values: (n, ...) to (n,)."""
    return values.flatten(1).mean(dim=1)
