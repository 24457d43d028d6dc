"""Sections of the page: the tables and charts of each kind of measurement, by source."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dcae_bench.report import charts
from dcae_bench.report.cells import ShownTable, show
from dcae_bench.report.charts import Chart
from dcae_bench.report.curves import LOSSES, denoiser_curves, phase_curves
from dcae_bench.report.records import Panels
from dcae_bench.report.sources import COMMANDS, Source
from dcae_bench.tables.ablation import page as ablation
from dcae_bench.tables.answers import AnswersTable
from dcae_bench.tables.figures.losses import PHASES
from dcae_bench.tables.generation import page as generation
from dcae_bench.tables.markdown import Footnotes, Grid
from dcae_bench.tables.reconstruction import page as reconstruction
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.runs import unique
from dcae_bench.tables.throughput import page as throughput
from dcae_bench.tables.throughput.judge import degraded_because


@dataclass(frozen=True)
class Block:
    """What one source gives for a section."""

    name: str
    title: str
    about: str
    """What was measured where, in one line."""
    held: str
    """How much of what was asked for is there; empty if nobody asked."""
    verdicts: Sequence[tuple[Verdict, int]]
    """How often each verdict was given on the paper's rows."""
    tables: Sequence[ShownTable]
    charts: Sequence[Chart] = ()
    legend: Sequence[str] = ()
    committed: bool = False


@dataclass(frozen=True)
class Section:
    """One kind of measurement."""

    name: str
    title: str
    question: str
    """What its tables answer."""
    command: str
    """Command that makes its table."""
    blocks: Sequence[Block] = field(default=())

    @property
    def run(self) -> list[Block]:
        """Blocks of this run."""
        return [block for block in self.blocks if not block.committed]


def sections(sources: Sequence[Source], panels: Panels) -> list[Section]:
    """All sections, in the order of the page; a section without a block says how to make its table."""

    def blocks(made: Iterable[Block | None]) -> list[Block]:
        return [block for block in made if block is not None]

    return [
        Section(
            "reconstruction",
            "Reconstruction",
            "How well does an autoencoder give back an image? (The paper's Table 2)",
            COMMANDS["reconstruction"],
            blocks(_reconstruction(source, panels) for source in sources),
        ),
        Section(
            "generation",
            "Generation",
            "How good are images drawn in each latent space? (The paper's Tables 3 and 1)",
            COMMANDS["generation"],
            blocks(_generation(source, panels) for source in sources),
        ),
        Section(
            "throughput",
            "Throughput and energy",
            "How fast are denoisers on few tokens, and at what energy? (The paper's Tables 3 and 4)",
            COMMANDS["throughput"],
            blocks(_throughput(source, panels) for source in sources),
        ),
        Section(
            "ablation",
            "Ablations",
            "What does each of the paper's ideas add? (The paper's Figure 3)",
            COMMANDS["ablation"],
            blocks(_ablation(source, panels) for source in sources),
        ),
    ]


def _shown(
    source: Source, panels: Panels, name: str, title: str, grid: Grid, *, before: str = "", after: str = ""
) -> ShownTable:
    """A table of a source, with the ids of the records behind each row."""
    return show(name, title, grid, panels.ids(source, grid.records), before=before, after=after)


def _reconstruction(source: Source, panels: Panels) -> Block | None:
    if (table := source.reconstruction) is None:
        return None
    name, tables = f"{source.name}-rec", []
    if table.runs:
        tables.append(_shown(source, panels, f"{name}-measured", "Measured", reconstruction.measured(table)))
    if table.pairs:
        title = "Final phase: DC-AE minus SD-VAE"
        tables.append(_shown(source, panels, f"{name}-differences", title, reconstruction.differences(table)))
    if table.reported:
        grid, title = reconstruction.reported(table), "Reported by the paper (Table 2)"
        note = reconstruction.RECALLED.strip()
        tables.append(_shown(source, panels, f"{name}-reported", title, grid, after=note))
    drawn = [*charts.quality(name, table), *_phase_losses(source, name)]
    return _answers_block(source, name, table, tables, drawn, reconstruction.legend(table))


def _phase_losses(source: Source, name: str) -> Iterator[Chart]:
    if source.committed:
        return
    for (phase, losses), curves in phase_curves(source).items():
        label = " + ".join(LOSSES[key] for key in losses)
        title = f"Loss in phase {phase}: {PHASES.get(phase, '')}".rstrip(": ")
        caption = f"{label}, smoothed. A click on a name of the legend singles its curve out."
        yield from charts.losses(
            f"{name}-loss-{phase}-{'-'.join(losses)}", title, caption, "images seen", label, curves
        )


def _generation(source: Source, panels: Panels) -> Block | None:
    if (table := source.generation) is None:
        return None
    name, tables = f"{source.name}-gen", []
    if table.runs:
        tables.append(_shown(source, panels, f"{name}-measured", "Measured", generation.measured(table)))
    title = "Reported by the paper (Tables 3 and 1)"
    tables.append(_shown(source, panels, f"{name}-reported", title, generation.reported(table)))
    drawn: list[Chart] = []
    if not source.committed:
        for process, curves in denoiser_curves(source).items():
            title, caption = f"Loss of denoisers, process {process}", "Smoothed. Compare within one latent space only."
            drawn += charts.losses(f"{name}-loss-{process}", title, caption, "training FLOPs", "loss", curves)
    return _answers_block(source, name, table, tables, drawn, generation.legend(table))


def _ablation(source: Source, panels: Panels) -> Block | None:
    if (table := source.ablation) is None:
        return None
    name, tables = f"{source.name}-abl", []
    parts = [("effects", "Effects: with minus without", ablation.effects)] if table.effects else []
    parts += [("measured", "Measured", ablation.measured)] if table.arms else []
    parts += [("reported", "Reported by the paper (Figure 3)", ablation.reported)] if table.reported else []
    for part, title, grid_of in parts:
        tables.append(_shown(source, panels, f"{name}-{part}", title, grid_of(table)))
    return _answers_block(source, name, table, tables, list(charts.effects(name, table)), ablation.legend(table))


def _answers_block(
    source: Source,
    name: str,
    table: AnswersTable,
    tables: Sequence[ShownTable],
    drawn: Sequence[Chart],
    legend: Iterable[str],
) -> Block:
    wanted = len(table.holdings.expected)
    held = f"{wanted - len(table.absent)} of {wanted} measurements that the profile asks for" if wanted else ""
    given = [
        judgement.verdict
        for result in table.reported
        for judgement in _of_best(answer.judgements.values() for answer in result.answers.values())
    ]
    return Block(
        *(name, source.title, table.first_line, held, _counts(given), tables, drawn, list(legend), source.committed)
    )


def _of_best(answers: Iterable[Iterable]) -> list:
    """The judgements on a row of the paper: of the first weights source that was measured, else one that it was not."""
    found = [list(one) for one in answers]
    for judgements in found:
        if any(one.verdict is not Verdict.NOT_RUN for one in judgements):
            return judgements
    return found[0][:1] if found else []


def _counts(given: Iterable[Verdict]) -> list[tuple[Verdict, int]]:
    counts = Counter(given)
    return [(verdict, counts[verdict]) for verdict in Verdict if counts[verdict]]


def _throughput(source: Source, panels: Panels) -> Block | None:
    if (table := source.throughput) is None:
        return None
    name, notes, tables = f"{source.name}-speed", Footnotes(), []
    every = [*table.rows, *table.left_out]
    for number, protocol in enumerate(unique(row.record.protocol for row in table.rows)):
        grid, what = throughput.measured(table, protocol, notes), throughput.protocol_text(protocol)
        tables.append(_shown(source, panels, f"{name}-{number}", protocol, grid, before=what))
    if any(row.record.model.latent_space for row in table.rows):
        grid, title = throughput.paper_columns(table, notes), "In the paper's columns"
        tables.append(_shown(source, panels, f"{name}-paper", title, grid, before=throughput.PAPER_TEXT))
    legend = [throughput.LEGEND]
    if every and table.all_of_other_code:
        legend.insert(0, throughput.ALL_OF_OTHER_CODE)
    legend += [
        f"Left out, because the measurement is degraded: {row.record.protocol}, {row.record.model.name} "
        f"{row.record.model.latent_space or ''}, {row.record.work}: {degraded_because(row.record)}"
        for row in table.left_out
    ]
    about = "; ".join(unique(throughput.hardware(row.record) for row in every))
    held = f"{table.held} of {table.planned} timings of the plan" if table.planned else f"{table.held} timings"
    verdicts = _counts(row.judgement.verdict for row in table.rows if row.baseline is not row.record)
    drawn = list(charts.speed(name, table))
    return Block(name, source.title, about, held, verdicts, tables, drawn, legend, source.committed)
