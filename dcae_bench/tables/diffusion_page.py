"""The page ``table_diffusion.md``: the generation table laid out for a reader."""

import os
from collections.abc import Iterator
from pathlib import Path

from dcae_bench.tables.diffusion import REPORTED_LABELS, SPREAD, Answer, DiffusionTable, Generation
from dcae_bench.tables.markdown import ARROWS, Footnotes, decimals, grid, join, millions, number, spread
from dcae_bench.tables.reconstruction import DATA_SETS, SOURCES, made_by, shown, unique
from dcae_bench.tables.verdict import verdict_cell


def markdown(table: DiffusionTable) -> str:
    """The whole page. Its first line names profile, commit and hardware."""
    parts = [f"{table.first_line}\n", "# Generation: denoisers on each latent space (the paper's Tables 3 and 1)\n"]
    parts += ["## Measured\n", _measured(table) if table.runs else "Nothing was measured yet.\n"]
    if table.not_measured:
        parts += ["## Not measured\n", _not_measured(table)]
    parts += ["## Reported by the paper (Tables 3 and 1)\n", _reported(table)]
    parts += ["## How to read\n", "".join(f"- {line}\n" for line in _legend(table))]
    return "\n".join(parts)


def _measured(table: DiffusionTable) -> str:
    footnotes = Footnotes()
    held = {key: [run.record.metrics[key] for run in table.runs if key in run.record.metrics] for key in table.columns}
    places = {key: decimals(key, [metric.value for metric in metrics]) for key, metrics in held.items()}
    # A note that holds for a whole column stands in its head, so that it does not crowd every cell.
    shared = {key: notes.pop() for key, metrics in held.items() if len(notes := {m.notes for m in metrics}) == 1}
    headers = ["data set", "resolution", "denoiser", "weights", "latent space", "tokens", "params", "GMACs"]
    headers += ["training images", "training FLOPs", "loss", "guidance s", "samples"]
    headers += [
        f"{head.label}{ARROWS[head.better]}{footnotes.mark(shared.get(key, ()))}" for key, head in table.columns.items()
    ]
    rows = []
    for run in table.runs:
        cells = _facts(run)
        for key in table.columns:
            metric = run.record.metrics.get(key)
            cell = number(metric.value if metric else None, places[key]) + spread(metric, places[key])
            cells.append(cell + footnotes.mark(metric.notes if metric and key not in shared else ()))
        rows.append(cells)
    align = ["left", "right", "left", "left", "left", *["right"] * (len(headers) - 5)]
    return join(grid(headers, rows, align), footnotes.text())


def _facts(run: Generation) -> list[str]:
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


def _not_measured(table: DiffusionTable) -> str:
    footnotes = Footnotes()
    lines = [f"- {row}{footnotes.mark(reasons)}\n" for row, reasons in table.not_measured.items()]
    return join("".join(lines), footnotes.text())


def _reported(table: DiffusionTable) -> str:
    footnotes = Footnotes()
    headers = ["table", "data set", "resolution", "denoiser", "latent space", "tokens", "guidance s"]
    headers += [f"{label} ↓" for label in REPORTED_LABELS.values()] + [*SOURCES, "verdict"]
    rows = []
    for result in table.reported:
        row = result.row
        cells = [row.table.removeprefix("Table "), DATA_SETS.get(row.dataset, row.dataset), str(row.resolution)]
        cells += [row.label + footnotes.mark([row.note] if row.note else []), row.latent_space, str(row.tokens)]
        cells.append(f"{row.guidance:g}")
        for metric in REPORTED_LABELS:
            values = row.metrics.get(metric, ())
            notes = [value.note for value in values if value.note]
            cells.append((" / ".join(value.text for value in values) or "-") + footnotes.mark(notes))
        cells += [_reproduced(result.answers[source]) for source in SOURCES]
        rows.append([*cells, verdict_cell(result.answers, REPORTED_LABELS, footnotes)])
    align = ["right", "left", "right", "left", "left", *["right"] * 4, *["left"] * (len(SOURCES) + 1)]
    return join(grid(headers, rows, align), footnotes.text())


def _reproduced(answer: Answer) -> str:
    values = []
    for metric, label in REPORTED_LABELS.items():
        if (found := answer.reproduced(metric)) is not None:
            values.append(f"{label} {number(found.value, 3)}{spread(found, 3)}")
    return ", ".join(values) or "-"


def _legend(table: DiffusionTable) -> Iterator[str]:
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
    for profile, runs in table.beside.items():
        sources = " and ".join(unique(run.denoiser.weights_source for run in runs))
        yield f'Under "Reported by the paper", {sources} results of profile `{profile}` stand beside: {made_by(runs)}.'
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


def _run_legend(table: DiffusionTable) -> Iterator[str]:
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
    if methods := unique(
        f"{metric.interval.level:.0%} by {metric.interval.method}"
        for record in records
        for metric in record.metrics.values()
        if metric.interval
    ):
        yield f"± is the half-width of a value's interval of confidence, [ ] are its ends: {'; '.join(methods)}."
    for key, metric in table.columns.items():
        if key.startswith("gfd_"):
            yield (
                f"{metric.label}: Fréchet distance between Gaussian fits to the named network's features. It ranks "
                "rows of this table; its scale is not that of Inception features, so it is not called FID."
            )
    if any(run.loss is not None for run in table.runs):
        yield (
            "The loss is each process's own, and its scale differs between latent spaces: compare losses of one latent "
            "space only."
        )
    folder = os.path.commonpath([run.path.resolve().parent for run in table.runs])
    yield (
        f"Records lie under `{shown(Path(folder))}`; the `.json` twin names the one behind each row, and "
        "`dcae-bench show RESULT.json` prints it."
    )
