"""Page of the generation table: the Markdown of ``table_diffusion.md``."""

from collections.abc import Iterator

from dcae_bench.tables.answers import SOURCES
from dcae_bench.tables.answers_page import (
    answering_records,
    beside_lines,
    column_decimals,
    column_notes,
    doubts_of,
    folder_line,
    holdings_text,
    interval_lines,
    verdict_cell,
)
from dcae_bench.tables.generation.judge import SPREAD
from dcae_bench.tables.generation.table import DISTANCES, REPORTED_LABELS, Generation, GenerationAnswer, GenerationTable
from dcae_bench.tables.markdown import (
    ARROWS,
    Footnotes,
    Grid,
    bullets,
    harmless,
    join,
    millions,
    number,
    one_line,
    spread,
)
from dcae_bench.tables.runs import DATA_SETS, unique

UNLIKE = 0.1
"""Precision and recall below which the samples of a table are called unlike the reference."""


def markdown(table: GenerationTable) -> str:
    """The whole page. Its first line names profile, commit and hardware."""
    parts = [
        f"{one_line(table.first_line)}\n",
        "# Generation: denoisers on each latent space (the paper's Tables 3 and 1)\n",
    ]
    if holdings := holdings_text(table):
        parts.append(holdings)
    parts += ["## Measured\n", measured(table).with_notes() if table.runs else "Nothing was measured yet.\n"]
    if table.not_measured:
        parts += ["## Not measured\n", _not_measured(table)]
    parts += ["## Reported by the paper (Tables 3 and 1)\n", reported(table).with_notes()]
    parts += ["## How to read\n", bullets(legend(table))]
    return harmless("\n".join(parts))


def measured(table: GenerationTable) -> Grid:
    """A row for each denoiser at each guidance scale."""
    footnotes, places, shared = Footnotes(), column_decimals(table), column_notes(table)
    headers = ["data set", "resolution", "denoiser", "weights", "latent space", "tokens", "params", "GMACs"]
    headers += ["training images", "training FLOPs", "loss", "guidance s", "samples"]
    headers += [
        f"{head.label}{ARROWS[head.better]}{footnotes.mark(shared.get(key, ()))}" for key, head in table.columns.items()
    ]
    rows = []
    for run in table.runs:
        cells = _run_cells(run)
        cells[2] += footnotes.mark(doubts_of(run))
        for key in table.columns:
            metric = run.record.metrics.get(key)
            cell = number(metric.value if metric else None, places[key]) + spread(metric, places[key])
            cells.append(cell + footnotes.mark(metric.notes if metric and key not in shared else ()))
        rows.append(cells)
    records = [(run.shown_path,) for run in table.runs]
    return Grid(headers, rows, "lrlll" + "r" * (len(headers) - 5), footnotes, records)


def _run_cells(run: Generation) -> list[str]:
    denoiser, data = run.denoiser, run.record.data
    images, operations, loss = run.training_images, run.training_flops, run.loss
    return [
        data.name,
        str(data.resolution),
        f"{denoiser.name} ({denoiser.row})" if denoiser.row != denoiser.name else denoiser.name,
        denoiser.weights_source,
        run.latent_space,
        str(denoiser.tokens),
        millions(denoiser.parameters),
        f"{denoiser.gmacs:.4g}",
        "-" if images is None else f"{images:,}",
        "-" if operations is None else f"{operations:.3g}",
        number(loss, 4),
        f"{run.guidance:g}",
        f"{data.images:,}",
    ]


def _not_measured(table: GenerationTable) -> str:
    footnotes = Footnotes()
    lines = [f"{row}{footnotes.mark(reasons)}" for row, reasons in table.not_measured.items()]
    return join(bullets(lines), footnotes.text())


def reported(table: GenerationTable) -> Grid:
    """A row for each of the paper's, beside what was measured of it."""
    footnotes = Footnotes()
    headers = ["table", "data set", "resolution", "denoiser", "latent space", "tokens", "guidance s"]
    headers += [f"{label} {'↓' if metric in DISTANCES else '↑'}" for metric, label in REPORTED_LABELS.items()]
    headers += [*SOURCES, "verdict"]
    rows = []
    for result in table.reported:
        row = result.row
        cells = [row.table.removeprefix("Table "), DATA_SETS.get(row.dataset, row.dataset), str(row.resolution)]
        cells += [row.label + footnotes.mark([row.note] if row.note else []), row.latent_space, str(row.tokens)]
        cells.append("not stated" if row.guidance is None else f"{row.guidance:g}")
        for metric in REPORTED_LABELS:
            values = row.metrics.get(metric, ())
            notes = [value.note for value in values if value.note]
            cells.append((" / ".join(value.text for value in values) or "-") + footnotes.mark(notes))
        cells += [_measured_cell(result.answers[source], footnotes) for source in SOURCES]
        rows.append([*cells, verdict_cell(result.answers, REPORTED_LABELS, footnotes)])
    align = "rlrllrrrrr" + "l" * (len(SOURCES) + 1)
    return Grid(headers, rows, align, footnotes, answering_records(table))


def _measured_cell(answer: GenerationAnswer, footnotes: Footnotes) -> str:
    values = []
    for metric, label in REPORTED_LABELS.items():
        if (found := answer.measured.get(metric)) is not None:
            values.append(f"{label} {number(found.value, 3)}{spread(found, 3)}")
    doubts = [note for run in answer.runs.values() for note in doubts_of(run)]
    return (", ".join(values) or "-") + footnotes.mark(doubts)


def legend(table: GenerationTable) -> Iterator[str]:
    """Lines of "How to read"."""
    yield (
        "↑ higher is better, ↓ lower is better. Guidance s: classifier-free guidance on all latent channels, "
        "unconditional + s (conditional - unconditional); 1 is the conditional model alone. U-ViT's w is s - 1."
    )
    yield (
        "GMACs: matrix products of one conditional forward pass. Training FLOPs: 6 per multiply-accumulate and "
        "training image; the autoencoder is not part of either."
    )
    if table.runs:
        yield from _run_legend(table)
    yield from beside_lines(table)
    shown_runs = [*table.runs, *(run for runs in table.beside.values() for run in runs)]
    if any(run.denoiser.weights_source == "released" for run in shown_runs):
        yield (
            "Released denoisers: no record tells how long they were trained. They are the weights that their authors "
            "published of one row of the paper, and are held against that row."
        )
    yield (
        "Verdicts: `match` equal to the printed decimals of one of the values; `within_noise` apart by no more than "
        f"the value's interval, or than {SPREAD:.1%}, by which the authors' own measurements of one denoiser differ; "
        "`better` and `deviates` beyond that; `not_comparable` measured in another way; `not_run` not measured."
    )
    yield (
        "The paper also has a table of FFHQ and MJHQ at 1024 px and Mapillary Vistas at 2048 px. No source that could "
        "be read tells a value of it, so there is nothing to hold a measurement against."
    )


def _what_samples_are(table: GenerationTable) -> Iterator[str]:
    """Say so where the samples are unlike the images that they are compared with, which no distance says by itself."""
    best = {
        what: max((metric.value for run in table.runs for key, metric in run.record.metrics.items() if what in key))
        for what in ("precision", "recall")
        if any(what in key for run in table.runs for key in run.record.metrics)
    }
    if best and max(best.values()) < UNLIKE:
        told = " and ".join(f"{what} at most {value:.3f}" for what, value in best.items())
        yield (
            f"What the samples are: no images that could be taken for the reference's ({told} in every row). The "
            "distances of such samples rank colours, contrast and texture, not objects: look at the samples too."
        )


def _run_legend(table: GenerationTable) -> Iterator[str]:
    records = [run.record for run in table.runs]
    yield f"Protocol: {', '.join(f'`{name}`' for name in unique(record.protocol for record in records))}."
    references = unique(
        f"{record.data.name} {record.data.split} at {record.data.resolution} px, "
        f"{int(record.settings.get('reference_images', 0)):,} images"
        for record in records
    )
    yield f"Reference of every distance: the crops that the denoisers learned from, {'; '.join(references)}."
    told = ("sampler", "nfe", "seed_policy")
    samplers = unique(
        ", ".join(f"{key} {record.settings[key]}" for key in told if key in record.settings) for record in records
    )
    yield f"Samples were drawn with: {'; '.join(samplers)}."
    yield from interval_lines(records)
    for key, metric in table.columns.items():
        if key.startswith("gfd_"):
            yield (
                f"{metric.label}: Fréchet distance between Gaussian fits to the named network's features. It ranks "
                "rows of this table; its scale is not that of Inception features, so it is not called FID."
            )
    yield from _what_samples_are(table)
    if any(run.loss is not None for run in table.runs):
        yield (
            "The loss is each process's own, and its scale differs between latent spaces: compare losses of one latent "
            "space only."
        )
    yield folder_line(table.runs)
