"""Plan: an estimate of what every rule of some targets costs, with the assumptions behind the numbers."""

from dataclasses import asdict, dataclass

GIB = 2**30


@dataclass(frozen=True)
class PlanRow:
    """Estimate for all jobs of one rule on one subject. Hours are the sum over these jobs."""

    rule: str
    subject: str
    jobs: int
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    memory_gib: float = 0.0
    """Peak memory of the device in one job."""
    disk_gib: float = 0.0
    """Disk space of finished files."""
    unfinished_gib: float = 0.0
    """Further disk space that one job needs until it is done."""
    download_gib: float | None = 0.0
    """None: not known."""
    plain_gib: float | None = None
    """Memory of a training with a copy of the weights in each process; None: no training on steps."""
    sharded_gib: float | None = None
    """Memory of a training with ``sharding: full``; None: no training on steps, or one process."""
    source: str = "stated"
    """Where the rate behind the hours comes from: ``stated``, or ``measured on`` a device."""


@dataclass(frozen=True)
class Plan:
    """Estimate of some targets of a profile: its rows and the assumptions."""

    profile: str
    targets: tuple[str, ...]
    rows: tuple[PlanRow, ...]
    assumptions: tuple[str, ...]
    fits: tuple[str, ...] = ()
    """Lines that say which trainings fit the memory of a GPU, with and without sharding."""

    def total(self) -> PlanRow:
        """Sum up jobs, hours, disk and known downloads; take the maximum of memory and of unfinished jobs' disk."""
        rows = self.rows
        return PlanRow(
            rule="total",
            subject="",
            jobs=sum(row.jobs for row in rows),
            gpu_hours=sum(row.gpu_hours for row in rows),
            cpu_hours=sum(row.cpu_hours for row in rows),
            memory_gib=max((row.memory_gib for row in rows), default=0.0),
            disk_gib=sum(row.disk_gib for row in rows),
            unfinished_gib=max((row.unfinished_gib for row in rows), default=0.0),
            download_gib=sum(row.download_gib or 0.0 for row in rows),
            source="",
        )

    def as_json(self) -> dict[str, object]:
        """The plan, its total and the subjects whose download size is not known, as plain values for JSON."""
        unknown = [row.subject for row in self.rows if row.download_gib is None]
        return {**asdict(self), "total": asdict(self.total()), "downloads_not_known": unknown, "estimate": True}
