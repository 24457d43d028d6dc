"""The training step that is timed, checked against a plain step first. No scaler, EMA, clipping or data loading."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TypeVar

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.workloads.agreement import require_agreement
from dcae_bench.measurement.workloads.job import Inputs, Job, Ready, kernel_setting
from dcae_bench.measurement.workloads.modes import CAPTURE_WARM_UP, attention_kernel, capture_graph
from dcae_bench.training.blocks import checkpoint_blocks, compile_blocks

Network = TypeVar("Network", bound=nn.Module)


class TimedStep(ABC):
    """The training step of a network. Each call takes the next of several batches, in rotation."""

    def __init__(self, model: nn.Module, job: Job, inputs: Sequence[Inputs]):
        """Train ``model``, whose blocks may be compiled or checkpointed, on the batches ``inputs``."""
        self.model, self.job = model, job
        self.fused = job.recipe.fused_optimizer or None
        """Whether the optimiser uses fused kernels; None leaves the choice to torch."""
        self.capturable = job.mode == "compile+cudagraph"
        """Whether the optimiser keeps its step count on the GPU, where a CUDA graph can increase the count."""
        self._rotation = cycle(inputs)

    def __call__(self) -> Tensor:
        """Take one step on the next batch. Returns the losses (k,) from before the update."""
        return self.step(*next(self._rotation))

    @abstractmethod
    def step(self, *inputs: Tensor) -> Tensor:
        """Take one step on the given batch. Returns the losses (k,) from before the update."""

    @property
    def settings(self) -> dict[str, str]:
        """Settings for the record."""
        return {
            "optimizer": "AdamW, fused" if self.job.recipe.fused_optimizer else "AdamW",
            "checkpointing": "full" if self.job.checkpointing else "none",
        }


def training_workload(
    job: Job,
    inputs: Sequence[Inputs],
    make_network: Callable[[], Network],
    make_step: Callable[[Network], TimedStep],
) -> Ready:
    """The job's training step: the step that ``make_step`` makes of a new network.

    Raises :class:`MeasurementError` for TensorRT, and if the losses differ from those of a plain step.
    """
    if job.mode == "trt":
        raise MeasurementError("mode trt: TensorRT cannot train; it is for forward passes")

    def build_step(*, plain: bool) -> TimedStep:
        model = make_network()
        if job.mode != "eager" and not plain:
            compile_blocks(model)
        if plain or job.checkpointing:
            checkpoint_blocks(model)
        return make_step(model)

    def losses(step: TimedStep) -> list[list[float]]:
        for _ in range(CAPTURE_WARM_UP):
            step.step(*inputs[0])
        return [step().tolist() for _ in inputs]

    kernel, agreement = job.kernel, None
    # The plain network is freed before the fast one is built: memory may not hold both.
    wanted = losses(build_step(plain=True)) if job.mode != "eager" and job.check else None
    step = build_step(plain=False)
    with attention_kernel(kernel):
        call: Callable[[], Tensor] = capture_graph(step.step, inputs) if job.mode == "compile+cudagraph" else step
    call = _with_kernel(kernel, call)
    if wanted is not None:
        if job.mode == "compile+cudagraph":
            found = [call().tolist() for _ in inputs]
        else:
            with attention_kernel(kernel):
                found = losses(step)
        what = f"losses of {len(found)} steps, {job.mode} beside eager, both {job.precision}"
        agreement = require_agreement(job, what, _largest_error(torch.tensor(found), torch.tensor(wanted)))
    return Ready(call, job.batch, step.settings | kernel_setting(kernel), agreement)


def _largest_error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of losses (steps, k), relative to the sum of the step's losses. NaN if a loss is NaN.

    Relative to the sum, because the discriminator's hinge loss is zero once it tells the few images apart.
    """
    return ((found - wanted).abs() / wanted.abs().sum(dim=1, keepdim=True)).max().item()


def _with_kernel(kernel: str | None, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``call``, run with one attention kernel; None leaves the choice of the kernel to torch."""
    if kernel is None:
        return call

    def call_with_kernel() -> Tensor:
        with attention_kernel(kernel):
            return call()

    return call_with_kernel
