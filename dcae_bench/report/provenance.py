"""Provenance of the page: what ran where and how long, and what is missing and what it would take."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dcae_bench.report.records import Panel, Panels
from dcae_bench.report.sources import COMMANDS, Source
from dcae_bench.tables.answers import AnswersTable
from dcae_bench.tables.markdown import Footnotes, Grid
from dcae_bench.tables.runs import shown_path, unique

RUN_HEADERS = ("source", "kind", "records", "machine", "commit", "when (UTC)", "time (min)")
RECORD_HEADERS = ("kind", "record", "protocol", "machine", "commit", "time (s)", "digest", "file or key")


@dataclass(frozen=True)
class Missing:
    """Something that was not measured, with what it lacks."""

    reason: str
    """Why, and what it would take."""
    names: Sequence[str]

    @property
    def count(self) -> int:
        """Number of things that lack it."""
        return len(self.names)


def ran(sources: Sequence[Source], panels: Panels) -> Grid:
    """A row for each kind of record, machine and commit of a source."""
    groups: dict[tuple[str, str, str, str], list[Panel]] = {}
    for source in sources:
        for panel in panels.of_source(source):
            groups.setdefault((source.title, panel.kind, panel.machine, _commit(panel)), []).append(panel)
    rows = []
    for (title, kind, machine, commit), alike in groups.items():
        began, ended = min(one.made.started for one in alike), max(one.made.finished for one in alike)
        seconds = sum(one.made.seconds for one in alike)
        rows.append([title, kind, str(len(alike)), machine, commit, _span(began, ended), f"{seconds / 60:.1f}"])
    return Grid(RUN_HEADERS, rows, "llrlllr", Footnotes())


def listed(panels: Sequence[Panel]) -> Grid:
    """A row for each record."""
    rows = [
        [
            *(one.kind, one.title, one.protocol, one.machine, _commit(one), f"{one.made.seconds:.1f}"),
            *((one.digest or "-")[:12], one.path),
        ]
        for one in panels
    ]
    return Grid(RECORD_HEADERS, rows, "lllllrll", Footnotes())


def missing(source: Source) -> list[Missing]:
    """What a source lacks, grouped by the reason, which says what it would take."""
    found: dict[str, list[str]] = {}
    tables: Iterable[tuple[str, AnswersTable | None]] = (
        ("reconstruction", source.reconstruction),
        ("generation", source.generation),
        ("ablation", source.ablation),
    )
    for name, table in tables:
        if table is None:
            if not source.committed and source.name == "run":
                found.setdefault(f"not made: {COMMANDS[name]}", []).append(f"table of {name}")
            continue
        for what, reason in _lacks(name, table):
            found.setdefault(reason, []).append(what)
    if source.throughput and source.throughput.held < source.throughput.planned:
        held, planned = source.throughput.held, source.throughput.planned
        found["the plan was not finished; the same command continues it"] = [f"{planned - held} of {planned} timings"]
    return [Missing(reason, unique(names)) for reason, names in found.items()]


def _lacks(name: str, table: AnswersTable) -> Iterator[tuple[str, str]]:
    for one in table.absent:
        yield one, f"the profile asks for it and no record holds it: {COMMANDS[name]}"
    for path, why in table.holdings.left_out.items():
        yield shown_path(path), "; ".join(why)
    absent = getattr(table, "not_measured", {})
    for key, reasons in absent.items():
        yield (key if isinstance(key, str) else " on ".join(key)), "; ".join(reasons)
    for result in table.reported:
        row = result.row
        label = getattr(row, "label", None) or getattr(row, "arm", None) or getattr(row, "family", "")
        space = getattr(row, "latent_space", None) or f"f{row.compression}"
        for source, answer in result.answers.items():
            if answer.missing:
                data = f"{row.dataset or 'data not stated'} {row.resolution or ''}".strip()
                yield f"{row.table}: {label} {space}, {data}, {source}", "; ".join(answer.missing)


def _commit(panel: Panel) -> str:
    made = panel.made
    return f"{made.commit[:12]}{' with changes' if made.dirty else ''}" if made.commit else "outside git"


def _span(began: datetime, ended: datetime) -> str:
    """Day and times of a span; both days if it ends on another."""
    first, last = began.astimezone(UTC), ended.astimezone(UTC)
    return f"{first:%Y-%m-%d %H:%M} to {last:{'%H:%M' if first.date() == last.date() else '%Y-%m-%d %H:%M'}}"
