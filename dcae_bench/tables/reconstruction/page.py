"""Page of the reconstruction table: the Markdown of ``table_rfid.md``."""

from collections.abc import Iterator
from itertools import groupby

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
from dcae_bench.tables.markdown import (
    ARROWS,
    Footnotes,
    Grid,
    bullets,
    decimals,
    harmless,
    join,
    millions,
    number,
    one_line,
    spread,
)
from dcae_bench.tables.reconstruction.judge import HIGHER_IS_BETTER
from dcae_bench.tables.reconstruction.table import REPORTED_LABELS, ReconstructionAnswer, ReconstructionTable
from dcae_bench.tables.reported.reconstruction import ReconstructionRow
from dcae_bench.tables.runs import CONTROL, DATA_SETS, FAMILIES, unique

RECALLED = "Values in brackets are recalled from memory and were found in no source; no verdict rests on them.\n"


def markdown(table: ReconstructionTable) -> str:
    """The whole page. Its first line names profile, commit and hardware."""
    parts = [f"{one_line(table.first_line)}\n", "# Reconstruction: DC-AE beside SD-VAE (the paper's Table 2)\n"]
    if holdings := holdings_text(table):
        parts.append(holdings)
    parts += ["## Measured\n", measured(table).with_notes() if table.runs else "Nothing was measured yet.\n"]
    if table.pairs:
        parts += ["## Final phase: DC-AE minus SD-VAE\n", differences(table).with_notes()]
    if table.reported:
        parts += ["## Reported by the paper (Table 2)\n", join(reported(table).with_notes(), RECALLED)]
    if table.not_measured:
        parts += ["## Not measured, beside the paper's rows\n", _not_measured(table)]
    parts += ["## How to read\n", bullets(legend(table))]
    return harmless("\n".join(parts))


def measured(table: ReconstructionTable) -> Grid:
    """A row for each measured reconstruction."""
    footnotes, places, shared = Footnotes(), column_decimals(table), column_notes(table)
    costs = ["params", "MACs", "seen"]
    headers = ["data set", "resolution", "latent shape", "autoencoder", *costs, "phase", "images"]
    headers += [
        f"{head.label}{ARROWS[head.better]}{footnotes.mark(shared.get(key, ()))}" for key, head in table.columns.items()
    ]
    rows = []
    for run in table.runs:
        subject, data = run.record.subject, run.record.data
        cells = [data.name, str(data.resolution), run.latent_shape]
        control = " (control)" if subject.family == CONTROL else ""
        cells.append(f"{subject.autoencoder}{control}{footnotes.mark((*doubts_of(run), *run.marks))}")
        cells += [millions(subject.parameters), _macs(subject.gmacs)]
        cells += ["-" if subject.trained_images is None else f"{subject.trained_images:,}", run.phase]
        cells.append(f"{data.images:,}")
        for key in table.columns:
            metric = run.record.metrics.get(key)
            cell = number(metric.value if metric else None, places[key]) + spread(metric, places[key])
            if any(run in pair.winners(key) for pair in table.pairs):
                cell = f"**{cell}**"
            cells.append(cell + footnotes.mark(metric.notes if metric and key not in shared else ()))
        rows.append(cells)
    records = [(run.shown_path,) for run in table.runs]
    return Grid(headers, rows, "lrllrrrrr" + "r" * len(table.columns), footnotes, records)


def _macs(gmacs: float | None) -> str:
    if gmacs is None:
        return "-"
    return f"{gmacs:.3g} G" if gmacs >= 1 else f"{1e3 * gmacs:.3g} M"


def differences(table: ReconstructionTable) -> Grid:
    """A row for each DC-AE and SD-VAE of one setting: the difference of their metrics."""
    footnotes, places = Footnotes(), column_decimals(table)
    headers = ["data set", "resolution", "latent shape", "autoencoders", "phase"]
    headers += [f"Δ {head.label}{ARROWS[head.better]}" for head in table.columns.values()]
    rows = []
    for pair in table.pairs:
        run = pair.dc_ae
        names = f"{run.record.subject.autoencoder} {chr(0x2212)} {pair.sd_vae.record.subject.autoencoder}"
        names += footnotes.mark([pair.obstacle] if pair.obstacle else [])
        cells = [run.record.data.name, str(run.record.data.resolution), run.latent_shape, names, run.phase]
        for key in table.columns:
            cell = number(pair.difference(key), places[key], signed=True)
            cells.append(f"**{cell}**" if run in pair.winners(key) else cell)
        rows.append(cells)
    records = [(pair.dc_ae.shown_path, pair.sd_vae.shown_path) for pair in table.pairs]
    return Grid(headers, rows, "lrllr" + "r" * len(table.columns), footnotes, records)


def reported(table: ReconstructionTable) -> Grid:
    """A row for each of the paper's, beside what was measured of it."""
    footnotes = Footnotes()
    headers = ["data set", "resolution", "latent shape", "autoencoder"]
    headers += [
        f"{label}{ARROWS['higher' if HIGHER_IS_BETTER[metric] else 'lower']}"
        for metric, label in REPORTED_LABELS.items()
    ]
    headers += [*SOURCES, "verdict"]
    rows = []
    for result in table.reported:
        row = result.row
        cells = [DATA_SETS.get(row.dataset, row.dataset), str(row.resolution), row.latent_shape]
        beside = [] if row.in_paper or not row.metrics else [f"{row.table}, not the paper. {row.autoencoder_note}"]
        name = f"{FAMILIES[row.family]} f{row.compression}c{row.latent_channels}"
        cells.append(name + footnotes.mark(beside))
        cells += [row.metrics[metric].text if metric in row.metrics else "-" for metric in REPORTED_LABELS]
        cells += [_measured_cell(row, result.answers[source], footnotes) for source in SOURCES]
        rows.append([*cells, verdict_cell(result.answers, REPORTED_LABELS, footnotes)])
    align = "lrll" + "r" * len(REPORTED_LABELS) + "l" * (len(SOURCES) + 1)
    return Grid(headers, rows, align, footnotes, answering_records(table))


def _not_measured(table: ReconstructionTable) -> str:
    """Measurements of the profile that answer no row of the paper and that could not be made, with what they lack."""
    footnotes, lines = Footnotes(), []
    for name, keys in groupby(table.not_measured, key=lambda key: key[0]):
        sets = (f"{label}{footnotes.mark(table.not_measured[name, label])}" for _, label in keys)
        lines.append(f"{name}: {', '.join(sets)}")
    return join(bullets(lines), footnotes.text())


def _measured_cell(row: ReconstructionRow, answer: ReconstructionAnswer, footnotes: Footnotes) -> str:
    values = []
    for metric, label in REPORTED_LABELS.items():
        if (found := answer.measured.get(metric)) is not None:
            habit = decimals(label.lower(), [found.value])
            places = row.metrics[metric].decimals + 1 if metric in row.metrics else habit
            values.append(f"{label} {number(found.value, places)}{spread(found, places)}")
    doubts = [note for run in answer.runs.values() for note in doubts_of(run)]
    return (", ".join(values) or "-") + footnotes.mark(doubts)


def legend(table: ReconstructionTable) -> Iterator[str]:
    """Lines of "How to read"."""
    yield "↑ higher is better, ↓ lower is better. Bold: the better of DC-AE and SD-VAE after the final phase."
    if table.runs:
        yield from _run_legend(table)
    yield from beside_lines(table)
    yield (
        "Verdicts: `match` equal to the printed decimals; `within_noise` apart by no more than the value's interval; "
        "`better` and `deviates` beyond that; `not_comparable` measured in another way; `not_run` not measured."
    )


def _run_legend(table: ReconstructionTable) -> Iterator[str]:
    records = [run.record for run in table.runs]
    protocols = unique(record.protocol for record in records)
    units = [f"{metric.label} in {metric.unit}" for metric in table.columns.values() if metric.unit]
    yield f"Protocol: {', '.join(f'`{name}`' for name in protocols)}{''.join(f'; {unit}' for unit in units)}."
    if any(record.subject.phase is not None for record in records):
        yield (
            "Phase: the last training phase the weights went through - 1 low resolution, all parameters; 2 high "
            "resolution, the layers around the latent; 3 low resolution with a GAN, the decoder's head."
        )
    if any(record.subject.gmacs is not None for record in records):
        yield (
            "params: parameters. MACs: multiply-accumulates to encode and decode one image of the row. seen: images "
            "that the weights saw in training. images: images measured."
        )
    if any(record.subject.family == CONTROL for record in records):
        yield (
            "control: a linear autoencoder, the principal components of square patches, with as many numbers per patch "
            "as the latent beside it has per cell. It is fitted to training crops in seconds, without gradients, and "
            "minimises the squared error. An autoencoder below it in PSNR has not yet learnt what is linear; one "
            "above it uses more than linear algebra."
        )
    yield from interval_lines(records)
    for key, metric in table.columns.items():
        if key.startswith("rfd_"):
            yield (
                f"{metric.label}: Fréchet distance between Gaussian fits to the named network's features of the "
                "originals and of their reconstructions. It ranks rows of this table; its scale is not that of "
                "Inception features."
            )
        elif key.startswith("rfid"):
            yield f"{metric.label}: the same crops of the same images are the reference, not the training set."
    sources = " and ".join(unique(record.subject.weights_source for record in records))
    counts = [record.subject.parameters for record in records]
    sizes = " to ".join(unique(millions(count) for count in (min(counts), max(counts))))
    names = ", ".join(unique(record.data.name for record in records))
    yield (
        f"What this run is: {sources} autoencoders of {sizes} parameters, measured on {names}. What it is not: a "
        "reproduction of the paper's numbers, except in rows of the paper whose verdict says so."
    )
    yield folder_line(table.runs)
