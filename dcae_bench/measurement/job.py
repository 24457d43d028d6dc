"""A job: a case, its protocol, batch and device; and the workload that it becomes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dcae_bench.measurement.cases import Case
from dcae_bench.measurement.modes import fastest_attention
from dcae_bench.measurement.recipes import Mode, Precision, Recipe
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.timing import Workload

Inputs = tuple[Tensor, ...]
BUFFERS = 3
"""Inputs in rotation: one alone may stay in a cache."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What to build: a case under a protocol, at a batch, on a device."""

    case: Case
    recipe: Recipe
    batch: int
    device: torch.device
    checkpointing: bool = False
    mode: Mode = "eager"
    check: bool = True
    seed: int = 0

    @property
    def precision(self) -> Precision:
        """Of this case under the protocol."""
        return self.recipe.precision(self.case)

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic; weights have it only without autocast."""
        return DTYPES[self.precision.split()[0]]

    @property
    def memory_format(self) -> torch.memory_format:
        """Of an autoencoder and its images."""
        return torch.channels_last if self.recipe.channels_last else torch.contiguous_format

    @property
    def fast(self) -> bool:
        """Whether this is another way of computing than plain eager fp32."""
        return self.mode != "eager" or self.precision != "fp32"

    @property
    def kernel(self) -> str | None:
        """Attention kernel to use, None for torch's choice, which autoencoders are left with."""
        if self.case.denoiser is None or self.recipe.attention == "torch's choice" or self.device.type == "cpu":
            return None
        return fastest_attention(self.case.spec, self.batch, self.dtype, self.device, train=self.case.trains)


@dataclass(frozen=True)
class Ready:
    """A workload, warm or not, and what must be known of it."""

    call: Workload
    batch: int
    settings: dict[str, str]
    agreement: Agreement | None


def precision_context(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Autocast where the precision asks for it. Without its cache of cast weights, which a CUDA graph must not keep."""
    name, _, autocast = precision.partition(" ")
    return torch.autocast(device.type, DTYPES[name], cache_enabled=False) if autocast else nullcontext()


def kernel_setting(kernel: str | None) -> dict[str, str]:
    """What a record says of the attention kernel."""
    return {} if kernel is None else {"attention": kernel}
