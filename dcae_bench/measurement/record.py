"""The record of one timing: a row of the throughput table, with every sample behind the row.

Each process writes a record with one restart; :func:`merge` joins the records of several processes. :func:`derive`
alone computes numbers from samples, so a reader can compute them again (:mod:`dcae_bench.measurement.evidence`).
"""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import read_bytes, sha256_json, write_text
from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.measurement.instruments.energy import Energy
from dcae_bench.measurement.instruments.environment import Environment
from dcae_bench.measurement.instruments.gate import Gate
from dcae_bench.measurement.instruments.host import HostActivity
from dcae_bench.measurement.instruments.memory import BatchSearch
from dcae_bench.measurement.instruments.statistics import Estimate, combine_restarts, median_estimate, ratio_estimate
from dcae_bench.measurement.instruments.timing import Series
from dcae_bench.records.digest import digest_problem, with_digest
from dcae_bench.records.provenance import Provenance

TRACE_SUFFIX = ".nvml.json"
"""End of the file name of a GPU's trace. The trace lies beside the records that name it."""

Work = Literal["train", "forward", "sample", "sample_decode", "encode", "decode", "phase1", "phase2", "phase3"]
"""Kind of work: the first four are a denoiser's, the others an autoencoder's."""


class TimedModel(Strict):
    """The network that was timed."""

    name: str = Field(description="e.g. uvit-h, dit-xl, dc-ae-f64c128")
    latent_space: str | None = Field(
        description="autoencoder and patch size, e.g. dc-ae-f64c128 p1; null for an autoencoder"
    )
    resolution: int = Field(description="side of the image in pixels")
    tokens: int | None = Field(description="tokens of one image, null for an autoencoder")
    parameters: int
    gmacs: float = Field(
        description="1e9 multiply-accumulates of one image's forward pass; in a phase, of its reconstruction"
    )


class Restart(Strict):
    """What one process measured."""

    run: str = Field(
        description="random name of the process's measurement; workloads that were timed in turn share the name"
    )
    pid: int
    started: datetime
    series: Series
    ceiling: Series | None = Field(
        default=None, description="the matrix product that was timed in turn with the workload"
    )
    ceiling_flops: float | None = Field(default=None, description="operations of one matrix product")
    energy: Energy
    host: HostActivity | None
    trace: str | None = Field(default=None, description="file name of NVML's trace, which lies beside the record")
    gate: Gate
    peak_gib: float | None = Field(description="peak of the GPU memory that torch allocated; null on a CPU")


class Agreement(Strict):
    """Error of a faster mode against plain eager PyTorch, determined before the timing and again after it."""

    what: str = Field(description="the two outputs that were compared")
    error: float = Field(ge=0, description="relative error: root mean square over outputs, or the largest over losses")
    limit: float = Field(gt=0, description="largest error at which the mode is timed")
    error_after: float | None = Field(
        default=None, ge=0, description="the error after the timing; null: a record from before such checks"
    )


class Derived(Strict):
    """Numbers that :func:`derive` computes from the restarts."""

    images_per_s: Estimate
    iteration_ms: Estimate
    ceiling_tflops: Estimate | None
    mfu: float | None = Field(description="model FLOPs utilisation: operations per second, divided by the ceiling")
    energy_per_image_j: Estimate | None
    energy_reason: str | None = Field(description="why there is no energy; null if there is one")
    peak_gib: float | None
    gate: Gate


class ThroughputRecord(Strict):
    """Timing of one workload of one network under one protocol on one device."""

    version: Literal[1] = 1
    kind: Literal["throughput"] = "throughput"
    profile: str | None = Field(default=None, description="profile that asked for the timing; null if none did")
    protocol: str = Field(description="versioned name of the way of measuring, e.g. throughput/paper-v1")
    model: TimedModel
    work: Work
    mode: str = Field(description="eager, compile, compile+cudagraph, manual_graph or trt")
    precision: str = Field(description="fp32, bf16, fp16 or autocast of one of them")
    batch: int
    share: int | None = Field(
        default=None,
        ge=2,
        description="4: a quarter of the protocol's batch; null: the whole batch, one that the user named, or a record "
        "from before this field",
    )
    images_per_iteration: float = Field(description="images that one iteration counts for: the batch, or batch/(2 NFE)")
    flops_per_image: float | None = Field(description="operations for one counted image, without recomputation")
    settings: dict[str, str] = Field(default_factory=dict, description="settings of the protocol: checkpointing, ...")
    agreement: Agreement | None = Field(default=None, description="null if plain eager fp32 itself is timed")
    status: Literal["measured", "oom", "skipped"]
    reason: str | None = Field(default=None, description="why the workload was not measured; null if it was")
    derived: Derived | None
    restarts: tuple[Restart, ...]
    search: BatchSearch | None = Field(default=None, description="how the batch was found; null if it was not searched")
    environment: Environment
    provenance: Provenance
    digest: Sha256 | None = Field(
        default=None, description="hash of everything else in the file; null: a record from before digests"
    )

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
        """Hash of workload, device, settings, code and configuration; restarts of one measurement have equal keys."""
        gpu = self.environment.gpu
        parts = (
            self.model_dump(include={"protocol", "model", "work", "mode", "precision", "batch", "share", "settings"}),
            gpu.uuid if gpu else self.environment.processor,
            self.environment.threads,
            self.provenance.code_sha256,
            self.provenance.config_sha256,
        )
        return sha256_json(parts)


def derive(restarts: Sequence[Restart], images_per_iteration: float, flops_per_image: float | None) -> Derived:
    """Derive the numbers: each process gives the median of its blocks; the result is the mean over processes."""
    rates = combine_restarts([median_estimate(restart.series.rates) for restart in restarts])
    images = rates.times(images_per_iteration)
    per_block = [[1000 / rate for rate in restart.series.rates] for restart in restarts]
    ceilings = [
        median_estimate(restart.ceiling.rates).times(restart.ceiling_flops / 1e12)
        for restart in restarts
        if restart.ceiling is not None and restart.ceiling_flops
    ]
    ceiling = combine_restarts(ceilings) if len(ceilings) == len(restarts) else None
    mfu = None
    if ceiling is not None and flops_per_image is not None:
        mfu = images.value * flops_per_image / 1e12 / ceiling.value
    joules, reason = _energy(restarts, images_per_iteration)
    peaks = [restart.peak_gib for restart in restarts if restart.peak_gib is not None]
    return Derived(
        images_per_s=images,
        iteration_ms=combine_restarts([median_estimate(times) for times in per_block]),
        ceiling_tflops=ceiling,
        mfu=mfu,
        energy_per_image_j=joules,
        energy_reason=reason,
        peak_gib=max(peaks) if peaks else None,
        gate=_worst([restart.gate for restart in restarts]),
    )


def merge(records: Sequence[ThroughputRecord]) -> ThroughputRecord:
    """Join the records of several processes of one measurement. Raises :class:`ResultsError`."""
    if len({record.key for record in records}) != 1:
        raise ResultsError("records of different measurements cannot be merged; merge restarts of the same one")
    first = records[0]
    for record in records:
        if record.status != "measured":
            return record  # a workload that ran out of memory in one process counts as out of memory
    restarts = sorted((one for record in records for one in record.restarts), key=lambda one: one.started)
    if len({restart.run for restart in restarts}) != len(restarts):
        raise ResultsError(f"{first.model.name}: the same restart is given twice; merge each record once")
    derived = derive(restarts, first.images_per_iteration, first.flops_per_image)
    return first.model_copy(update={"restarts": tuple(restarts), "derived": derived, "digest": None})


def speed_up(fast: ThroughputRecord, slow: ThroughputRecord) -> Estimate | None:
    """Images per second of ``fast`` divided by those of ``slow``; None if one was not measured.

    If both were timed in turn in the same processes, the ratio is taken round by round. Otherwise the two results are
    independent, and their intervals are combined as logarithms.
    """
    if fast.derived is None or slow.derived is None:
        return None
    factor = fast.images_per_iteration / slow.images_per_iteration
    partners = {restart.run: restart for restart in slow.restarts}
    if partners.keys() == {restart.run for restart in fast.restarts}:
        pairs = [ratio_estimate(one.series.rates, partners[one.run].series.rates) for one in fast.restarts]
        return combine_restarts(pairs, scale="log").times(factor)
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
    """Write a record with its digest as JSON, atomically. Raises :class:`ResultsError` when it cannot be written."""
    write_text(path, with_digest(record.model_dump_json(), indent=1))


def load(path: Path) -> ThroughputRecord:
    """Read a record. Raises :class:`ResultsError` if the file is missing, is no record of a timing, or was edited."""
    try:
        text = read_bytes(path)
        record = ThroughputRecord.model_validate_json(text)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); measure it") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ResultsError(f"{path}: is not a record of a timing ({reason}); delete it and measure again") from error
    if (problem := digest_problem(json.loads(text))) is not None:
        raise ResultsError(f"{path}: {problem}; restore the file, or delete it and measure again")
    return record


def _energy(restarts: Sequence[Restart], images_per_iteration: float) -> tuple[Estimate | None, str | None]:
    """Energy per image in J; or None with the reason, if one restart has no energy."""
    values = []
    for restart in restarts:
        energy = restart.energy
        if energy.energy_j is None:
            return None, energy.reason
        each = energy.energy_j / (energy.iterations * images_per_iteration)
        # One window gives no spread. Each edge of the window errs by up to one period of the counter.
        error = each * 2 * (energy.counter_period_s or 0.1) / energy.seconds
        method = "one window, whose edges may err by a period of the counter"
        values.append(Estimate(value=each, low=each - error, high=each + error, method=method, samples=1))
    return combine_restarts(values), None


def _worst(gates: Sequence[Gate]) -> Gate:
    """The worst state of several gates, with all their reasons and notes."""
    order = ("good", "unknown", "degraded")
    state = max((gate.state for gate in gates), key=order.index)
    reasons = dict.fromkeys((reason.kind, reason.text) for gate in gates for reason in gate.reasons)
    notes = dict.fromkeys(note for gate in gates for note in gate.notes)
    return Gate.model_validate(
        {"state": state, "reasons": [{"kind": k, "text": t} for k, t in reasons], "notes": tuple(notes)}
    )
