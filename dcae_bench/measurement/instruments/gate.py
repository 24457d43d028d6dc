"""The state gate: whether a device was undisturbed during a timing, so that the timing shows the device's own speed.

The gate judges the recorded samples by fixed rules, so anyone can judge the same evidence again.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments import nvml
from dcae_bench.measurement.instruments.energy import Energy
from dcae_bench.measurement.instruments.host import HostActivity
from dcae_bench.measurement.instruments.nvml import GpuProcess, Sample, Trace
from dcae_bench.measurement.instruments.statistics import flags
from dcae_bench.measurement.instruments.timing import Series

THERMAL = nvml.SOFTWARE_THERMAL | nvml.HARDWARE_THERMAL
CLOCK_DROP = 0.9
"""A sample whose SM clock is below this share of the median is a clock drop."""
DROP_SHARE = 0.05
"""A result is degraded if more than this share of the samples are clock drops."""
FOREIGN_CPUS = 0.1
"""A timing on the CPU is degraded if other work used more than this share of the processors."""
CLOCKS_AGREE = 0.02
"""Largest relative difference between the device's and the host's time of a block."""
OUTLIER_SHARE = 0.1
"""A series is unstable if more than this share of its blocks are outliers."""
ENERGY_AGREES = 0.05
"""Largest relative difference between integrated power and the energy counter that is not noted."""
POLLING_GAP_S = 1.0
"""Longest gap between samples of the GPU that is not noted."""

Kind = Literal[
    "thermal",
    "power_brake",
    "hardware_slowdown",
    "clock_drop",
    "foreign_process",
    "foreign_load",
    "quota",
    "ecc",
    "unsettled",
    "unstable",
    "clocks_disagree",
    "not_observed",
]


class Reason(Strict):
    """Why a result is degraded or unknown."""

    kind: Kind
    text: str


class Gate(Strict):
    """Judgement of one measurement."""

    state: Literal["good", "degraded", "unknown"] = Field(
        description="degraded: tables omit the result unless asked for it; unknown: the state was not observed"
    )
    reasons: tuple[Reason, ...] = Field(default=(), description="why the state is not good")
    notes: tuple[str, ...] = Field(default=(), description="facts that a reader should know, whatever the state")


def judge(
    series: Sequence[Series],
    *,
    trace: Trace | None,
    host: HostActivity | None,
    pid: int,
    energy: Energy | None = None,
) -> Gate:
    """Judge series that were timed together.

    ``trace`` holds the GPU's state during the measurement (None on a CPU), ``host`` the use of the processors, and
    ``pid`` is the process that measured.
    """
    reasons: list[Reason] = []
    notes: list[str] = []
    on_gpu = any(one.clock == "cuda" for one in series)
    for one in series:
        _stability(one, reasons, notes)
    if on_gpu and (trace is None or len(trace.samples) < 2):
        reasons.append(Reason(kind="not_observed", text="the GPU's state was not recorded"))
    elif trace is not None:
        _gpu(trace, pid, reasons, notes)
    if host is None and not on_gpu:
        reasons.append(Reason(kind="not_observed", text="the processors' load was not recorded"))
    elif host is not None:
        _host(host, on_gpu, reasons, notes)
    if energy is not None and energy.discrepancy is not None and abs(energy.discrepancy) > ENERGY_AGREES:
        notes.append(f"integrated power differs from the energy counter by {100 * energy.discrepancy:+.1f} %")
    known = [reason for reason in reasons if reason.kind != "not_observed"]
    state = "degraded" if known else "unknown" if reasons else "good"
    return Gate(state=state, reasons=tuple(reasons), notes=tuple(notes))


def foreign_processes(trace: Trace, pid: int) -> tuple[GpuProcess, ...] | None:
    """Processes that computed on the GPU beside ``pid``; None if NVML does not show processes.

    In a container NVML shows the host's process ids, or none. If ``pid`` never appears, one of the processes at the end
    counts as ``pid`` under another id. All others are foreign.
    """
    lists = [sample.processes for sample in trace.samples if sample.processes is not None]
    if not lists or not any(lists):
        return None
    seen = {process.pid: process for processes in lists for process in processes}
    if pid in seen:
        seen.pop(pid)
    elif lists[-1]:
        # Our process must be in the last list. It may be missing in the first, taken before it used the GPU.
        at_first = {process.pid for process in lists[0]}
        ours = sorted(lists[-1], key=lambda process: process.pid in at_first)[0]
        seen.pop(ours.pid)
    return tuple(seen.values())


def _stability(series: Series, reasons: list[Reason], notes: list[str]) -> None:
    """Judge a series by its warm-up, its flags and its two clocks."""
    if not series.warm_up.settled:
        text = f"{series.name}: times still drifted after a warm-up of {series.warm_up.seconds:.0f} s"
        reasons.append(Reason(kind="unsettled", text=text))
    found = flags(series.rates)
    outliers = [flag for flag in found if flag.kind == "outlier"]
    changes = [flag.text for flag in found if flag.kind != "outlier"]
    if len(outliers) > OUTLIER_SHARE * len(series.blocks):
        changes.append(f"{len(outliers)} of {len(series.blocks)} blocks are outliers")
    else:
        notes += [f"{series.name}: {flag.text}" for flag in outliers]
    reasons += [Reason(kind="unstable", text=f"{series.name}: {text}") for text in changes]
    if abs(series.device_over_host - 1) > CLOCKS_AGREE:
        text = f"{series.name}: the device's clock shows {series.device_over_host:.3f} of the host's time"
        reasons.append(Reason(kind="clocks_disagree", text=text))
    if series.clock == "cuda" and series.wait_iterations < 0.1:
        notes.append(f"{series.name}: the GPU waits for the host (launch-bound)")


def _gpu(trace: Trace, pid: int, reasons: list[Reason], notes: list[str]) -> None:
    """Judge the GPU's state: slowdowns, clocks, other processes, memory errors."""
    samples = trace.samples
    first, last = samples[0], samples[-1]
    bits = [sample.reasons for sample in samples if sample.reasons is not None]
    if not bits:
        reasons.append(Reason(kind="not_observed", text="NVML tells no clocks event reasons"))

    def share(mask: int) -> float:
        return sum(bool(bit & mask) for bit in bits) / len(bits) if bits else 0.0

    violation_s = _violation(samples)
    if share(THERMAL) or violation_s:
        text = f"thermal slowdown in {100 * share(THERMAL):.0f} % of the samples, {violation_s:.2f} s by the counter"
        reasons.append(Reason(kind="thermal", text=text))
    if share(nvml.POWER_BRAKE):
        text = f"power brake in {100 * share(nvml.POWER_BRAKE):.0f} % of the samples"
        reasons.append(Reason(kind="power_brake", text=text))
    if share(nvml.HARDWARE_SLOWDOWN) and not (share(THERMAL) or share(nvml.POWER_BRAKE)):
        text = f"hardware slowdown in {100 * share(nvml.HARDWARE_SLOWDOWN):.0f} % of the samples"
        reasons.append(Reason(kind="hardware_slowdown", text=text))
    for mask in (nvml.POWER_CAP, nvml.SYNC_BOOST, nvml.APPLICATION_CLOCKS):
        if share(mask):
            notes.append(f"{nvml.REASONS[mask]} in {100 * share(mask):.0f} % of the samples")
    _clocks(samples, reasons, notes)
    others = foreign_processes(trace, pid)
    if others is None:
        notes.append("NVML shows no compute processes here: others would not be seen")
    elif others:
        found = ", ".join(f"{one.pid} ({one.memory_mib or '?'} MiB)" for one in others)
        reasons.append(Reason(kind="foreign_process", text=f"other processes computed on the GPU: {found}"))
    if None not in (first.ecc_uncorrected, last.ecc_uncorrected) and last.ecc_uncorrected != first.ecc_uncorrected:
        reasons.append(Reason(kind="ecc", text="uncorrected memory errors during the measurement"))
    if trace.identity.mig:
        notes.append("MIG: a slice shares power and clocks with others, which are not seen")
    gaps = np.diff([sample.t for sample in samples])
    if gaps.max(initial=0) > POLLING_GAP_S:
        notes.append(f"the GPU's state was not read for {gaps.max():.1f} s")


def _clocks(samples: Sequence[Sample], reasons: list[Reason], notes: list[str]) -> None:
    """Judge the SM clock of the working GPU. A drop under the power cap is normal: the GPU keeps its power limit."""
    clocks = [(s.sm_mhz, s.reasons or 0) for s in samples if s.sm_mhz is not None]
    working = [(mhz, bits) for mhz, bits in clocks if not bits & nvml.IDLE]
    if not working:
        return
    median = float(np.median([mhz for mhz, _ in working]))
    low = [(mhz, bits) for mhz, bits in working if mhz < CLOCK_DROP * median]
    unexplained = [mhz for mhz, bits in low if not bits & nvml.POWER_CAP]
    if len(unexplained) > DROP_SHARE * len(working):
        text = f"SM clock fell to {min(unexplained)} MHz from a median of {median:.0f} MHz"
        reasons.append(Reason(kind="clock_drop", text=text))
    elif low:
        notes.append(f"SM clock between {min(mhz for mhz, _ in low)} MHz and a median of {median:.0f} MHz")


def _host(host: HostActivity, on_gpu: bool, reasons: list[Reason], notes: list[str]) -> None:
    """Judge the processors: work of others, and the container's CPU quota."""
    if host.foreign_cpus is None:
        notes.append("the load of other work cannot be seen on this machine")
    elif host.foreign_cpus > FOREIGN_CPUS * host.cpus:
        text = f"other work kept {host.foreign_cpus:.2f} of {host.cpus} processors busy"
        _degrade("foreign_load", text, on_gpu, reasons, notes)
    if host.throttled_s is not None and host.throttled_s > 0.01 * host.seconds:
        text = f"the container's CPU quota held threads back for {host.throttled_s:.1f} s in {host.seconds:.0f} s"
        _degrade("quota", text, on_gpu, reasons, notes)


def _degrade(kind: Kind, text: str, on_gpu: bool, reasons: list[Reason], notes: list[str]) -> None:
    """Busy processors degrade a timing on the CPU. For a timing on a GPU they are a note: launches may be late."""
    if on_gpu:
        notes.append(text)
    else:
        reasons.append(Reason(kind=kind, text=text))


def _violation(samples: Sequence[Sample]) -> float:
    """Seconds in which heat lowered the clock, by the driver's counter."""
    counts = [sample.thermal_violation_ns for sample in samples if sample.thermal_violation_ns is not None]
    return max(counts[-1] - counts[0], 0) / 1e9 if counts else 0.0
