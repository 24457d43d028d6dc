"""Timing: warm up until stable, then blocks of the workloads in turn; every sample is kept.

The host's clock around a block, with one synchronisation at its end, gives the throughput. Marks on the device's own
timeline (CUDA events) inside the block cost no synchronisation; they give the iterations' times, and their sum must
agree with the host's clock.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from dcae_bench.measurement.statistics import TOLERANCE, Value, settled

Workload = Callable[[], object]
"""One iteration. What it works on stands ready; it does not synchronise."""


class Clock(Protocol):
    """Time as the host and as the device see it."""

    kind: str

    def now(self) -> float:
        """The host's monotonic time, s."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        ...

    def mark(self) -> Any:
        """A point on the device's timeline, after what it was given so far; does not wait."""
        ...

    def gaps(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next; the device is synchronised."""
        ...


class HostClock:
    """The CPU's clock: work is done when the call returns."""

    kind = "cpu"

    def now(self) -> float:
        """The host's monotonic time, s."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def mark(self) -> float:
        """The time."""
        return self.now()

    def gaps(self, marks: Sequence[float]) -> list[float]:
        """Seconds from each mark to the next."""
        return [after - before for before, after in itertools.pairwise(marks)]


class CudaClock(HostClock):
    """A GPU's clock: events on the current stream."""

    kind = "cuda"

    def __init__(self, device: Any = None):
        """The clock of a CUDA device, by default the current one."""
        import torch

        self._cuda, self._device = torch.cuda, device

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize(self._device)

    def mark(self) -> Any:
        """An event with a time, recorded on the device's current stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def gaps(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each event to the next."""
        return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


class Plan(Value):
    """How long to warm up and to measure."""

    blocks: int = Field(default=10, ge=2, description="blocks of each workload, measured in turn")
    block_s: float = Field(default=1.0, gt=0, description="shortest block, seconds")
    block_iterations: int = Field(default=1, ge=1, description="fewest iterations of a block")
    warm_up_iterations: int = Field(default=20, ge=1, description="fewest iterations before the first block")
    warm_up_s: float = Field(default=2.0, ge=0, description="fewest seconds before the first block")
    warm_up_limit_s: float = Field(default=120.0, gt=0, description="seconds after which an unstable one is given up")
    window: int = Field(default=10, ge=2, description="iterations whose median is compared with that of as many before")
    tolerance: float = Field(default=TOLERANCE, gt=0, description="largest change of that median, relative")
    lead_in: int = Field(default=1, ge=0, description="untimed iterations before a block that follows another workload")
    marks_per_block: int = Field(default=200, ge=1, description="most marks in a block; more iterations share a mark")


class WarmUp(Value):
    """What came before the first block."""

    setup_s: float = Field(description="the first call: compilation, autotuning, capture, first allocations")
    iterations: int
    seconds: float = Field(description="without the first call")
    settled: bool = Field(description="whether the iterations' times had stopped to drift")
    iteration_s: tuple[float, ...] = Field(description="the last iterations' times, at most 1000")


class Block(Value):
    """One timed stretch of one workload."""

    round: int = Field(description="which round of the workloads it belongs to")
    started_s: float = Field(description="host's monotonic time at its start, as traces of the GPU hold it")
    iterations: int
    host_s: float = Field(description="host's time from an idle device to an idle device")
    device_s: float = Field(description="device's time from the first mark to the last")
    wait_s: float = Field(description="host's time in the synchronisation at the end; near 0 if the host is too slow")
    stride: int = Field(description="iterations from one mark to the next; the last stretch may be shorter")
    iteration_s: tuple[float, ...] = Field(description="device's time per iteration, from mark to mark")


class Series(Value):
    """One workload's samples in one process."""

    name: str
    plan: Plan
    clock: str = Field(description="cpu or cuda")
    warm_up: WarmUp
    blocks: tuple[Block, ...]
    short_blocks: int = Field(description="blocks done again with more iterations because they were below the length")

    @property
    def rates(self) -> list[float]:
        """Iterations per second of each block, by the host's clock."""
        return [block.iterations / block.host_s for block in self.blocks]

    @property
    def device_over_host(self) -> float:
        """Median of the device's time over the host's time; 1 where the two clocks agree."""
        return float(np.median([block.device_s / block.host_s for block in self.blocks]))

    @property
    def wait_iterations(self) -> float:
        """Median of the wait at a block's end, in iterations; near 0 the host was what the device waited for."""
        return float(np.median([block.wait_s * block.iterations / block.host_s for block in self.blocks]))


def measure(workloads: Mapping[str, Workload], *, clock: Clock, plan: Plan | None = None) -> dict[str, Series]:
    """Time workloads in one process: all are warmed up, then one block of each in turn, round after round (A B A B).

    In turn, so that a slower clock or a warmer chip meets them all: ratios of one round's blocks are what
    :func:`dcae_bench.measurement.statistics.ratio_estimate` takes. Errors of a workload go through.
    """
    plan = plan or Plan()
    if not workloads:
        raise ValueError("nothing to measure")
    warmed = {name: warm_up(call, clock, plan) for name, call in workloads.items()}
    # A tenth more than the block's length, so that a block that is a little faster is long enough.
    counts = {
        name: max(
            plan.block_iterations, math.ceil(1.1 * plan.block_s / float(np.median(warm.iteration_s[-plan.window :])))
        )
        for name, warm in warmed.items()
    }
    lead_in = plan.lead_in if len(workloads) > 1 else 0
    blocks: dict[str, list[Block]] = {name: [] for name in workloads}
    short = dict.fromkeys(workloads, 0)
    for turn in range(plan.blocks):
        for name, call in workloads.items():
            for _ in range(lead_in):
                call()
            while (block := _block(call, clock, turn, counts[name], plan)).host_s < plan.block_s:
                # Every later block has the new length too: none is taken or left for its speed.
                counts[name] = math.ceil(max(1.1 * plan.block_s / block.host_s, 1.1) * counts[name])
                short[name] += 1
            blocks[name].append(block)
    return {
        name: Series(
            name=name,
            plan=plan,
            clock=clock.kind,
            warm_up=warmed[name],
            blocks=tuple(blocks[name]),
            short_blocks=short[name],
        )
        for name in workloads
    }


def warm_up(call: Workload, clock: Clock, plan: Plan) -> WarmUp:
    """Run a workload until its times are stable: enough iterations, enough seconds, and no drift between windows."""
    begin = clock.now()
    call()
    clock.synchronize()
    setup_s = clock.now() - begin
    times: list[float] = []
    begin = clock.now()
    while True:
        times += _iterate(call, clock, plan.window, 1)[0]
        seconds = clock.now() - begin
        stable = settled(times, plan.window, plan.tolerance)
        enough = len(times) >= plan.warm_up_iterations and seconds >= plan.warm_up_s
        if (enough and stable) or seconds >= plan.warm_up_limit_s:
            break
    return WarmUp(
        setup_s=setup_s,
        iterations=len(times),
        seconds=seconds,
        settled=stable,
        iteration_s=tuple(times[-1000:]),
    )


def _block(call: Workload, clock: Clock, turn: int, iterations: int, plan: Plan) -> Block:
    stride = math.ceil(iterations / plan.marks_per_block)
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
    """Run iterations with a mark after every ``stride``; seconds between the marks, and of the wait at the end."""
    marks = [clock.mark()]
    for done in range(1, iterations + 1):
        call()
        if done % stride == 0 or done == iterations:
            marks.append(clock.mark())
    issued = clock.now()
    clock.synchronize()
    wait_s = clock.now() - issued
    return clock.gaps(marks), wait_s
