"""Energy of a window by NVML's counter, checked against the integrated instant power; null with a reason."""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from pydantic import Field, model_validator

from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments.nvml import Sample, Trace
from dcae_bench.measurement.instruments.recorder import Recorder, wait_for_counter_step
from dcae_bench.measurement.instruments.timing import Clock, Workload

WINDOW_S = 10.0
"""Shortest window. The counter moves about every 0.1 s, so each edge of the window errs by 1 % at most."""
MAX_GAP_S = 0.5
"""Longest gap between power samples over which power is interpolated linearly."""


class Energy(Strict):
    """Energy of the whole GPU in one window of steady work."""

    energy_j: float | None = Field(description="energy by NVML's counter")
    reason: str | None = Field(description="why energy_j is null; null if it is not")
    start_s: float | None = Field(default=None, description="host's monotonic time at the start of the window, s")
    seconds: float = Field(description="length of the window")
    iterations: int
    integrated_j: float | None = Field(default=None, description="energy by integrating the samples of instant power")
    integrated_reason: str | None = Field(default=None, description="why integrated_j is null; null if it is not")
    counter_period_s: float | None = Field(default=None, description="median time between two steps of the counter")
    temperature_c: tuple[int, int] | None = Field(
        default=None, description="lowest and highest temperature in the window"
    )

    @model_validator(mode="after")
    def _reasoned(self) -> "Energy":
        if (self.energy_j is None) != (self.reason is not None):
            raise ValueError("energy is either there or has a reason why not")
        if self.energy_j is not None and self.energy_j <= 0:
            raise ValueError("energy is never 0: null with a reason")
        return self

    @property
    def power_w(self) -> float | None:
        """Average power by NVML's counter."""
        return None if self.energy_j is None else self.energy_j / self.seconds

    @property
    def discrepancy(self) -> float | None:
        """Integrated energy divided by the counter's energy, minus 1."""
        if self.energy_j is None or self.integrated_j is None:
            return None
        return self.integrated_j / self.energy_j - 1


def no_energy(reason: str, seconds: float = 0.0, iterations: int = 0) -> Energy:
    """The energy of a record if no energy could be measured, with the reason."""
    return Energy(energy_j=None, reason=reason, seconds=seconds, iterations=iterations)


def energy_of(trace: Trace, start: float, end: float, iterations: int) -> Energy:
    """Energy of the window from ``start`` to ``end`` (host's monotonic time, s), in which ``iterations`` ran."""
    # A nanosecond wider: a window given by start and length would lose its last sample to rounding.
    window = trace.between(start - 1e-9, end + 1e-9).samples
    joules, reason = _counter_energy(trace, window, end - start)
    integrated, why = _integrated_energy(window, start, end)
    temperatures = [sample.temperature_c for sample in window if sample.temperature_c is not None]
    return Energy(
        energy_j=joules,
        reason=reason,
        start_s=start,
        seconds=end - start,
        iterations=iterations,
        integrated_j=integrated,
        integrated_reason=why,
        counter_period_s=_counter_period(window),
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
    """Run a warm workload for one window of at least ``window_s`` seconds and take its energy.

    ``iterations`` run between two synchronisations, which notice the end of the window; choose about a second's worth.
    With ``cool_to_c`` the GPU first cools down to that temperature, for at most ``cool_down_s`` seconds: hot silicon
    leaks more, so a workload would need more energy after a hot one. ``iterations`` untimed iterations follow.
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
    wait_for_counter_step(recorder, clock.now, sleep, limit_s=1.0)
    start, done = recorder.sample().t, 0
    while clock.now() - start < window_s:
        for _ in range(iterations):
            call()
        clock.synchronize()
        done += iterations
    end = recorder.sample().t
    return energy_of(recorder.trace, start, end, done)


def _counter_energy(trace: Trace, window: tuple[Sample, ...], seconds: float) -> tuple[float | None, str | None]:
    """Energy in J by the counter; or None with the reason."""
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
    # The counter must be read at the edges. Interpolating over more than 1 % of the window would invent energy.
    if seconds - (last.t - first.t) > 0.01 * seconds:
        return None, "the trace does not reach from the window's start to its end"
    counts = [sample.energy_mj for sample in window if sample.energy_mj is not None]
    if any(after < before for before, after in pairwise(counts)):
        return None, "the counter went back in the window: the driver was loaded anew"
    if counts[-1] == counts[0]:
        return None, "the counter did not move in the window"
    return (counts[-1] - counts[0]) / 1000, None


def _integrated_energy(window: tuple[Sample, ...], start: float, end: float) -> tuple[float | None, str | None]:
    """Energy in J by integrating instant power; or None with the reason."""
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


def _counter_period(window: tuple[Sample, ...]) -> float | None:
    """Median time in s between two steps of the counter. The trace's sampling period limits the resolution."""
    read = [(sample.t, sample.energy_mj) for sample in window if sample.energy_mj is not None]
    steps = [t for (_, before), (t, after) in pairwise(read) if after != before]
    return float(np.median(np.diff(steps))) if len(steps) > 2 else None
