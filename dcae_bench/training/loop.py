"""The training loop: from the first image to the last. Running the same command again resumes it."""

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
from accelerate import (
    Accelerator,
    AutocastKwargs,
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
)
from torch import Tensor, nn

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import TrainingError
from dcae_bench.base.files import write_text
from dcae_bench.execution.sharding import is_sharded, norm_as_float, shard, whole
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.training import OptimizerSpec
from dcae_bench.running.device import choose
from dcae_bench.running.stop import Stopped, at_good_moments
from dcae_bench.training.checkpoint import CHECKPOINT, DIVERGED, load_checkpoint, save_checkpoint
from dcae_bench.training.log import TrainingLog
from dcae_bench.training.phases import EMA

# Every process has the same BatchNorm statistics already, because they cover the whole batch (`batch_norm.py`). After
# the first step of a command, DDP would arrange its buffers anew, and with them the sums of three and more gradients: a
# resumed run would have other bits. It does not where it looks for unused parameters.
WRAPPING = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
# How long processes wait while one of them samples previews and writes a large checkpoint. NCCL's default of ten
# minutes is too short.
WAITING = InitProcessGroupKwargs(timeout=timedelta(hours=2))
# Autocast would keep a half-precision copy of all gathered weights until the end of the forward pass.
WITHOUT_COPIES = AutocastKwargs(cache_enabled=False)
LOG = "log.jsonl"
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class LoopSpec:
    """What the loop needs to know about a training. Progress is counted in images."""

    name: str
    """What messages call the training."""
    directory: Path
    recipe_sha256: str
    images: int
    batch_size: int
    checkpoint_images: int
    log_images: int


class Loop(ABC):
    """Takes steps, writes the log and checkpoints, and stops at a loss that is not finite.

    A subclass builds its models, then calls :meth:`begin`. :meth:`state` returns all that a checkpoint must hold.
    """

    ema: EMA
    """The average of the weights that the training is for."""

    def __init__(self, spec: LoopSpec, profile: Profile, precision: Literal["fp32", "bf16", "fp16"]):
        """Choose the device and join the other processes.

        Raises :class:`ConfigError` for a GPU that this machine lacks, and :class:`TrainingError` if the number of
        processes differs from the profile's.
        """
        self.spec = spec
        self.sharded = profile.sharding == "full"
        on_cpu = choose(profile).type == "cpu"
        with warnings.catch_warnings():
            # With several processes on CPUs, Accelerator chooses a number of threads itself and warns. The number is
            # set below.
            warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
            self.accelerator = Accelerator(
                cpu=on_cpu,
                mixed_precision=MIXED_PRECISION[precision],
                kwargs_handlers=[WRAPPING, WAITING, *([WITHOUT_COPIES] if self.sharded else [])],
            )
        torch.set_num_threads(profile.threads)
        self.device = self.accelerator.device
        world = self.accelerator.num_processes
        if world != profile.world:
            nodes = f" on each of {profile.nodes} nodes" if profile.nodes > 1 else ""
            raise TrainingError(
                f"{spec.name}: {world} processes were started, and profile {profile.name} has 'processes: "
                f"{profile.processes}'{nodes}, which its weights depend on; change it there, and let the command start "
                "them"
            )
        self.share = spec.batch_size // world
        """Images of a batch that one process computes."""
        self.images, self.seconds_before = 0, 0.0
        self.owes_previews = False
        """Whether a stop at a checkpoint of the interval left no time for its previews."""

    def begin(self) -> None:
        """Load the run's last checkpoint, if there is one, and open the log.

        Raises :class:`TrainingError` for a checkpoint that is damaged or of another recipe.
        """
        state = load_checkpoint(self.spec.directory / CHECKPOINT, self.spec.recipe_sha256)
        if state is not None:
            self.load_state(state)
        at = self.accelerator.gather(torch.tensor([self.images], device=self.device)).tolist()
        if len({*at}) > 1:
            raise TrainingError(
                f"{self.spec.directory}: the processes have read checkpoints of {min(at)} and of {max(at)} images; "
                "keep the run's folder on a file system that all nodes share, and run the same command again"
            )
        if self.accelerator.is_main_process:
            # The checkpoint holds the log's lines: after a crash of the machine the file itself may lack some.
            write_text(self.spec.directory / LOG, state["log"] if state is not None else "")
            begun = state.get("log_begun") if state is not None else None
            self.log = TrainingLog(self.spec.directory / LOG, self.images, every=self.spec.log_images, begun=begun)

    def train(self, elapsed: Callable[[], float], progress: Callable[[int, dict[str, float]], None]) -> None:
        """Train to the last image, with a checkpoint at every interval.

        ``elapsed`` returns the seconds spent so far. ``progress`` is called after each batch with the number of images
        and the values for the log. A signal to any of the processes ends the training after the step, with a
        checkpoint. Raises :class:`TrainingError` at a loss or a gradient that is not finite, and :class:`Stopped`.
        """
        stopped = False
        try:
            with at_good_moments() as asked:
                if self.owes_previews:
                    self.previews()
                    self.owes_previews = False
                while self.images < self.spec.images and not stopped:
                    parts = self.step()
                    require_claims()  # another command may train here now, if this one was suspended
                    if self.accelerator.is_main_process:
                        self.log.add(self.images, parts)
                    progress(self.images, parts)
                    stopped = self.anywhere(asked() is not None) and self.images < self.spec.images
                    due = self.images % self.spec.checkpoint_images == 0 or self.images == self.spec.images
                    if due and not stopped:
                        self.previews()
                    self.owes_previews = due and stopped  # there is no time for them
                    if due or stopped:
                        self.checkpoint(CHECKPOINT, elapsed())
                signal = asked()
            if not stopped:
                self.average = self.whole(self.ema.state)
        finally:
            self.close()
        self.accelerator.end_training()  # the other processes are done
        if stopped:
            raise Stopped(
                f"{self.spec.name}: stopped by {signal.name if signal else 'a signal'} at image {self.images} of "
                f"{self.spec.images}, with a checkpoint; run the same command again to go on"
            )

    def previews(self) -> None:
        """Show what the average makes at a checkpoint of the interval. All processes call it."""
        return

    @abstractmethod
    def step(self) -> dict[str, float]:
        """Train on one batch, move ``images`` to its end, and return the batch's values for the log."""

    def close(self) -> None:
        """Release the threads that read data."""
        return

    def state(self, seconds: float) -> dict[str, Any]:
        """Everything that a run needs to continue from here as if it had never stopped."""
        state = {"recipe_sha256": self.spec.recipe_sha256, "images": self.images, "seconds": seconds}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        if self.owes_previews:
            state["owes_previews"] = True
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.images, self.seconds_before = state["images"], state["seconds"]
        self.owes_previews = state.get("owes_previews", False)

    def checkpoint(self, name: str, seconds: float) -> None:
        """Write the state and the log's lines atomically. The main process writes; the others wait."""
        state = self.whole(self.state(seconds))
        if self.accelerator.is_main_process:
            log = self.log.path.read_text(encoding="utf-8")
            begun = {"log_begun": self.log.begun} if self.log.begun else {}  # a stop within an interval of the log
            save_checkpoint({**state, "log": log, **begun}, self.spec.directory / name)
        self.accelerator.wait_for_everyone()

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state with whole tensors in the main process; with sharding, all processes must call it together."""
        return whole(state, keep=self.accelerator.is_main_process) if self.sharded else state

    def distribute(self, model: nn.Module) -> nn.Module:
        """Let the processes train a net together, and compute it in the training's precision.

        With sharding each process keeps a share of the net, else a copy. Call it before an optimiser takes parameters.
        """
        if not self.sharded:
            return self.accelerator.prepare(model)
        prepared: nn.Module = self.accelerator.prepare_model(model, evaluation_mode=True)  # the precision alone
        shard(prepared, self.device)
        return prepared

    @contextmanager
    def part(self, number: int, of: int, *models: nn.Module) -> Iterator[None]:
        """Context for the forward and backward pass of part ``number`` of the ``of`` parts of a batch.

        Processes exchange gradients in the last part only. A sharded net exchanges them in each part, because a
        process has no room for the gradients of all weights.
        """
        with ExitStack() as stack:
            if number < of - 1:
                for model in (model for model in models if not is_sharded(model)):
                    stack.enter_context(self.accelerator.no_sync(model))
            yield

    def over_processes(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the processes; every process gets it."""
        return self.accelerator.reduce(value, "mean")

    def anywhere(self, here: bool) -> bool:
        """Whether something is true in any process. All processes call it."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.over_processes(torch.tensor(float(here), device=self.device)).item() > 0)

    def clip(self, model: nn.Module, spec: OptimizerSpec) -> float:
        """Limit the norm of a net's gradient, if its optimiser has a limit. Returns the norm before clipping."""
        return norm_as_float(self.accelerator.clip_grad_norm_(model.parameters(), spec.clip_norm or float("inf")))

    def require_finite(self, values: dict[str, float], kept: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """Raise :class:`TrainingError` if a value is not finite, before the batch changes any weight.

        The state before the batch is saved for inspection. ``values`` are over the whole batch, so that every process
        stops. ``kept`` pairs each tensor that the forward pass changed with its value before.
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
