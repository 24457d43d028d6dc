"""A plan: what every rule of a target costs, row by row, and what that rests on."""

from dataclasses import asdict, dataclass

GIB = 2**30


@dataclass(frozen=True)
class Row:
    """Estimate of the jobs of one rule and subject. Hours are of all its jobs together."""

    rule: str
    subject: str
    jobs: int
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    memory_gib: float = 0.0
    """Of the device, at the peak of one job."""
    disk_gib: float = 0.0
    """Of what stays."""
    unfinished_gib: float = 0.0
    """On disk besides, until one job is done."""
    download_gib: float | None = 0.0
    """None: not known."""
    source: str = "stated"


@dataclass(frozen=True)
class Plan:
    """All rows of a profile and its targets, and what was assumed."""

    profile: str
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    assumptions: tuple[str, ...]

    def total(self) -> Row:
        """Sums of hours, disk and known downloads; memory and the disk of unfinished jobs are the largest."""
        rows = self.rows
        return Row(
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

    def as_json(self) -> dict:
        """Everything, as plain values."""
        unknown = [row.subject for row in self.rows if row.download_gib is None]
        return {**asdict(self), "total": asdict(self.total()), "downloads_not_known": unknown, "estimate": True}
