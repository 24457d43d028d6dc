"""The page ``table_rfid.md``: the reconstruction table laid out for a reader."""

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dcae_bench.tables.markdown import ARROWS, Footnotes, decimals, grid, join, millions, number, spread
from dcae_bench.tables.reconstruction import (
    DATA_SETS,
    FAMILIES,
    REPORTED_LABELS,
    SOURCES,
    Answer,
    RfidTable,
    made_by,
    shown,
    unique,
)
from dcae_bench.tables.reported import ReportedRow
from dcae_bench.tables.verdict import HIGHER_IS_BETTER, verdict_cell


def markdown(table: RfidTable) -> str:
    """The whole page. Its first line names profile, commit and hardware."""
    parts = [f"{table.first_line}\n", "# Reconstruction: DC-AE beside SD-VAE (the paper's Table 2)\n"]
    parts += ["## Measured\n", _measured(table) if table.runs else "Nothing was measured yet.\n"]
    if table.pairs:
        parts += ["## Final phase: DC-AE minus SD-VAE\n", _differences(table)]
    if table.reported:
        parts += ["## Reported by the paper (Table 2)\n", _reported(table)]
    if table.not_measured:
        parts += ["## Not measured, beside the paper's rows\n", _not_measured(table)]
    parts += ["## How to read\n", "".join(f"- {line}\n" for line in _legend(table))]
    return "\n".join(parts)


def _places(table: RfidTable) -> dict[str, int]:
    held = {key: [run.record.metrics[key] for run in table.runs if key in run.record.metrics] for key in table.columns}
    return {key: decimals(key, [metric.value for metric in metrics]) for key, metrics in held.items()}


def _measured(table: RfidTable) -> str:
    footnotes, places = Footnotes(), _places(table)
    # A note that holds for a whole column stands in its head, so that it does not crowd every cell.
    shared = {}
    for key in table.columns:
        notes = {run.record.metrics[key].notes for run in table.runs if key in run.record.metrics}
        shared[key] = notes.pop() if len(notes) == 1 else ()
    headers = ["data set", "resolution", "latent shape", "autoencoder", "params", "phase", "images"]
    headers += [
        f"{head.label}{ARROWS[head.better]}{footnotes.mark(shared[key])}" for key, head in table.columns.items()
    ]
    rows = []
    for run in table.runs:
        subject, data = run.record.subject, run.record.data
        cells = [data.name, str(data.resolution), run.latent_shape, subject.autoencoder]
        cells += [millions(subject.parameters), run.phase, f"{data.images:,}"]
        for key in table.columns:
            metric = run.record.metrics.get(key)
            cell = number(metric.value if metric else None, places[key]) + spread(metric, places[key])
            if any(run in pair.winners(key) for pair in table.pairs):
                cell = f"**{cell}**"
            own = metric.notes if metric and metric.notes != shared[key] else ()
            cells.append(cell + footnotes.mark(own))
        rows.append(cells)
    align = ["left", "right", "left", "left", "right", "right", "right", *["right"] * len(table.columns)]
    return join(grid(headers, rows, align), footnotes.text())


def _differences(table: RfidTable) -> str:
    footnotes, places = Footnotes(), _places(table)
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
    align = ["left", "right", "left", "left", "right", *["right"] * len(table.columns)]
    return join(grid(headers, rows, align), footnotes.text())


def _reported(table: RfidTable) -> str:
    footnotes = Footnotes()
    headers = ["data set", "resolution", "latent shape", "autoencoder"]
    headers += [f"{label}{ARROWS[_better(metric)]}" for metric, label in REPORTED_LABELS.items()]
    headers += [*SOURCES, "verdict"]
    rows = []
    for result in table.reported:
        row = result.row
        cells = [DATA_SETS.get(row.dataset, row.dataset), str(row.resolution), row.latent_shape]
        cells.append(f"{FAMILIES[row.family]} f{row.compression}c{row.latent_channels}")
        cells += [row.metrics[metric].text if metric in row.metrics else "-" for metric in REPORTED_LABELS]
        cells += [_reproduced(row, result.answers[source]) for source in SOURCES]
        rows.append([*cells, verdict_cell(result.answers, REPORTED_LABELS, footnotes)])
    align = ["left", "right", "left", "left", *["right"] * len(REPORTED_LABELS), *["left"] * (len(SOURCES) + 1)]
    legend = "Values in brackets are recalled from memory and were found in no source; no verdict rests on them.\n"
    return join(grid(headers, rows, align), footnotes.text(), legend)


def _not_measured(table: RfidTable) -> str:
    """What the profile measures beyond the paper's rows, where something for it is missing."""
    footnotes, lines = Footnotes(), []
    for name, keys in groupby(table.not_measured, key=lambda key: key[0]):
        sets = (f"{label}{footnotes.mark(table.not_measured[name, label])}" for _, label in keys)
        lines.append(f"- {name}: {', '.join(sets)}\n")
    return join("".join(lines), footnotes.text())


def _better(metric: str) -> str:
    return "higher" if HIGHER_IS_BETTER[metric] else "lower"


def _reproduced(row: ReportedRow, answer: Answer) -> str:
    values = []
    for metric, label in REPORTED_LABELS.items():
        if (found := answer.reproduced(metric)) is not None:
            habit = decimals(label.lower(), [found.value])
            places = row.metrics[metric].decimals + 1 if metric in row.metrics else habit
            values.append(f"{label} {number(found.value, places)}{spread(found, places)}")
    return ", ".join(values) or "-"


def _legend(table: RfidTable) -> Iterator[str]:
    yield "↑ higher is better, ↓ lower is better. Bold: the better of DC-AE and SD-VAE after the final phase."
    if table.runs:
        yield from _run_legend(table)
    for profile, runs in table.beside.items():
        sources = " and ".join(unique(run.record.subject.weights_source for run in runs))
        yield f'Under "Reported by the paper", {sources} results of profile `{profile}` stand beside: {made_by(runs)}.'
    yield (
        "Verdicts: `match` equal to the printed decimals; `within_noise` apart by no more than the value's interval; "
        "`better` and `deviates` beyond that; `not_comparable` measured in another way; `not_run` not measured."
    )


def _run_legend(table: RfidTable) -> Iterator[str]:
    records = [run.record for run in table.runs]
    protocols = unique(record.protocol for record in records)
    units = [f"{metric.label} in {metric.unit}" for metric in table.columns.values() if metric.unit]
    yield f"Protocol: {', '.join(f'`{name}`' for name in protocols)}{''.join(f'; {unit}' for unit in units)}."
    if any(record.subject.phase is not None for record in records):
        yield (
            "Phase: the last training phase the weights went through - 1 low resolution, all parameters; 2 high "
            "resolution, the layers around the latent; 3 low resolution with a GAN, the decoder's head."
        )
    if methods := unique(
        f"{metric.interval.level:.0%} by {metric.interval.method}"
        for record in records
        for metric in record.metrics.values()
        if metric.interval
    ):
        yield f"± is the half-width of a value's interval of confidence, [ ] are its ends: {'; '.join(methods)}."
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
    folder = os.path.commonpath([run.path.resolve().parent for run in table.runs])
    yield (
        f"Records lie under `{shown(Path(folder))}`; the `.json` twin names the one behind each row, and "
        "`dcae-bench show RESULT.json` prints it."
    )
