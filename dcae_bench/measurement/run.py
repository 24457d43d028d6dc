"""The measurement of one process: time workloads in turn, record the device's state, take the energy, judge."""

import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from dcae_bench.measurement.instruments import host
from dcae_bench.measurement.instruments.ceiling import Matmul
from dcae_bench.measurement.instruments.energy import WINDOW_S, measure_energy, no_energy
from dcae_bench.measurement.instruments.gate import judge
from dcae_bench.measurement.instruments.nvml import Source, Trace
from dcae_bench.measurement.instruments.recorder import PERIOD_S, Recorder
from dcae_bench.measurement.instruments.timing import Clock, TimingSchedule, Workload, time_in_turn
from dcae_bench.measurement.record import Restart

CEILING = "matmul"
"""Name of the ceiling among the workloads that are timed in turn."""
NO_WINDOW = "no window was asked for"


@dataclass(frozen=True)
class Measurement:
    """Results of one process."""

    restarts: dict[str, Restart]
    """By the name of the workload."""
    trace: Trace | None
    """The GPU's state over the whole measurement. Save the trace beside the records, under the name in them."""


def run(
    workloads: Mapping[str, Workload],
    *,
    clock: Clock,
    schedule: TimingSchedule | None = None,
    ceiling: Matmul | None = None,
    source: Source | None = None,
    no_source: str = "the energy of processors is not measured",
    setup_s: Mapping[str, float] | None = None,
    with_energy: Collection[str] | None = None,
    window_s: float = WINDOW_S,
    cool_to_c: int | None = None,
    peaks_gib: Mapping[str, float] | None = None,
    trace_file: str | None = None,
    period_s: float = PERIOD_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Time ``workloads`` in turn, then take the energy of one after the other. The caller must hold the lease.

    ``source`` reads the GPU by NVML, with times of ``clock``; without a source the energy is null and ``no_source`` is
    the reason. ``ceiling`` is timed in turn with the workloads. ``setup_s`` holds the time of the first call of
    workloads that were called before. ``with_energy`` names the workloads whose energy is measured; None: all.
    ``trace_file`` is the file name that the records give to the trace.
    """
    if CEILING in workloads:
        raise ValueError(f"'{CEILING}' is the ceiling's own name")
    name, started = uuid.uuid4().hex, datetime.now(UTC)
    calls: dict[str, Workload] = dict(workloads) if ceiling is None else {**workloads, CEILING: ceiling}
    before = host.read_state()
    if source is None:
        series, trace = time_in_turn(calls, clock=clock, schedule=schedule, setup_s=setup_s), None
        energies = {workload: no_energy(no_source) for workload in workloads}
        activity = host.activity_between(before, host.read_state())
    else:
        with Recorder(source, period_s=period_s) as recorder:
            series = time_in_turn(calls, clock=clock, schedule=schedule, setup_s=setup_s)
            activity = host.activity_between(before, host.read_state())
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
                if with_energy is None or workload in with_energy
                else no_energy(NO_WINDOW)
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
    return Measurement(restarts, trace)
