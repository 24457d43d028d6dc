"""Timing: warm up until the times are stable, then time blocks of the workloads in turn. Every sample is kept.

The host's clock around a block, with one synchronisation at the block's end, gives the throughput. Marks inside the
block lie on the device's own timeline (CUDA events) and need no synchronisation. They give the times of the iterations,
whose sum must agree with the host's clock.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from dcae_bench.base.typed import Strict
from dcae_bench.measurement.instruments.statistics import TOLERANCE, settled

Workload = Callable[[], object]
"""Runs one iteration on inputs that are ready. The call does not synchronise."""


class Clock(Protocol):
    """A clock with the time of the host and the time of the device."""

    kind: str

    def now(self) -> float:
        """The host's monotonic time, s."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all work."""
        ...

    def mark(self) -> Any:
        """A mark on the device's timeline, after all work so far. Does not wait."""
        ...

    def gaps(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next. The device must be synchronised."""
        ...


class HostClock:
    """The CPU's clock. Work is finished when the call returns."""

    kind = "cpu"

    def now(self) -> float:
        """The host's monotonic time, s."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Do nothing: there is nothing to wait for."""

    def mark(self) -> float:
        """The host's time now."""
        return self.now()

    def gaps(self, marks: Sequence[float]) -> list[float]:
        """Seconds from each mark to the next."""
        return [after - before for before, after in itertools.pairwise(marks)]


class CudaClock(HostClock):
    """A GPU's clock, made of CUDA events on the current stream."""

    kind = "cuda"

    def __init__(self, device: Any = None):
        """Create the clock of a CUDA device, by default of the current one."""
        import torch

        self._cuda, self._device = torch.cuda, device

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize(self._device)

    def mark(self) -> Any:
        """A timing event, recorded on the device's current stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def gaps(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each event to the next."""
        return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


class TimingSchedule(Strict):
    """How long to warm up and how long to time."""

    blocks: int = Field(default=10, ge=2, description="blocks of each workload, timed in turn")
    block_s: float = Field(default=1.0, gt=0, description="shortest duration of a block, s")
    block_iterations: int = Field(default=1, ge=1, description="fewest iterations in a block")
    warm_up_iterations: int = Field(default=20, ge=1, description="fewest iterations before the first block")
    warm_up_s: float = Field(default=2.0, ge=0, description="fewest seconds before the first block")
    warm_up_limit_s: float = Field(
        default=120.0, gt=0, description="seconds after which a warm-up ends even if the times still drift"
    )
    window: int = Field(
        default=10, ge=2, description="iterations whose median time is compared with the median of as many before"
    )
    tolerance: float = Field(
        default=TOLERANCE, gt=0, description="largest relative change of the median that counts as stable"
    )
    lead_in: int = Field(default=1, ge=0, description="untimed iterations before a block that follows another workload")
    marks_per_block: int = Field(
        default=200, ge=1, description="most marks in a block; with more iterations, several share a mark"
    )


class WarmUp(Strict):
    """The iterations before the first block."""

    setup_s: float = Field(description="time of the first call: compilation, autotuning, capture, first allocations")
    iterations: int
    seconds: float = Field(description="duration without the first call")
    settled: bool = Field(description="whether the times of the iterations had stopped drifting")
    iteration_s: tuple[float, ...] = Field(description="times of the last iterations, at most 1000")


class Block(Strict):
    """One timed run of several iterations of one workload."""

    round: int = Field(description="index of the round, in which each workload has one block")
    started_s: float = Field(description="host's monotonic time at the start, on the time axis of the GPU's trace")
    iterations: int
    host_s: float = Field(description="host's time from an idle device to an idle device")
    device_s: float = Field(description="device's time from the first mark to the last")
    wait_s: float = Field(description="host's time in the final synchronisation; near 0 if the GPU waits for the host")
    stride: int = Field(description="iterations from one mark to the next; fewer before the last mark")
    iteration_s: tuple[float, ...] = Field(
        description="device's time per iteration, one value for each gap between marks"
    )


class Series(Strict):
    """The samples of one workload in one process."""

    name: str
    plan: TimingSchedule = Field(description="the schedule of the timing")
    clock: str = Field(description="cpu or cuda")
    warm_up: WarmUp
    blocks: tuple[Block, ...]
    short_blocks: int = Field(
        description="blocks that were shorter than block_s and were repeated with more iterations"
    )

    @property
    def rates(self) -> list[float]:
        """Iterations per second of each block, by the host's clock."""
        return [block.iterations / block.host_s for block in self.blocks]

    @property
    def seconds(self) -> float:
        """Seconds of warm-up and blocks, without the first call."""
        return self.warm_up.seconds + sum(block.host_s for block in self.blocks)

    @property
    def timed_iterations(self) -> int:
        """Iterations of all blocks."""
        return sum(block.iterations for block in self.blocks)

    @property
    def device_over_host(self) -> float:
        """Median of device time divided by host time; 1 if the two clocks agree."""
        return float(np.median([block.device_s / block.host_s for block in self.blocks]))

    @property
    def wait_iterations(self) -> float:
        """Median of the final wait of a block, in iterations; near 0 if the GPU waits for the host."""
        return float(np.median([block.wait_s * block.iterations / block.host_s for block in self.blocks]))


def time_in_turn(
    workloads: Mapping[str, Workload],
    *,
    clock: Clock,
    schedule: TimingSchedule | None = None,
    setup_s: Mapping[str, float] | None = None,
) -> dict[str, Series]:
    """Time workloads in one process: warm up all of them, then time one block of each, round after round (A B A B).

    A slower clock or a warmer chip then affects all workloads alike, and
    :func:`dcae_bench.measurement.instruments.statistics.ratio_estimate` can compare the blocks of one round.
    ``setup_s`` holds the time of the first call of workloads that were called before. Errors of a workload are not
    caught.
    """
    schedule = schedule or TimingSchedule()
    if not workloads:
        raise ValueError("nothing to measure")
    known = setup_s or {}
    warmed = {name: warm_up(call, clock, schedule, known.get(name)) for name, call in workloads.items()}
    # A tenth more iterations than block_s needs, so that a slightly faster block is still long enough.
    counts = {
        name: max(
            schedule.block_iterations,
            math.ceil(1.1 * schedule.block_s / float(np.median(warm.iteration_s[-schedule.window :]))),
        )
        for name, warm in warmed.items()
    }
    lead_in = schedule.lead_in if len(workloads) > 1 else 0
    blocks: dict[str, list[Block]] = {name: [] for name in workloads}
    short = dict.fromkeys(workloads, 0)
    for turn in range(schedule.blocks):
        for name, call in workloads.items():
            for _ in range(lead_in):
                call()
            while (block := _block(call, clock, turn, counts[name], schedule)).host_s < schedule.block_s:
                # All later blocks have the new number of iterations too, so no block is chosen for its speed.
                counts[name] = math.ceil(max(1.1 * schedule.block_s / block.host_s, 1.1) * counts[name])
                short[name] += 1
            blocks[name].append(block)
    return {
        name: Series(
            name=name,
            plan=schedule,
            clock=clock.kind,
            warm_up=warmed[name],
            blocks=tuple(blocks[name]),
            short_blocks=short[name],
        )
        for name in workloads
    }


def warm_up(call: Workload, clock: Clock, schedule: TimingSchedule, setup_s: float | None = None) -> WarmUp:
    """Run a workload until it ran enough iterations and seconds and its times no longer drift, or until the limit.

    ``setup_s`` is the time of the first call, if there was one already.
    """
    if setup_s is None:
        setup_s = time_of(call, clock)
    times: list[float] = []
    begin = clock.now()
    while True:
        times += _iterate(call, clock, schedule.window, 1)[0]
        seconds = clock.now() - begin
        stable = settled(times, schedule.window, schedule.tolerance)
        enough = len(times) >= schedule.warm_up_iterations and seconds >= schedule.warm_up_s
        if (enough and stable) or seconds >= schedule.warm_up_limit_s:
            break
    return WarmUp(
        setup_s=setup_s,
        iterations=len(times),
        seconds=seconds,
        settled=stable,
        iteration_s=tuple(times[-1000:]),
    )


def time_of(call: Workload, clock: Clock) -> float:
    """Seconds of one call, from an idle device to an idle device."""
    begin = clock.now()
    call()
    clock.synchronize()
    return clock.now() - begin


def _block(call: Workload, clock: Clock, turn: int, iterations: int, schedule: TimingSchedule) -> Block:
    """Time one block of ``iterations``."""
    stride = math.ceil(iterations / schedule.marks_per_block)
    clock.synchronize()
    begin = clock.now()
    gaps, wait_s = _iterate(call, clock, iterations, stride)
    host_s = clock.now() - begin
    sizes = [stride] * (iterations // stride) + ([iterations % stride] if iterations % stride else [])
    return Block(
        round=turn,
        started_s=begin,
        iterations=iterations,
        host_s=host_s,
        device_s=sum(gaps),
        wait_s=wait_s,
        stride=stride,
        iteration_s=tuple(gap / size for gap, size in zip(gaps, sizes, strict=True)),
    )


def _iterate(call: Workload, clock: Clock, iterations: int, stride: int) -> tuple[list[float], float]:
    """Run iterations with a mark after every ``stride``. Returns the seconds between marks and of the final wait."""
    marks = [clock.mark()]
    for done in range(1, iterations + 1):
        call()
        if done % stride == 0 or done == iterations:
            marks.append(clock.mark())
    issued = clock.now()
    clock.synchronize()
    wait_s = clock.now() - issued
    return clock.gaps(marks), wait_s
