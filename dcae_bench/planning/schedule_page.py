"""Page of schedules for the terminal, and the same as plain values for JSON."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dcae_bench.planning.schedule import STOPS_SCALING, JobGraph, Schedule

HOUR_S = 3600.0
ASSUMPTIONS = (
    "jobs start as Snakemake starts them: whenever something ends, ready jobs that fit, trainings first; no failures, "
    "no queue, no job slows another down",
    "GPUs are one pool, of which a job takes as many as the profile has processes; processors are never short",
    "finished files stay; a running training also needs its checkpoint and the next one",
    "images are read as often as a training sees them, at their size in the publisher's archives, caches left out; a "
    "data set whose size or number of images is not stated counts as 0",
)


def render_schedules(graph: JobGraph, schedules: Sequence[Schedule]) -> Group:
    """Lay out schedules for rich: a row each, the longest chain, where more GPUs stop to help, the assumptions."""
    what = schedules[0].what
    table = Table(title=f"Simulated schedule of {len(graph.jobs)} jobs: nothing has been started")
    table.add_column("GPUs" if what == "gpus" else "cores", justify="right")
    columns = ("makespan", "GPU-hours" if what == "gpus" else "core-hours", "in use", "peak storage GiB", "read GiB")
    for name in (*columns, "written GiB", "peak read GiB/s"):
        table.add_column(name, justify="right")
    for one in schedules:
        read, written = one.traffic_gib
        table.add_row(
            f"{one.capacity:,}",
            duration(one.makespan_s),
            f"{one.occupied_s / HOUR_S:,.1f}",
            f"{one.use:.0%}",
            f"{one.peak_storage_gib:,.1f}",
            f"{read:,.0f}",
            f"{written:,.0f}",
            f"{one.peak_read_gib_per_s:.3g}",
        )
    notes = [chain_line(graph)]
    if what == "gpus":
        notes.append(scaling_line(graph))
    lines = [*(Text(line) for line in notes), Text("Assumptions of the schedule", style="bold")]
    return Group(table, *lines, *(Text(f"- {line}") for line in ASSUMPTIONS))


def chain_line(graph: JobGraph) -> str:
    """The longest chain of jobs in a line."""
    chain = " → ".join(f"{job.name} ({duration(job.seconds)})" for job in graph.longest_chain)
    return f"Longest chain, {duration(graph.longest_chain_s)}: {chain}"


def scaling_line(graph: JobGraph) -> str:
    """Where more GPUs stop to help, and why, in a line."""
    last = graph.stops_scaling()
    slowest = max(graph.longest_chain, key=lambda job: job.seconds)
    return (
        f"It stops scaling at {last.capacity:,} GPUs: {duration(last.makespan_s)} there, within "
        f"{STOPS_SCALING - 1:.0%} of the longest chain, whose jobs wait for each other; {last.use:.0%} of the GPUs are "
        f"in use. Beyond, only more GPUs for one job ('processes', 'nodes') help, first for '{slowest.name}'"
    )


def schedules_as_json(graph: JobGraph, schedules: Sequence[Schedule]) -> dict[str, object]:
    """Schedules, jobs and the longest chain as plain values for JSON; times in seconds."""
    return {
        "schedules": [
            {
                one.what: one.capacity,
                "makespan_s": one.makespan_s,
                "occupied_s": one.occupied_s,
                "use": one.use,
                "peak_storage_gib": one.peak_storage_gib,
                "read_gib": one.traffic_gib[0],
                "written_gib": one.traffic_gib[1],
                "peak_read_gib_per_s": one.peak_read_gib_per_s,
                "jobs": [{"name": s.job.name, "start_s": s.start_s, "end_s": s.end_s} for s in one.spans],
            }
            for one in schedules
        ],
        "longest_chain": [{"name": job.name, "seconds": job.seconds} for job in graph.longest_chain],
        "longest_chain_s": graph.longest_chain_s,
        "stops_scaling_at_gpus": graph.stops_scaling().capacity if graph.most_gpus else None,
        "assumptions": list(ASSUMPTIONS),
    }


def duration(seconds: float) -> str:
    """Seconds as people say them: 12 s, 14 min, 5.2 h, 3.1 days."""
    for unit, size in (("days", 24 * HOUR_S), ("h", HOUR_S), ("min", 60.0)):
        if seconds >= (2 if unit == "days" else 1) * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
