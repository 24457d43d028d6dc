"""The record of one timing: a row of the throughput table with every sample it rests on.

Each process writes a record with one restart; :func:`merge` makes one of several. What is derived from the samples is
derived by :func:`derive` alone, so that a reader can do it again (:mod:`dcae_bench.measurement.evidence`).
"""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from dcae_bench.errors import ResultsError
from dcae_bench.files import sha256_json, write_text
from dcae_bench.measurement.energy import Energy
from dcae_bench.measurement.environment import Environment
from dcae_bench.measurement.gate import Gate
from dcae_bench.measurement.host import HostActivity
from dcae_bench.measurement.memory import BatchSearch
from dcae_bench.measurement.statistics import Estimate, Value, combine, median_estimate, ratio_estimate
from dcae_bench.measurement.timing import Series
from dcae_bench.provenance import Provenance

TRACE_SUFFIX = ".nvml.json"
"""End of the name of a GPU's trace, beside the records that name it."""

Work = Literal["train", "forward", "sample", "sample_decode", "encode", "decode", "phase1", "phase2", "phase3"]
"""What is timed: of a denoiser the first four, of an autoencoder the others."""


class TimedModel(Value):
    """The network that was timed."""

    name: str = Field(description="e.g. uvit-h, dit-xl, dc-ae-f64c128")
    latent_space: str | None = Field(description="autoencoder and patch size, e.g. dc-ae-f64c128 p1; null: none")
    resolution: int = Field(description="side of the image in pixels")
    tokens: int | None = Field(description="tokens of one image, null for an autoencoder")
    parameters: int
    gmacs: float = Field(
        description="1e9 multiply-accumulates of one forward pass for one image; of a phase, of one reconstruction"
    )


class Restart(Value):
    """What one process measured."""

    run: str = Field(description="name of the process's measurement; workloads measured in turn share it")
    pid: int
    started: datetime
    series: Series
    ceiling: Series | None = Field(default=None, description="the matrix product that was timed in turn")
    ceiling_flops: float | None = Field(default=None, description="operations of one such product")
    energy: Energy
    host: HostActivity | None
    trace: str | None = Field(default=None, description="file of NVML's trace, beside the record")
    gate: Gate
    peak_gib: float | None = Field(description="largest memory that torch had allocated; null on a CPU")


class Agreement(Value):
    """How far a way of computing is from plain eager PyTorch, shown before it is timed."""

    what: str = Field(description="what was compared with what")
    error: float = Field(ge=0, description="relative: root mean square of outputs, or largest of losses")
    limit: float = Field(gt=0, description="beyond it nothing is timed")


class Derived(Value):
    """What follows from the restarts."""

    images_per_s: Estimate
    iteration_ms: Estimate
    ceiling_tflops: Estimate | None
    mfu: float | None = Field(description="operations per second over the ceiling")
    energy_per_image_j: Estimate | None
    energy_reason: str | None = Field(description="why there is no energy")
    peak_gib: float | None
    gate: Gate


class ThroughputRecord(Value):
    """One timing: one workload of one network under one protocol on one device."""

    version: Literal[1] = 1
    kind: Literal["throughput"] = "throughput"
    profile: str | None = Field(default=None, description="profile that asked for it, null outside of one")
    protocol: str = Field(description="versioned name of the way of measuring, e.g. throughput/paper-v1")
    model: TimedModel
    work: Work
    mode: str = Field(description="eager, compile, compile+cudagraph, manual_graph or trt")
    precision: str = Field(description="fp32, bf16, fp16 or autocast of one of them")
    batch: int
    images_per_iteration: float = Field(description="images one iteration counts for: the batch, or batch/(2 NFE)")
    flops_per_image: float | None = Field(description="operations for one counted image, recomputation left out")
    settings: dict[str, str] = Field(default_factory=dict, description="the protocol's switches: checkpointing, ...")
    agreement: Agreement | None = Field(default=None, description="null where plain eager fp32 itself is timed")
    status: Literal["measured", "oom", "skipped"]
    reason: str | None = Field(default=None, description="why it was not measured")
    derived: Derived | None
    restarts: tuple[Restart, ...]
    search: BatchSearch | None = Field(default=None, description="how the batch was found, where it was searched")
    environment: Environment
    provenance: Provenance

    @model_validator(mode="after")
    def _whole(self) -> "ThroughputRecord":
        measured = self.status == "measured"
        if measured != (self.derived is not None) or measured != bool(self.restarts):
            raise ValueError("a measured record has restarts and what follows from them, any other has neither")
        if measured == (self.reason is not None):
            raise ValueError("a reason stands where nothing was measured, and only there")
        return self

    @property
    def key(self) -> str:
        """Equal keys mean restarts of the same measurement: same workload, device, settings, code and configuration."""
        gpu = self.environment.gpu
        parts = (
            self.model_dump(include={"protocol", "model", "work", "mode", "precision", "batch", "settings"}),
            gpu.uuid if gpu else self.environment.processor,
            self.environment.threads,
            self.provenance.code_sha256,
            self.provenance.config_sha256,
        )
        return sha256_json(parts)


def derive(restarts: Sequence[Restart], images_per_iteration: float, flops_per_image: float | None) -> Derived:
    """What follows from the restarts: the mean over processes of the medians of their blocks, with intervals."""
    rates = combine([median_estimate(restart.series.rates) for restart in restarts])
    images = rates.times(images_per_iteration)
    per_block = [[1000 / rate for rate in restart.series.rates] for restart in restarts]
    ceilings = [
        median_estimate(restart.ceiling.rates).times(restart.ceiling_flops / 1e12)
        for restart in restarts
        if restart.ceiling is not None and restart.ceiling_flops
    ]
    ceiling = combine(ceilings) if len(ceilings) == len(restarts) else None
    mfu = None
    if ceiling is not None and flops_per_image is not None:
        mfu = images.value * flops_per_image / 1e12 / ceiling.value
    joules, reason = _energy(restarts, images_per_iteration)
    peaks = [restart.peak_gib for restart in restarts if restart.peak_gib is not None]
    return Derived(
        images_per_s=images,
        iteration_ms=combine([median_estimate(times) for times in per_block]),
        ceiling_tflops=ceiling,
        mfu=mfu,
        energy_per_image_j=joules,
        energy_reason=reason,
        peak_gib=max(peaks) if peaks else None,
        gate=_worst([restart.gate for restart in restarts]),
    )


def merge(records: Sequence[ThroughputRecord]) -> ThroughputRecord:
    """One record of several processes' records of the same measurement. Raises :class:`ResultsError`."""
    if len({record.key for record in records}) != 1:
        raise ResultsError("records of different measurements cannot be merged; merge restarts of the same one")
    first = records[0]
    for record in records:
        if record.status != "measured":
            return record  # out of memory in one process is out of memory
    restarts = sorted((one for record in records for one in record.restarts), key=lambda one: one.started)
    if len({restart.run for restart in restarts}) != len(restarts):
        raise ResultsError(f"{first.model.name}: the same restart is given twice; merge each record once")
    derived = derive(restarts, first.images_per_iteration, first.flops_per_image)
    return first.model_copy(update={"restarts": tuple(restarts), "derived": derived})


def speed_up(fast: ThroughputRecord, slow: ThroughputRecord) -> Estimate | None:
    """Images per second of ``fast`` over ``slow``; null if one was not measured.

    Where both were measured in turn in the same processes, round by round; else of two independent results, their
    intervals combined as logarithms.
    """
    if fast.derived is None or slow.derived is None:
        return None
    factor = fast.images_per_iteration / slow.images_per_iteration
    partners = {restart.run: restart for restart in slow.restarts}
    if partners.keys() == {restart.run for restart in fast.restarts}:
        pairs = [ratio_estimate(one.series.rates, partners[one.run].series.rates) for one in fast.restarts]
        return combine(pairs, scale="log").times(factor)
    a, b = fast.derived.images_per_s, slow.derived.images_per_s
    if a.low <= 0 or b.low <= 0:
        return None
    down = math.hypot(math.log(a.value / a.low), math.log(b.high / b.value))
    up = math.hypot(math.log(a.high / a.value), math.log(b.value / b.low))
    value = a.value / b.value
    method = "two independent results, their intervals combined as logarithms"
    return Estimate(
        value=value,
        low=value * math.exp(-down),
        high=value * math.exp(up),
        method=method,
        samples=min(a.samples, b.samples),
    )


def save(record: ThroughputRecord, path: Path) -> None:
    """Write a record as JSON, atomically. Raises :class:`ResultsError` when ``path`` cannot be written."""
    write_text(path, record.model_dump_json(indent=1) + "\n")


def load(path: Path) -> ThroughputRecord:
    """Read a record. Raises :class:`ResultsError` when the file is missing or is not one of a timing."""
    try:
        return ThroughputRecord.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); measure it") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ResultsError(f"{path}: is not a record of a timing ({reason}); delete it and measure again") from error


def _energy(restarts: Sequence[Restart], images_per_iteration: float) -> tuple[Estimate | None, str | None]:
    values = []
    for restart in restarts:
        energy = restart.energy
        if energy.energy_j is None:
            return None, energy.reason
        each = energy.energy_j / (energy.iterations * images_per_iteration)
        # One window has no spread of its own; its edges err by a period of the counter each.
        error = each * 2 * (energy.counter_period_s or 0.1) / energy.seconds
        method = "one window, whose edges may err by a period of the counter"
        values.append(Estimate(value=each, low=each - error, high=each + error, method=method, samples=1))
    return combine(values), None


def _worst(gates: Sequence[Gate]) -> Gate:
    order = ("good", "unknown", "degraded")
    state = max((gate.state for gate in gates), key=order.index)
    reasons = dict.fromkeys((reason.kind, reason.text) for gate in gates for reason in gate.reasons)
    notes = dict.fromkeys(note for gate in gates for note in gate.notes)
    return Gate.model_validate(
        {"state": state, "reasons": [{"kind": k, "text": t} for k, t in reasons], "notes": tuple(notes)}
    )
