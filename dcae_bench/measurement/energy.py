"""Energy of a window: NVML's counter, checked against the integrated trace of instant power; null with a reason."""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from pydantic import Field, model_validator

from dcae_bench.measurement.nvml import Sample, Trace
from dcae_bench.measurement.recorder import Recorder, next_tick
from dcae_bench.measurement.statistics import Value
from dcae_bench.measurement.timing import Clock, Workload

WINDOW_S = 10.0
"""Shortest window: the counter moves about every 0.1 s, so that its edges err by 1 % each at most."""
MAX_GAP_S = 0.5
"""Longest pause of the power samples that may be bridged by a straight line."""


class Energy(Value):
    """Energy of the whole GPU over one window of steady work."""

    energy_j: float | None = Field(description="by the counter")
    reason: str | None = Field(description="why there is no energy; null where there is")
    start_s: float | None = Field(default=None, description="host's monotonic time at the window's start, s")
    seconds: float = Field(description="length of the window")
    iterations: int
    integrated_j: float | None = Field(default=None, description="by the samples of instant power")
    integrated_reason: str | None = None
    counter_period_s: float | None = Field(default=None, description="median time between the counter's steps")
    temperature_c: tuple[int, int] | None = Field(default=None, description="lowest and highest in the window")

    @model_validator(mode="after")
    def _reasoned(self) -> "Energy":
        if (self.energy_j is None) != (self.reason is not None):
            raise ValueError("energy is either there or has a reason why not")
        if self.energy_j is not None and self.energy_j <= 0:
            raise ValueError("energy is never 0: null with a reason")
        return self

    @property
    def power_w(self) -> float | None:
        """Average power by the counter."""
        return None if self.energy_j is None else self.energy_j / self.seconds

    @property
    def discrepancy(self) -> float | None:
        """The integrated trace over the counter, less 1."""
        if self.energy_j is None or self.integrated_j is None:
            return None
        return self.integrated_j / self.energy_j - 1


def no_energy(reason: str, seconds: float = 0.0, iterations: int = 0) -> Energy:
    """What stands in a record where nothing could be measured."""
    return Energy(energy_j=None, reason=reason, seconds=seconds, iterations=iterations)


def energy_of(trace: Trace, start: float, end: float, iterations: int) -> Energy:
    """Energy of the window from ``start`` to ``end`` (host's monotonic time, s), in which ``iterations`` were done."""
    # A nanosecond more, so that a window given as start and length holds its last sample too.
    window = trace.between(start - 1e-9, end + 1e-9).samples
    joules, reason = _counted(trace, window, end - start)
    integrated, why = _integrated(window, start, end)
    temperatures = [sample.temperature_c for sample in window if sample.temperature_c is not None]
    return Energy(
        energy_j=joules,
        reason=reason,
        start_s=start,
        seconds=end - start,
        iterations=iterations,
        integrated_j=integrated,
        integrated_reason=why,
        counter_period_s=_period(window),
        temperature_c=(min(temperatures), max(temperatures)) if temperatures else None,
    )


def measure_energy(
    call: Workload,
    *,
    clock: Clock,
    recorder: Recorder,
    iterations: int,
    window_s: float = WINDOW_S,
    cool_to_c: int | None = None,
    cool_down_s: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Run a warm workload for one window and take its energy.

    ``iterations`` are done between two synchronisations, so that the end is noticed; about a second's worth. Before
    the window the GPU may cool down to ``cool_to_c``, for ``cool_down_s`` at most (silicon leaks more when it is hot,
    so that the order of workloads would count), then the workload runs once more for as many iterations, untimed.
    """
    begin = clock.now()
    while cool_to_c is not None and clock.now() - begin < cool_down_s:
        temperature = recorder.sample(full=False).temperature_c
        if temperature is None or temperature <= cool_to_c:
            break
        sleep(0.5)
    for _ in range(iterations):
        call()
    clock.synchronize()
    next_tick(recorder, clock.now, sleep, limit_s=1.0)
    start, done = recorder.sample().t, 0
    while clock.now() - start < window_s:
        for _ in range(iterations):
            call()
        clock.synchronize()
        done += iterations
    end = recorder.sample().t
    return energy_of(recorder.trace, start, end, done)


def _counted(trace: Trace, window: tuple[Sample, ...], seconds: float) -> tuple[float | None, str | None]:
    if trace.identity.mig:
        return None, "MIG is on: the counter is the whole GPU's, of which a slice's share is not known"
    if seconds < WINDOW_S - 1e-6:
        return None, f"the window of {seconds:.1f} s is shorter than the {WINDOW_S:.0f} s that the counter needs"
    if len(window) < 2:
        return None, "the trace has no samples in the window"
    first, last = window[0], window[-1]
    if first.energy_mj is None or last.energy_mj is None:
        missing = first if first.energy_mj is None else last
        return None, f"NVML's energy counter does not answer: {missing.unavailable.get('energy_mj', 'no value')}"
    # The counter must be read at the edges; a straight line over 1 % of the window would be an invention.
    if seconds - (last.t - first.t) > 0.01 * seconds:
        return None, "the trace does not reach from the window's start to its end"
    counts = [sample.energy_mj for sample in window if sample.energy_mj is not None]
    if any(after < before for before, after in pairwise(counts)):
        return None, "the counter went back in the window: the driver was loaded anew"
    if counts[-1] == counts[0]:
        return None, "the counter did not move in the window"
    return (counts[-1] - counts[0]) / 1000, None


def _integrated(window: tuple[Sample, ...], start: float, end: float) -> tuple[float | None, str | None]:
    points = [(sample.t, sample.power_w) for sample in window if sample.power_w is not None]
    if len(points) < 2:
        why = next((s.unavailable["power_w"] for s in window if "power_w" in s.unavailable), "no samples in the window")
        return None, f"no trace of instant power: {why}"
    times, powers = map(np.asarray, zip(*points, strict=True))
    gap = max(np.diff(times).max(), times[0] - start, end - times[-1])
    if gap > MAX_GAP_S:
        return None, f"the trace of instant power pauses for {gap:.1f} s"
    edges = np.concatenate([[start], times, [end]])
    return float(np.trapezoid(np.interp(edges, times, powers), edges)), None


def _period(window: tuple[Sample, ...]) -> float | None:
    """Median time between the counter's steps, as far as the trace's own period resolves it."""
    read = [(sample.t, sample.energy_mj) for sample in window if sample.energy_mj is not None]
    steps = [t for (_, before), (t, after) in pairwise(read) if after != before]
    return float(np.median(np.diff(steps))) if len(steps) > 2 else None
