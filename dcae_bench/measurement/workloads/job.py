"""The job: a case with its protocol, batch and device; and the workload that is built from a job."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dcae_bench.execution.attention import attention_kernel, fastest_attention
from dcae_bench.execution.fast import searched_convolutions
from dcae_bench.measurement.instruments.timing import Workload
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.cases import Case
from dcae_bench.measurement.workloads.recipes import Mode, Precision, Recipe
from dcae_bench.running.precision import DTYPES

Inputs = tuple[Tensor, ...]
BUFFERS = 3
"""Number of batches in rotation. A single batch could stay in a cache and run faster."""


@dataclass(frozen=True)
class Job:
    """What to build: a case under a protocol, with a batch size, on a device."""

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
        """Precision of the case under the protocol."""
        return self.recipe.precision(self.case)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the arithmetic. The weights have this type only without autocast."""
        return DTYPES[self.precision.split()[0]]

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of an autoencoder and its images."""
        return torch.channels_last if self.recipe.channels_last else torch.contiguous_format

    @property
    def fast(self) -> bool:
        """Whether anything differs from the plain network in eager fp32, so that the outputs must be checked."""
        return self.mode != "eager" or self.precision != "fp32" or self.rewritten

    @property
    def kernel(self) -> str | None:
        """Name of the attention kernel; None leaves the choice to torch, as always for autoencoders and on a CPU."""
        if self.case.denoiser is None or self.recipe.attention == "torch's choice" or self.device.type == "cpu":
            return None
        return fastest_attention(
            self.case.spec,
            self.batch,
            self.dtype,
            self.device,
            train=self.case.trains,
            compiled=self.mode.startswith("compile"),
        )

    @property
    def rewritten(self) -> bool:
        """Whether networks are rewritten for speed; TensorRT rewrites them in its own way."""
        return self.recipe.rewritten and self.mode != "trt"

    @property
    def stream(self) -> torch.dtype | None:
        """Type of a denoiser's tokens between its blocks; None: as computed."""
        return self.dtype if self.rewritten and "autocast" in self.precision else None

    @property
    def settings(self) -> dict[str, str]:
        """Settings for the record that every workload has.

        Where the weights are drawn, because a GPU draws others than a processor, and whether networks are rewritten.
        """
        return {"built_on": self.device.type, **({"rewritten": "true"} if self.rewritten else {})}


@dataclass(frozen=True)
class Ready:
    """A workload that can be timed, with the facts for its record."""

    call: Workload
    batch: int
    settings: dict[str, str]
    agreement: Agreement | None
    agree_again: Callable[[], Agreement | None]
    """Repeats the check of a faster mode after the timing; None where plain eager PyTorch itself was timed.

    Raises :class:`MeasurementError` if the outputs are no longer those of plain eager PyTorch. What a training step has
    learned is lost.
    """


def precision_context(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Autocast if the precision asks for it, without the cache of cast weights, which a CUDA graph must not keep."""
    name, _, autocast = precision.partition(" ")
    return torch.autocast(device.type, DTYPES[name], cache_enabled=False) if autocast else nullcontext()


@contextmanager
def kernels(job: Job, attention: str | None) -> Iterator[None]:
    """Use an attention kernel, and for rewritten networks the convolutions that cuDNN finds fastest."""
    with attention_kernel(attention), searched_convolutions() if job.rewritten else nullcontext():
        yield


def kernel_setting(kernel: str | None) -> dict[str, str]:
    """The setting of the attention kernel for the record; empty if torch chooses."""
    return {} if kernel is None else {"attention": kernel}
