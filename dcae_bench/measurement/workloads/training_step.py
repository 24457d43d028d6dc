"""The training step that is timed, checked against a plain step first. No scaler, EMA, clipping or data loading."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import MeasurementError
from dcae_bench.execution.attention import use_attention
from dcae_bench.execution.blocks import checkpoint_blocks, compile_blocks, restore_blocks
from dcae_bench.execution.fast import fast_training
from dcae_bench.execution.graphs import CAPTURE_WARM_UP
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.agreement import AFTER, require_agreement
from dcae_bench.measurement.workloads.job import Inputs, Job, Ready, kernel_setting, kernels
from dcae_bench.measurement.workloads.modes import Rotation, capture_graph

Network = TypeVar("Network", bound=nn.Module)


class TimedStep(ABC):
    """The training step of a network."""

    def __init__(self, model: nn.Module, job: Job):
        """Train ``model``, whose blocks may be compiled or checkpointed."""
        self.model, self.job = model, job
        self.fused = job.recipe.fused_optimizer or None
        """Whether the optimiser uses fused kernels; None leaves the choice to torch."""
        self.capturable = job.mode == "compile+cudagraph"
        """Whether the optimiser keeps its step count on the GPU, where a CUDA graph can increase the count."""
        self.networks: list[nn.Module] = [model]
        """Every network that trains."""
        self.optimizers: list[torch.optim.Optimizer] = []

    @abstractmethod
    def step(self, *inputs: Tensor) -> Tensor:
        """Take one step on the given batch. Returns the losses (k,) from before the update."""

    def weights(self) -> list[Tensor]:
        """Copies of all weights and buffers of the networks that train, in the host's memory.

        Beside a GPU they are in pinned memory, which it reads ten times as fast.
        """
        pinned = self.job.device.type == "cuda"
        return [
            torch.empty_like(tensor, device="cpu", pin_memory=pinned).copy_(tensor.detach())
            for tensor in self._tensors()
        ]

    @torch.no_grad()
    def start_over(self, weights: Sequence[Tensor]) -> None:
        """Set the networks to ``weights`` and the optimisers to their start, in place, where a CUDA graph reads."""
        for tensor, kept in zip(self._tensors(), weights, strict=True):
            tensor.copy_(kept)
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                for tensor in state.values():  # AdamW's step count and moments all start at zero
                    tensor.zero_()

    def has_left(self, weights: Sequence[Tensor]) -> bool:
        """Whether the networks differ from ``weights``."""
        pairs = zip(self._tensors(), weights, strict=True)
        return any(not tensor.equal(kept.to(tensor.device)) for tensor, kept in pairs)

    def _tensors(self) -> Iterator[Tensor]:
        return (tensor for network in self.networks for tensor in network.state_dict().values())

    @property
    def settings(self) -> dict[str, str]:
        """Settings for the record."""
        return {
            **self.job.settings,
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

    kernel = job.kernel
    model = make_network()
    unlike_plain = job.mode != "eager" or job.rewritten
    start, wanted = _plain_losses(model, make_step, inputs) if unlike_plain and job.check else ([], None)
    if job.rewritten:
        fast_training(model, job.stream)
    use_attention(model, kernel)
    if job.mode != "eager":
        compile_blocks(model)
    if job.checkpointing:
        checkpoint_blocks(model)
    step = make_step(model)
    run = _with_kernels(job, kernel, step.step)
    call = capture_graph(run, inputs) if job.mode == "compile+cudagraph" else Rotation(run, inputs)

    def agree(when: str = "") -> Agreement | None:
        if wanted is None:
            return None
        learned = torch.stack([losses.clone() for losses in call.once_each()])
        step.start_over(start)
        found = _losses(call, inputs[0])
        # A loss that is not finite says that the timed steps computed with garbage, equal weights that nothing trains.
        sound = bool(learned.isfinite().all()) and step.has_left(start)
        what = f"losses of {len(found)} steps, {job.mode} beside eager, both {job.precision}{when}"
        return require_agreement(job, what, _largest_error(found, wanted) if sound else math.inf)

    return Ready(call, job.batch, step.settings | kernel_setting(kernel), agree(), partial(agree, AFTER))


def _plain_losses(
    model: Network, make_step: Callable[[Network], TimedStep], inputs: Sequence[Inputs]
) -> tuple[list[Tensor], Tensor]:
    """The first weights of all networks that train, and the losses of plain steps. ``model`` is as before afterwards.

    The optimisers of the plain steps are gone then: memory may not hold them beside those of the fast ones.
    """
    checkpoint_blocks(model)
    step = make_step(model)
    start = step.weights()
    losses = _losses(Rotation(step.step, inputs), inputs[0])
    step.start_over(start)
    restore_blocks(model)
    return start, losses


def _losses(call: Rotation, first: Inputs) -> Tensor:
    """Losses (steps, k) of one step on each batch, after as many steps on the first as a capture takes."""
    for _ in range(CAPTURE_WARM_UP):
        call.function(*first)
    return torch.stack([losses.clone() for losses in call.once_each()]).cpu()


def _largest_error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of losses (steps, k), relative to the sum of the step's losses. NaN if a loss is NaN.

    Relative to the sum, because the discriminator's hinge loss is zero once it tells the few images apart.
    """
    return ((found - wanted).abs() / wanted.abs().sum(dim=1, keepdim=True)).max().item()


def _with_kernels(job: Job, attention: str | None, step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``step``, run with the job's kernels."""

    def step_with_kernels(*inputs: Tensor) -> Tensor:
        with kernels(job, attention):
            return step(*inputs)

    return step_with_kernels
