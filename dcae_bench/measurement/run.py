"""One process's measurement: time workloads in turn, watch the device, take the energy, judge the state."""

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from dcae_bench.measurement import host
from dcae_bench.measurement.ceiling import Matmul
from dcae_bench.measurement.energy import WINDOW_S, measure_energy, no_energy
from dcae_bench.measurement.gate import judge
from dcae_bench.measurement.nvml import Source, Trace
from dcae_bench.measurement.record import Restart
from dcae_bench.measurement.recorder import PERIOD_S, Recorder
from dcae_bench.measurement.timing import Clock, Plan, Workload, measure

CEILING = "matmul"
"""Name under which the ceiling is timed in turn with the workloads."""


@dataclass(frozen=True)
class Measured:
    """What one process found."""

    restarts: dict[str, Restart]
    trace: Trace | None
    """Of the GPU, over the whole measurement; save it beside the records under the name that they hold."""


def run(
    workloads: Mapping[str, Workload],
    *,
    clock: Clock,
    plan: Plan | None = None,
    ceiling: Matmul | None = None,
    source: Source | None = None,
    no_source: str = "the energy of processors is not measured",
    window_s: float = WINDOW_S,
    cool_to_c: int | None = None,
    peaks_gib: Mapping[str, float] | None = None,
    trace_file: str | None = None,
    period_s: float = PERIOD_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Measured:
    """Measure ``workloads`` together; hold the device's lease around it.

    ``source`` is the GPU as NVML shows it, on the clock's time; without it there is no energy, for ``no_source``.
    ``ceiling`` is timed in turn with the workloads. Energy windows follow the timing, one workload after the other.
    """
    if CEILING in workloads:
        raise ValueError(f"'{CEILING}' is the ceiling's own name")
    name, started = uuid.uuid4().hex, datetime.now(UTC)
    calls = dict(workloads) if ceiling is None else {**workloads, CEILING: ceiling}
    before = host.state()
    if source is None:
        series, trace = measure(calls, clock=clock, plan=plan), None
        energies = {workload: no_energy(no_source) for workload in workloads}
        activity = host.activity(before, host.state())
    else:
        with Recorder(source, period_s=period_s) as recorder:
            series = measure(calls, clock=clock, plan=plan)
            activity = host.activity(before, host.state())
            energies = {
                workload: measure_energy(
                    call,
                    clock=clock,
                    recorder=recorder,
                    iterations=max(1, round(float(np.median(series[workload].rates)))),
                    window_s=window_s,
                    cool_to_c=cool_to_c,
                    sleep=sleep,
                )
                for workload, call in workloads.items()
            }
        trace = recorder.trace
    restarts = {
        workload: Restart(
            run=name,
            pid=os.getpid(),
            started=started,
            series=series[workload],
            ceiling=series.get(CEILING),
            ceiling_flops=None if ceiling is None else ceiling.flops,
            energy=energies[workload],
            host=activity,
            trace=None if trace is None else trace_file,
            gate=judge([series[workload]], trace=trace, host=activity, pid=os.getpid(), energy=energies[workload]),
            peak_gib=(peaks_gib or {}).get(workload),
        )
        for workload in workloads
    }
    return Measured(restarts, trace)
