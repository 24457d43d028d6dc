"""A step of training ready to be timed, held against a plain one first: no scaler, no EMA, no clipping, no data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.agreement import agree
from dcae_bench.measurement.job import Inputs, Job, Ready, kernel_setting
from dcae_bench.measurement.modes import CAPTURE_WARM_UP, attention_kernel, captured
from dcae_bench.measurement.timing import Workload
from dcae_bench.training.blocks import checkpoint_blocks, compile_blocks


class Step(ABC):
    """A network's training step over inputs in rotation."""

    def __init__(self, model: nn.Module, job: Job, inputs: Sequence[Inputs]):
        """A step of ``model``, whose blocks may be compiled or computed again, over ``inputs``."""
        self.model, self.job = model, job
        # None: torch chooses. Capturable: the step's number lives on the GPU, so that a graph can count it.
        capturable = job.mode == "compile+cudagraph"
        self.optimizer_switches = {"fused": job.recipe.fused_optimizer or None, "capturable": capturable}
        self._rotation = cycle(inputs)

    def __call__(self) -> Tensor:
        """One step on the next inputs; its losses before it."""
        return self.step(*next(self._rotation))

    @abstractmethod
    def step(self, *inputs: Tensor) -> Tensor:
        """One step on given inputs; its losses (k,) before it."""

    @property
    def settings(self) -> dict[str, str]:
        """What a record says of it."""
        return {
            "optimizer": "AdamW, fused" if self.job.recipe.fused_optimizer else "AdamW",
            "checkpointing": "full" if self.job.checkpointing else "none",
        }


def training(
    job: Job, inputs: Sequence[Inputs], network: Callable[[], nn.Module], make: Callable[[nn.Module], Step]
) -> Ready:
    """The job's training step: ``make`` of a fresh ``network``.

    Raises :class:`MeasurementError` where TensorRT shall train, or the losses are not those of a plain step.
    """
    if job.mode == "trt":
        raise MeasurementError("mode trt: TensorRT cannot train; it is for forward passes")

    def build(*, plain: bool) -> Step:
        model = network()
        if job.mode != "eager" and not plain:
            compile_blocks(model)
        if plain or job.checkpointing:
            checkpoint_blocks(model)
        return make(model)

    def losses(step: Step) -> list[list[float]]:
        for _ in range(CAPTURE_WARM_UP):
            step.step(*inputs[0])
        return [step().tolist() for _ in inputs]

    kernel, agreement = job.kernel, None
    # The plain model is gone before the other is made: both do not fit.
    wanted = losses(build(plain=True)) if job.mode != "eager" and job.check else None
    step = build(plain=False)
    with attention_kernel(kernel):
        call: Workload = captured(step.step, inputs) if job.mode == "compile+cudagraph" else step
    call = _under(kernel, call)
    if wanted is not None:
        if job.mode == "compile+cudagraph":
            found = [call().tolist() for _ in inputs]
        else:
            with attention_kernel(kernel):
                found = losses(step)
        what = f"losses of {len(found)} steps, {job.mode} beside eager, both {job.precision}"
        agreement = agree(job, what, _largest(torch.tensor(found), torch.tensor(wanted)))
    return Ready(call, job.batch, step.settings | kernel_setting(kernel), agreement)


def _largest(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of losses (steps, k) relative to their sum in a step; not a number if one is not.

    To the sum, since a discriminator that tells the few images apart has a hinge loss of zero.
    """
    return ((found - wanted).abs() / wanted.abs().sum(dim=1, keepdim=True)).max().item()


def _under(kernel: str | None, call: Workload) -> Workload:
    if kernel is None:
        return call

    def inside() -> object:
        with attention_kernel(kernel):
            return call()

    return inside
