"""The one training loop: from the first image to the last, resumed by running it again."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from dcae_bench.config import Profile
from dcae_bench.device import choose
from dcae_bench.errors import TrainingError
from dcae_bench.training.checkpoint import CHECKPOINT, DIVERGED, load_checkpoint, save_checkpoint
from dcae_bench.training.log import TrainingLog
from dcae_bench.training_spec import OptimizerSpec

# Statistics of BatchNorm are the whole batch's already (`batch_norm.py`), so that every process has the same.
WRAPPING = DistributedDataParallelKwargs(broadcast_buffers=False)
# While one process samples previews and writes a large checkpoint; NCCL's own limit is ten minutes.
WAITING = InitProcessGroupKwargs(timeout=timedelta(hours=2))
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class LoopSpec:
    """What the loop needs to know of a training. Progress is counted in images."""

    name: str
    """As messages call it."""
    directory: Path
    recipe_sha256: str
    images: int
    batch_size: int
    checkpoint_images: int
    log_images: int


class Loop(ABC):
    """Steps, log, checkpoints and stops. State that an interruption must not lose is :meth:`state`'s."""

    def __init__(self, spec: LoopSpec, profile: Profile, precision: Literal["fp32", "bf16", "fp16"]):
        """Choose the device and join the other processes; :meth:`begin` follows once models are there.

        Raises :class:`ConfigError` for a GPU that is not there, :class:`TrainingError` where the processes are not as
        many as the profile has.
        """
        self.spec = spec
        on_cpu = choose(profile).type == "cpu"
        with warnings.catch_warnings():
            # With several processes on CPUs it takes as many threads as the machine has cores for, and warns of it.
            warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
            self.accelerator = Accelerator(
                cpu=on_cpu, mixed_precision=MIXED_PRECISION[precision], kwargs_handlers=[WRAPPING, WAITING]
            )
        torch.set_num_threads(profile.threads)
        self.device = self.accelerator.device
        world = self.accelerator.num_processes
        if world != profile.processes:
            raise TrainingError(
                f"{spec.name}: {world} processes were started, and profile {profile.name} has 'processes: "
                f"{profile.processes}', which its weights depend on; change it there, and let the command start them"
            )
        self.share = spec.batch_size // world
        """Images of a batch that are this process's."""
        self.images, self.seconds_before = 0, 0.0

    def begin(self) -> None:
        """Pick up the run's last checkpoint, if there is one. Raises :class:`TrainingError`."""
        state = load_checkpoint(self.spec.directory / CHECKPOINT, self.spec.recipe_sha256)
        if state is not None:
            self.load_state(state)
        if self.accelerator.is_main_process:
            self.log = TrainingLog(self.spec.directory / "log.jsonl", self.images, every=self.spec.log_images)

    def train(self, elapsed: Callable[[], float], progress: Callable[[int, dict[str, float]], None]) -> None:
        """Run to the last image, with a checkpoint at every interval.

        ``elapsed`` gives the seconds spent so far, ``progress`` is told images and loss parts after each batch.
        Raises :class:`TrainingError` at a loss or a gradient that is not finite.
        """
        try:
            while self.images < self.spec.images:
                parts = self.step()
                if self.accelerator.is_main_process:
                    self.log.add(self.images, parts)
                progress(self.images, parts)
                if self.images % self.spec.checkpoint_images == 0 or self.images == self.spec.images:
                    self.checkpoint(CHECKPOINT, elapsed())
        finally:
            self.close()
        self.accelerator.end_training()  # the other processes are done

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One batch, after which ``images`` has moved on; returns what the log shows of it."""

    def close(self) -> None:
        """Give back what reads data; training is over."""
        return

    def state(self, seconds: float) -> dict[str, Any]:
        """Everything an unbroken run would have at this image."""
        state = {"recipe_sha256": self.spec.recipe_sha256, "images": self.images, "seconds": seconds}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.images, self.seconds_before = state["images"], state["seconds"]

    def checkpoint(self, name: str, seconds: float) -> None:
        """Write the state atomically; one process does."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.state(seconds), self.spec.directory / name)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def part(self, number: int, of: int, *models: nn.Module) -> Iterator[None]:
        """Forward and backward pass of one of the parts of a batch; processes exchange gradients in the last only."""
        with ExitStack() as stack:
            if number < of - 1:
                for model in models:
                    stack.enter_context(self.accelerator.no_sync(model))
            yield

    def over_processes(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, the same in each."""
        return self.accelerator.reduce(value, "mean")

    def clip(self, model: nn.Module, spec: OptimizerSpec) -> float:
        """Limit a net's gradient norm if its optimiser has a limit; returns the norm before."""
        return self.accelerator.clip_grad_norm_(model.parameters(), spec.clip_norm or float("inf")).item()

    def require_finite(self, values: dict[str, float], kept: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """Stop before a bad batch changes anything, with the state before it saved for inspection.

        ``values`` are those of the whole batch, so that every process stops. ``kept`` are tensors that the forward pass
        moved, each with what it was. Raises :class:`TrainingError`.
        """
        if np.isfinite([*values.values()]).all():
            return
        for moved, before in kept:
            moved.copy_(before)
        self.checkpoint(DIVERGED, self.seconds_before)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise TrainingError(
            f"{self.spec.name}: the loss or its gradient is not finite at image {self.images} ({shown}); the weights "
            f"before this batch are in {self.spec.directory / DIVERGED}; lower the learning rate"
        )
