"""Protocols of timing: how a workload is computed and how it is timed, each a versioned name in every result."""

from typing import Literal

from pydantic import Field

from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.cases import Case, authors_batch, equal_tokens_batch
from dcae_bench.measurement.paper_phases import batch_at_once
from dcae_bench.measurement.statistics import Value
from dcae_bench.measurement.timing import Plan

Mode = Literal["eager", "compile", "compile+cudagraph", "trt"]
Precision = Literal["fp32", "fp16 autocast", "bf16 autocast", "bf16", "fp16"]


class Recipe(Value):
    """One protocol. What it does not say is plain eager PyTorch in fp32; other defaults are a new version of all."""

    protocol: str
    what: str = Field(description="in one sentence, as the table prints it")
    device: Literal["cpu", "cuda"]
    mode: Mode = "eager"
    train_precision: Precision = Field(default="fp32", description="of a denoiser's training")
    inference_precision: Precision = Field(default="fp32", description="of a denoiser's forward pass and sampling")
    autoencoder_precision: Precision = Field(default="fp32", description="of an encoder or decoder")
    phase_precision: Precision = Field(default="fp32", description="of an autoencoder's training")
    checkpointing: Literal["full", "where memory needs it", "none"] = "none"
    fused_optimizer: bool = False
    attention: Literal["torch's choice", "fastest"] = "torch's choice"
    channels_last: bool = Field(
        default=False, description="of autoencoders; a transformer's tokens have no such layout"
    )
    batch: Literal["authors' map", "search", "equal tokens"]
    plan: Plan = Plan()

    def precision(self, case: Case) -> Precision:
        """Precision of a case."""
        if case.denoiser is None:
            return self.phase_precision if case.trains else self.autoencoder_precision
        return self.train_precision if case.trains else self.inference_precision

    def first_batch(self, case: Case) -> tuple[int, str]:
        """Batch to use, or to begin a search at, and where it is from. Raises :class:`MeasurementError`."""
        if case.denoiser is None and self.device == "cpu":
            return 1, "ours"
        if case.denoiser is None:
            return batch_at_once(case.work) if case.trains else (16, "ours")
        if self.batch == "equal tokens":
            return equal_tokens_batch(case), "1024 tokens, or one image"
        return authors_batch(case)


PAPER = Recipe(
    protocol="throughput/paper-v1",
    what="PyTorch eager, fp16 autocast, full activation checkpointing, AdamW at 1e-4, no EMA, the authors' batches; "
    "20 warm-up and 100 timed iterations. Autoencoders: bf16 weights, in training bf16 autocast and the optimiser of "
    "profile paper",
    device="cuda",
    train_precision="fp16 autocast",
    inference_precision="fp16 autocast",
    autoencoder_precision="bf16",  # as the authors time them
    phase_precision="bf16 autocast",  # as profile paper trains them: fp16 cannot train its GAN
    checkpointing="full",
    batch="authors' map",
    # 20 and 100 are the authors'; the hundred are ten blocks, so that they have an interval.
    plan=Plan(warm_up_iterations=20, block_iterations=10),
)
TUNED = Recipe(
    protocol="throughput/tuned-v1",
    what="compiled blocks replayed from one CUDA graph, bf16, fused AdamW at 1e-4, the fastest attention kernel, "
    "checkpointing only where memory needs it, batch by search. Autoencoders: channels last, in training the learning "
    "rates of profile paper",
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
    batch="search",
)
CPU = Recipe(
    protocol="throughput/cpu-v1",
    what="PyTorch eager on the processors, fp32, AdamW at 1e-4, no checkpointing, 1024 tokens a batch. Autoencoders: "
    "one image a batch, in training the optimiser of profile paper",
    device="cpu",
    fused_optimizer=True,
    batch="equal tokens",
    # Iterations take seconds: a window of ten would be most of the measurement, and a lead-in a third of it.
    plan=Plan(warm_up_iterations=4, warm_up_s=1.0, window=2, lead_in=0),
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
