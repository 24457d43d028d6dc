"""Schedule: a simulation of when a profile's jobs run on some GPUs or cores, and what they read and write meanwhile.

The simulation starts jobs as Snakemake does: whenever something ends, the ready jobs that fit start, those of a higher
priority first. It knows no failures, no queue of a cluster, and no two jobs that slow each other down.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Literal

Capacity = Literal["gpus", "cores"]
STOPS_SCALING = 1.05
"""A schedule this many times as long as its longest chain of jobs gains next to nothing by more GPUs."""


@dataclass(frozen=True)
class PlannedJob:
    """One job of a workflow: how long it takes, what it occupies, what it waits for, what it reads and writes."""

    name: str
    seconds: float
    gpus: int = 0
    cores: int = 1
    after: tuple[str, ...] = ()
    """Names of the jobs whose results it reads."""
    priority: int = 0
    disk_gib: float = 0.0
    """Disk space of its finished files."""
    unfinished_gib: float = 0.0
    """Further disk space while it runs."""
    read_gib: float = 0.0
    written_gib: float = 0.0

    def needs(self, what: Capacity) -> int:
        """GPUs or cores that the job occupies."""
        return self.gpus if what == "gpus" else self.cores


@dataclass(frozen=True)
class Span:
    """When a job runs, in seconds from the start."""

    job: PlannedJob
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Schedule:
    """All jobs with their times on ``capacity`` GPUs or cores."""

    what: Capacity
    capacity: int
    spans: tuple[Span, ...]

    @property
    def makespan_s(self) -> float:
        """Seconds until the last job has ended."""
        return max((span.end_s for span in self.spans), default=0.0)

    @property
    def occupied_s(self) -> float:
        """GPU-seconds or core-seconds of all jobs."""
        return sum(span.job.needs(self.what) * span.job.seconds for span in self.spans)

    @property
    def use(self) -> float:
        """Share of the GPUs or cores that jobs occupy, until the last job has ended."""
        return self.occupied_s / (self.capacity * self.makespan_s) if self.makespan_s else 0.0

    @property
    def peak_storage_gib(self) -> float:
        """Largest disk space at one time: files of finished jobs, which stay, and what running jobs need besides."""
        events = [(span.start_s, 1, span.job.disk_gib + span.job.unfinished_gib) for span in self.spans]
        events += [(span.end_s, 0, -span.job.unfinished_gib) for span in self.spans]
        return _peak(events)

    @property
    def traffic_gib(self) -> tuple[float, float]:
        """GiB that all jobs read and write."""
        return sum(s.job.read_gib for s in self.spans), sum(s.job.written_gib for s in self.spans)

    @property
    def peak_read_gib_per_s(self) -> float:
        """Largest rate of reading at one time, if every job reads evenly."""
        reading = [span for span in self.spans if span.job.read_gib and span.job.seconds]
        events = [(span.start_s, 1, span.job.read_gib / span.job.seconds) for span in reading]
        events += [(span.end_s, 0, -span.job.read_gib / span.job.seconds) for span in reading]
        return _peak(events)


def _peak(events: Iterable[tuple[float, int, float]]) -> float:
    """Largest running sum of (time, rank, change); of one time, the lower rank comes first."""
    total = peak = 0.0
    for _time, _rank, change in sorted(events):
        total += change
        peak = max(peak, total)
    return peak


class JobGraph:
    """Jobs by name, each after those that it waits for."""

    def __init__(self, jobs: Sequence[PlannedJob]):
        """Raises ValueError for two jobs of one name, an unknown name, and a circle."""
        self.jobs = {job.name: job for job in jobs}
        if len(self.jobs) != len(jobs):
            raise ValueError("two jobs have one name")
        unknown = {name for job in jobs for name in job.after} - self.jobs.keys()
        if unknown:
            raise ValueError(f"jobs wait for jobs that there are not: {', '.join(sorted(unknown))}")
        self.order = self._sorted()

    def _sorted(self) -> list[str]:
        """Names of the jobs in the order in which they may start; of those that may start together, as they came."""
        number, order = {name: place for place, name in enumerate(self.jobs)}, list[str]()
        sorter = self._sorter()
        while sorter.is_active():
            together = sorted(sorter.get_ready(), key=number.__getitem__)
            order += together
            sorter.done(*together)
        return order

    def _sorter(self) -> TopologicalSorter[str]:
        """Raises ValueError for a circle."""
        sorter = TopologicalSorter({name: job.after for name, job in self.jobs.items()})
        try:
            sorter.prepare()
        except CycleError as error:
            raise ValueError(f"jobs wait for each other: {', '.join(sorted({*error.args[1]}))}") from error
        return sorter

    @cached_property
    def longest_chain(self) -> tuple[PlannedJob, ...]:
        """The chain of jobs that takes longest: no number of GPUs makes the workflow shorter."""
        until: dict[str, float] = {}
        before: dict[str, str | None] = {}
        for name in self.order:
            job = self.jobs[name]
            last = max(job.after, key=until.__getitem__, default=None)
            before[name] = last
            until[name] = job.seconds + (0.0 if last is None else until[last])
        chain: list[PlannedJob] = []
        step = max(until, key=until.__getitem__, default=None)
        while step is not None:
            chain.append(self.jobs[step])
            step = before[step]
        return tuple(reversed(chain))

    @property
    def longest_chain_s(self) -> float:
        """Seconds of the longest chain."""
        return sum(job.seconds for job in self.longest_chain)

    @property
    def most_gpus(self) -> int:
        """GPUs of the largest job."""
        return max((job.gpus for job in self.jobs.values()), default=0)

    def schedule(self, what: Capacity, capacity: int) -> Schedule:
        """Simulate the jobs on ``capacity`` GPUs or cores. A job that asks for more cores gets all of them.

        Raises ValueError for a job that asks for more GPUs.
        """
        if what == "gpus" and self.most_gpus > capacity:
            raise ValueError(f"a job takes {self.most_gpus} GPUs, and there are {capacity}")
        sorter = self._sorter()
        ready = [*sorter.get_ready()]
        rank = {name: (-self.jobs[name].priority, number) for number, name in enumerate(self.order)}
        running: list[tuple[float, int, str]] = []
        spans: list[Span] = []
        now, free = 0.0, capacity
        while ready or running:
            for name in sorted(ready, key=rank.__getitem__):
                needed = min(self.jobs[name].needs(what), capacity)
                if needed <= free:
                    ready.remove(name)
                    free -= needed
                    end = now + self.jobs[name].seconds
                    spans.append(Span(self.jobs[name], now, end))
                    heapq.heappush(running, (end, needed, name))
            now = running[0][0]
            while running and running[0][0] <= now:
                _end, needed, ended = heapq.heappop(running)
                free += needed
                sorter.done(ended)
            ready += sorter.get_ready()
        return Schedule(what, capacity, tuple(spans))

    def stops_scaling(self) -> Schedule:
        """The schedule on the fewest GPUs, doubled from those of one job, that more GPUs hardly shorten."""
        gpus = max(1, self.most_gpus)
        while (found := self.schedule("gpus", gpus)).makespan_s > STOPS_SCALING * self.longest_chain_s:
            gpus *= 2
        return found
