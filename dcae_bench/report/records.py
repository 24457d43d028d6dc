"""Panels of records: what the page shows when a reader opens the record behind a cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.records.provenance import Provenance
from dcae_bench.records.record import Record
from dcae_bench.report.sources import Source
from dcae_bench.tables.answers import AnswersTable
from dcae_bench.tables.runs import Run
from dcae_bench.tables.show import made_facts, measured_on, metric_cells, provenance_facts, subject_facts

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """Everything that the page says of one record."""

    id: str
    """Anchor of the record in the page."""
    source: str
    """Title of the record's source."""
    kind: str
    title: str
    path: str
    groups: Sequence[tuple[str, Facts]]
    metrics: Sequence[tuple[str, str, str, str]]
    """Label, value, unit and notes of each metric."""
    made: Provenance
    machine: str
    protocol: str
    digest: str | None


@dataclass
class Panels:
    """The records of all sources, each once, and how tables find them."""

    panels: list[Panel] = field(default_factory=list)
    _ids: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Sequence[Source]) -> "Panels":
        """The records of sources, in the order of their tables."""
        made = cls()
        for source in sources:
            for path, record in _records(source):
                made._add(source, path, record)
            rows = (*source.throughput.rows, *source.throughput.left_out) if source.throughput else ()
            for row in rows:
                made._add_timing(source, row.record)
        return made

    def add(self, source: Source, path: str, record: Record | ThroughputRecord) -> str:
        """Add one record of a source, if it is new, and return its id. A timing's path is its key."""
        if isinstance(record, ThroughputRecord):
            self._add_timing(source, record)
            return self._ids[source.name, record.key]
        self._add(source, path, record)
        return self._ids[source.name, path]

    def ids(self, source: Source, paths: Sequence[Sequence[str]]) -> list[list[str]]:
        """Ids of the records behind the rows of a table of a source, by the paths that tables print."""
        return [[self._ids[source.name, path] for path in row if (source.name, path) in self._ids] for row in paths]

    def id(self, source: Source, path: str) -> str | None:
        """Id of one record; None if the page does not hold it."""
        return self._ids.get((source.name, path))

    def of_source(self, source: Source) -> list[Panel]:
        """The panels of a source."""
        found = {number for (name, _), number in self._ids.items() if name == source.name}
        return [panel for panel in self.panels if panel.id in found]

    def _next(self, source: Source, path: str) -> str | None:
        """A new id; None for a record that is here already, because two tables of a source share it."""
        if (source.name, path) in self._ids:
            return None
        self._ids[source.name, path] = number = f"r{len(self.panels) + 1}"
        return number

    def _add(self, source: Source, path: str, record: Record) -> None:
        if (number := self._next(source, path)) is None:
            return
        device = record.provenance.device
        self.panels.append(
            Panel(
                number,
                source.title,
                record.kind.replace("_", " "),
                _title(record),
                path,
                [
                    ("Subject", subject_facts(record)),
                    ("Measured on", measured_on(record)),
                    ("Provenance", made_facts(record)),
                ],
                [metric_cells(metric) for metric in record.metrics.values()],
                record.provenance,
                f"{device.machine}, {device.precision}",
                record.protocol,
                record.digest,
            )
        )

    def _add_timing(self, source: Source, record: ThroughputRecord) -> None:
        if (number := self._next(source, record.key)) is None:
            return
        model, where, gpu = record.model, record.environment, record.environment.gpu
        title = " ".join(filter(None, (model.name, model.latent_space, f"at {model.resolution} px:", record.work)))
        self.panels.append(
            Panel(
                number,
                source.title,
                "throughput",
                title,
                record.key,
                [("Timed", list(_timed(record))), ("Provenance", [*_where(record), *_made(record)])],
                list(_estimates(record)),
                record.provenance,
                gpu.name or gpu.uuid if gpu else f"{where.processor}, {where.threads} threads",
                record.protocol,
                record.digest,
            )
        )


def _records(source: Source) -> Iterator[tuple[str, Record]]:
    tables: tuple[AnswersTable | None, ...] = (source.reconstruction, source.generation, source.ablation)
    for table in tables:
        if table is None:
            continue
        runs: list[Run] = [*table.runs, *table.beside_runs]
        for run in runs:
            yield run.shown_path, run.record
            if (training := getattr(run, "training", None)) is not None:
                yield training_path(run), training
        trainings: Mapping[str, Record] = getattr(table, "trainings", {})
        yield from trainings.items()


def training_path(run: Run) -> str:
    """Name of the record of the training behind a generation, which tables give no path."""
    return f"{run.shown_path}, its training"


def _title(record: Record) -> str:
    subject, data = record.subject, record.data
    what = record.denoiser.row if record.denoiser else subject.autoencoder
    phase = f" after phase {subject.phase}" if subject.phase is not None and record.denoiser is None else ""
    scale = f", guidance {record.settings['guidance']}" if "guidance" in record.settings else ""
    return f"{what}{phase} on {data.name}, {data.resolution} px{scale}"


def _timed(record: ThroughputRecord) -> Iterator[tuple[str, str]]:
    model = record.model
    yield "network", " on ".join(filter(None, (model.name, model.latent_space)))
    yield "work", f"{record.work}, {record.mode}, {record.precision}"
    yield "protocol", record.protocol
    yield "batch", f"{record.batch}" + (f", 1/{record.share} of the protocol's" if record.share else "")
    yield "parameters", f"{model.parameters:,}"
    yield "GMAC", f"{model.gmacs:.6g}"
    yield from ((name, str(value)) for name, value in record.settings.items())
    if record.agreement:
        yield "agreement", f"{record.agreement.what}: {record.agreement.error:.3g} of {record.agreement.limit:.3g}"
    if record.reason:
        yield "not measured", record.reason


def _where(record: ThroughputRecord) -> Iterator[tuple[str, str]]:
    where, gpu = record.environment, record.environment.gpu
    yield "processor", f"{where.processor}, {where.cpus} CPUs, {where.threads} threads"
    if gpu:
        limit = f", power limit {gpu.power_limit_w:.0f} W" if gpu.power_limit_w else ""
        yield "GPU", f"{gpu.name or gpu.uuid}{limit}, driver {gpu.driver or 'not told'}"
    if record.derived:
        gate = record.derived.gate
        yield "state", "; ".join([gate.state, *(reason.text for reason in gate.reasons), *gate.notes])


def _made(record: ThroughputRecord) -> Iterator[tuple[str, str]]:
    """Provenance of a timing, whose restarts share all but times and digests."""
    yield "record key", record.key
    facts = provenance_facts(record.provenance, record.digest)
    yield from ((name, value) for name, value in facts if name not in ("device", "digest") or record.digest)


def _estimates(record: ThroughputRecord) -> Iterator[tuple[str, str, str, str]]:
    if (found := record.derived) is None:
        return
    for label, unit, estimate in (
        ("img/s", "images per second", found.images_per_s),
        ("ms", "ms per iteration", found.iteration_ms),
        ("energy", "J per image", found.energy_per_image_j),
        ("ceiling", "TFLOP/s", found.ceiling_tflops),
    ):
        if estimate is not None:
            yield label, f"{estimate.value:.6g}", unit, _interval(estimate)
    if found.peak_gib is not None:
        yield "GiB", f"{found.peak_gib:.4g}", "peak of the GPU memory", ""
    if found.mfu is not None:
        yield "MFU", f"{found.mfu:.4g}", "", "operations over those of a large matrix product"


def _interval(estimate: Estimate) -> str:
    ends = f"{estimate.low:.6g} to {estimate.high:.6g}"
    return f"{estimate.level:.0%} interval {ends} ({estimate.method})"
