"""The recipes: protocols that say how a workload is computed and timed. Every record names its protocol's version."""

from typing import Literal

from pydantic import Field

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments.timing import TimingSchedule
from dcae_bench.measurement.workloads.cases import Case, authors_batch, equal_tokens_batch
from dcae_bench.measurement.workloads.paper_phases import phase_batch

Mode = Literal["eager", "compile", "compile+cudagraph", "trt"]
Precision = Literal["fp32", "fp16 autocast", "bf16 autocast", "bf16", "fp16"]


class Recipe(Strict):
    """One protocol. The defaults are plain eager PyTorch in fp32; a changed default needs a new version of each."""

    protocol: str
    what: str = Field(
        description="how it computes, as the table prints it; batches and iterations it prints from the records"
    )
    device: Literal["cpu", "cuda"]
    mode: Mode = "eager"
    train_precision: Precision = Field(default="fp32", description="precision of a denoiser's training step")
    inference_precision: Precision = Field(default="fp32", description="precision of a denoiser that does not train")
    autoencoder_precision: Precision = Field(default="fp32", description="precision of an encoder or decoder")
    phase_precision: Precision = Field(default="fp32", description="precision of an autoencoder's training step")
    checkpointing: Literal["full", "where memory needs it", "none"] = "none"
    fused_optimizer: bool = False
    attention: Literal["torch's choice", "fastest"] = "torch's choice"
    channels_last: bool = Field(
        default=False,
        description="memory format of autoencoders; a transformer's tokens have no such layout",
    )
    rewritten: bool = Field(
        default=False,
        description="whether networks are rewritten for speed, equal up to rounding (execution/fast.py): for "
        "inference BatchNorm is folded; long skips are merged by two products; under autocast tokens stay in half "
        "precision between the blocks; cuDNN times its convolutions",
    )
    batch: Literal["authors' map", "search", "equal tokens"]
    schedule: TimingSchedule = TimingSchedule()

    def precision(self, case: Case) -> Precision:
        """Precision of the case's network and work."""
        if case.denoiser is None:
            return self.phase_precision if case.trains else self.autoencoder_precision
        return self.train_precision if case.trains else self.inference_precision

    def first_batch(self, case: Case, share: int | None = None) -> tuple[int, str]:
        """Batch size to use or to start a search at, and its explanation.

        ``share`` divides the batch, to no less than one image. Raises :class:`MeasurementError`.
        """
        batch, source = self._whole_batch(case)
        return (batch, source) if share is None else (max(1, batch // share), f"1/{share} of {source}")

    def _whole_batch(self, case: Case) -> tuple[int, str]:
        if case.denoiser is None and self.device == "cpu":
            return 1, "ours"
        if case.denoiser is None:
            return phase_batch(case.work) if case.trains else (16, "ours")
        if self.batch == "equal tokens":
            return equal_tokens_batch(case), "1024 tokens, or one image"
        return authors_batch(case)


PAPER = Recipe(
    protocol="throughput/paper-v1",
    what="PyTorch eager, fp16 autocast, full activation checkpointing, AdamW at 1e-4, no EMA. Autoencoders: bf16 "
    "weights, in training bf16 autocast and the optimiser of profile paper",
    device="cuda",
    train_precision="fp16 autocast",
    inference_precision="fp16 autocast",
    autoencoder_precision="bf16",  # the authors time autoencoders in bf16
    phase_precision="bf16 autocast",  # the precision of profile paper: its GAN cannot train in fp16
    checkpointing="full",
    batch="authors' map",
    # The authors run 20 and 100 iterations. Here the 100 are ten blocks, which give an interval.
    schedule=TimingSchedule(warm_up_iterations=20, block_iterations=10),
)
TUNED = Recipe(
    protocol="throughput/tuned-v2",
    what="compiled blocks replayed from one CUDA graph, bf16 also between the blocks, fused AdamW at 1e-4, the fastest "
    "attention kernel, checkpointing only where memory needs it. Autoencoders: channels last, the fastest convolution "
    "kernels, BatchNorm folded for inference, in training the learning rates of profile paper",
    device="cuda",
    mode="compile+cudagraph",
    train_precision="bf16 autocast",
    inference_precision="bf16",
    autoencoder_precision="bf16",
    phase_precision="bf16 autocast",
    checkpointing="where memory needs it",
    fused_optimizer=True,
    attention="fastest",
    channels_last=True,
    rewritten=True,
    batch="search",
)
CPU = Recipe(
    protocol="throughput/cpu-v1",
    what="PyTorch eager on the processors, fp32, AdamW at 1e-4, no checkpointing. Autoencoders: in training the "
    "optimiser of profile paper",
    device="cpu",
    fused_optimizer=True,
    batch="equal tokens",
    # An iteration takes seconds: windows of ten would be most of the measurement, and lead-ins a third of it.
    schedule=TimingSchedule(warm_up_iterations=4, warm_up_s=1.0, window=2, lead_in=0),
)
RECIPES = {"paper": PAPER, "tuned": TUNED, "cpu": CPU}
RETIRED = {
    "throughput/tuned-v1": "compiled blocks replayed from one CUDA graph, bf16, fused AdamW at 1e-4, the fastest "
    "attention kernel, checkpointing only where memory needs it. Autoencoders: channels last, in training the learning "
    "rates of profile paper"
}
"""How former versions of protocols computed, for the tables of their records."""


def recipe_for(name: str) -> Recipe:
    """A protocol by its short name: paper, tuned or cpu. Raises :class:`MeasurementError` if unknown."""
    if name not in RECIPES:
        raise MeasurementError(f"--protocol {name}: there is no such protocol; choose {', '.join(RECIPES)}")
    return RECIPES[name]


Effort = Literal["whole", "short", "steady", "brief", "peak", "rehearsal"]
"""How much of a protocol's schedule is done: all of it, fewer iterations, these in shorter blocks, a few seconds a row,
only what the peak of memory needs, or next to nothing."""
_SHORT: dict[str, float] = {"warm_up_iterations": 6, "window": 3, "block_iterations": 1, "lead_in": 0}
_SCHEDULES: dict[Effort, dict[str, float]] = {
    "whole": {},
    "short": _SHORT,
    "steady": _SHORT | {"block_s": 0.5, "warm_up_s": 1.0, "warm_up_limit_s": 15.0},
    "brief": _SHORT | {"blocks": 6, "block_s": 0.2, "warm_up_s": 0.4, "warm_up_limit_s": 8.0},
    # The check of the warm-up needs four iterations. Their times are a by-product, which may differ by 5 %.
    "peak": _SHORT
    | {"blocks": 2, "block_s": 0.001, "warm_up_iterations": 4, "warm_up_s": 0.0, "window": 2, "tolerance": 0.05},
    "rehearsal": _SHORT
    | {"blocks": 3, "block_s": 0.001, "warm_up_s": 0.0, "warm_up_limit_s": 0.2, "window": 2, "tolerance": 10.0},
}


def with_effort(recipe: Recipe, effort: Effort) -> Recipe:
    """The protocol with another schedule, which the record shows."""
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=_SCHEDULES[effort])})
