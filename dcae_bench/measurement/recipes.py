"""Protocols of timing: how a workload is computed and how it is timed, each a versioned name in every result."""

from typing import Literal

from pydantic import Field

from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.cases import Case, authors_batch, equal_tokens_batch
from dcae_bench.measurement.statistics import Value
from dcae_bench.measurement.timing import Plan

Mode = Literal["eager", "compile", "compile+cudagraph", "trt"]
Precision = Literal["fp32", "fp16 autocast", "bf16 autocast", "bf16", "fp16"]


class Recipe(Value):
    """One protocol."""

    protocol: str
    device: Literal["cpu", "cuda"] | None = Field(description="where it can run; null: anywhere")
    mode: Mode
    train_precision: Precision
    inference_precision: Precision
    checkpointing: Literal["full", "where memory needs it", "none"]
    fused_optimizer: bool
    attention: Literal["torch's choice", "fastest"]
    channels_last: bool = Field(description="of autoencoders; a transformer's tokens have no such layout")
    batch: Literal["authors' map", "search", "equal tokens"]
    plan: Plan
    what: str = Field(description="in one sentence, as the table prints it")

    def precision(self, case: Case) -> Precision:
        """Precision of a case; the authors time autoencoders in bf16 weights."""
        if case.denoiser is None and self.device == "cuda":
            return "bf16"
        return self.train_precision if case.work == "train" else self.inference_precision

    def first_batch(self, case: Case) -> tuple[int, str]:
        """Batch to use, or to begin a search at, and where it is from. Raises :class:`MeasurementError`."""
        if case.denoiser is None:
            return (16, "ours") if self.device == "cuda" else (1, "ours")
        if self.batch == "equal tokens":
            return equal_tokens_batch(case), "1024 tokens, or one image"
        return authors_batch(case)


PAPER = Recipe(
    protocol="throughput/paper-v1",
    device="cuda",
    mode="eager",
    train_precision="fp16 autocast",
    inference_precision="fp16 autocast",
    checkpointing="full",
    fused_optimizer=False,
    attention="torch's choice",
    channels_last=False,
    batch="authors' map",
    # 20 and 100 are the authors'; the hundred are ten blocks, so that they have an interval.
    plan=Plan(warm_up_iterations=20, block_iterations=10),
    what="PyTorch eager, fp16 autocast, full activation checkpointing, AdamW at 1e-4, no EMA, the authors' batches; "
    "20 warm-up and 100 timed iterations",
)
TUNED = Recipe(
    protocol="throughput/tuned-v1",
    device="cuda",
    mode="compile+cudagraph",
    train_precision="bf16 autocast",
    inference_precision="bf16",
    checkpointing="where memory needs it",
    fused_optimizer=True,
    attention="fastest",
    channels_last=True,
    batch="search",
    plan=Plan(),
    what="compiled blocks replayed from one CUDA graph, bf16, fused AdamW at 1e-4, the fastest attention kernel, "
    "checkpointing only where memory needs it, batch by search",
)
CPU = Recipe(
    protocol="throughput/cpu-v1",
    device="cpu",
    mode="eager",
    train_precision="fp32",
    inference_precision="fp32",
    checkpointing="none",
    fused_optimizer=True,
    attention="torch's choice",
    channels_last=False,
    batch="equal tokens",
    # Iterations take seconds: a window of ten would be most of the measurement, and a lead-in a third of it.
    plan=Plan(warm_up_iterations=4, warm_up_s=1.0, window=2, lead_in=0),
    what="PyTorch eager on the processors, fp32, AdamW at 1e-4, no checkpointing, 1024 tokens a batch",
)
RECIPES = {"paper": PAPER, "tuned": TUNED, "cpu": CPU}


def recipe_for(name: str) -> Recipe:
    """A protocol by its short name. Raises :class:`MeasurementError`."""
    if name not in RECIPES:
        raise MeasurementError(f"--protocol {name}: there is no such protocol; choose {', '.join(RECIPES)}")
    return RECIPES[name]


def shortened(recipe: Recipe) -> Recipe:
    """The same with fewer iterations, for a borrowed GPU; the record's plan shows them, and ten blocks remain."""
    plan = recipe.plan.model_copy(update={"warm_up_iterations": 6, "window": 3, "block_iterations": 1, "lead_in": 0})
    return recipe.model_copy(update={"plan": plan})
