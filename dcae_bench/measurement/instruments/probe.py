"""The probe of a GPU: the period of its energy counter, the fields that NVML answers, and the energy of a window."""

import time
from collections.abc import Callable

import numpy as np
from pydantic import Field

from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments.energy import WINDOW_S, Energy, measure_energy
from dcae_bench.measurement.instruments.nvml import Identity, Source
from dcae_bench.measurement.instruments.recorder import Recorder
from dcae_bench.measurement.instruments.timing import Clock, Workload

FIELDS = ("energy_mj", "power_w", "power_average_w", "temperature_c", "memory_temperature_c", "sm_mhz", "memory_mhz")


class Probe(Strict):
    """Findings about one GPU."""

    identity: Identity
    counter_steps_s: tuple[float, ...] = Field(
        description="times between two steps of the energy counter, polled without pause"
    )
    counter_period_s: float | None = Field(description="median of counter_steps_s; null if the counter stood still")
    answers: dict[str, str] = Field(description="for each field: answered, or NVML's reason")
    read_ms: float = Field(description="median time in ms of one reading")
    energy: Energy = Field(description="energy of a window of matrix products")


def probe(
    source: Source,
    work: Workload,
    clock: Clock,
    *,
    poll_s: float = 5.0,
    window_s: float = WINDOW_S,
    iterations: int = 100,
    sleep: Callable[[float], None] = time.sleep,
) -> Probe:
    """Poll the GPU for ``poll_s`` seconds while ``work`` runs, then take the energy of one window of ``work``."""
    times, counters, reads = [], [], []
    begin = clock.now()
    sample = source.sample()
    while clock.now() - begin < poll_s:
        before = clock.now()
        sample = source.sample(full=False)
        reads.append(clock.now() - before)
        times.append(sample.t)
        counters.append(sample.energy_mj)
        if len(times) % 50 == 0:
            work()
        if clock.now() == before:
            sleep(0.001)
    clock.synchronize()
    moved = [t for t, a, b in zip(times[1:], counters, counters[1:], strict=False) if a != b]
    steps = tuple(float(step) for step in np.diff(moved))
    with Recorder(source) as recorder:
        energy = measure_energy(
            work, clock=clock, recorder=recorder, iterations=iterations, window_s=window_s, sleep=sleep
        )
    full = source.sample()
    return Probe(
        identity=source.identity(),
        counter_steps_s=steps,
        counter_period_s=float(np.median(steps)) if steps else None,
        answers={name: full.unavailable.get(name, "answered") for name in FIELDS},
        read_ms=1000 * float(np.median(reads)),
        energy=energy,
    )
