"""Figures of denoisers: samples side by side, loss against training FLOPs, Fréchet distance against guidance."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.reading import map_array
from dcae_bench.data.sample_manifest import MANIFEST, read_sample_manifest
from dcae_bench.records.record import Metric, Record
from dcae_bench.records.subject import DenoiserSubject
from dcae_bench.tables.figures.losses import log_curve, scale_loss
from dcae_bench.tables.figures.style import (
    CENTRED,
    COLOURS,
    DPI,
    LINE_STYLES,
    OTHER_COLOUR,
    WIDTH_IN,
    save_figure,
)
from dcae_bench.tables.runs import family_rank

CAPTION = 34
"""Number of characters in a caption's line that fit beside the samples."""
MARKERS = ("o", "s", "^", "D", "v")
"""Markers tell rows apart that share colour and dashes: same family and compression, another training or denoiser."""
LEGEND_BELOW, LEGEND_LINE_IN = -0.14, 0.17
"""Where a legend begins, in heights of the panel above it, and the height of one of its lines in inches."""
PREDICTED = {"vp": "noise", "learned-range": "noise and variance", "flow": "velocity"}
"""What a denoiser learns to predict, by process."""


def samples_figure(items: Sequence[tuple[Record, Path]], path: Path, *, count: int = 8) -> None:
    """Write a PNG of generated images: a row per denoiser and latent space, a column per sample index.

    ``items`` are generation records with their ``samples.npy``. If all records share a seed policy, a column shows
    the same seed and label in every row. Raises :class:`ResultsError` when there is nothing to draw or samples cannot
    be read.
    """
    if not items:
        raise ResultsError(f"{path}: no samples to draw; sample first")
    ordered = sorted(items, key=lambda item: _order(item[0]))
    images = [first_samples(file, count) for _, file in ordered]
    columns = max(map(len, images))
    label, top, gap = 2.1, 0.34, 0.04
    cell = (WIDTH_IN - label) / columns
    height = top + cell * len(ordered)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    figure.text(0.5, 1 - 0.17 / height, "Samples, one seed and label per column", size=11, weight="bold", **CENTRED)
    for place, ((record, _), pictures) in enumerate(zip(ordered, images, strict=True)):
        bottom = height - top - (place + 1) * cell + gap
        colour = COLOURS.get(record.subject.family, OTHER_COLOUR)
        at = label / 2 / WIDTH_IN, (bottom + cell / 2) / height
        figure.text(*at, _caption(record), size=8, color=colour, **CENTRED)
        for number, picture in enumerate(pictures):
            left, size = label + number * cell, cell - gap
            axes = figure.add_axes((left / WIDTH_IN, bottom / height, size / WIDTH_IN, size / height))
            axes.set_axis_off()
            axes.imshow(picture)
    save_figure(figure, path)


def loss_figure(logs: Mapping[Path, Record], path: Path) -> None:
    """Write a PNG of the smoothed loss over training FLOPs: a panel per process, a line per row with its end marked.

    ``logs`` maps the log of each training to the training's record. Raises :class:`ResultsError` when there is no log
    or a log cannot be read.
    """
    if not logs:
        raise ResultsError(f"{path}: no training to draw; train a denoiser first")
    processes = sorted({_denoiser(record).process for record in logs.values()})
    lines = max(Counter(_denoiser(record).process for record in logs.values()).values())
    size = (WIDTH_IN, 4.4 + LEGEND_LINE_IN * lines)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(processes)))
    styles = _styles(logs.values())
    for process, axes in zip(processes, panels, strict=True):
        _prepare(axes, f"process {process}: {PREDICTED[process]} predicted", "training FLOPs")
        chosen = [item for item in logs.items() if _denoiser(item[1]).process == process]
        for log, record in sorted(chosen, key=lambda item: _order(item[1])):
            curve = log_curve(log, ("loss",))
            operations = curve.index.to_numpy() * record.metrics["flops_per_image"].value
            style = styles[_denoiser(record).row] | {"markersize": 5, "markevery": [-1]}
            axes.plot(operations, curve.to_numpy(), label=_name(record), **style)
        _scale_operations(axes)
        scale_loss(axes)
        # Below the panel: curves may run through any corner of it.
        axes.legend(
            frameon=False, fontsize=7.5, handlelength=3.2, loc="upper center", bbox_to_anchor=(0.5, LEGEND_BELOW)
        )
    panels[0].set_ylabel("loss (mean over 1/20 of the training)")
    save_figure(figure, path)


def guidance_figure(records: Sequence[Record], path: Path) -> None:
    """Write a PNG of the Fréchet distance over the guidance scale s: a line per row, with its best scale marked.

    Raises :class:`ResultsError` when no record has a Fréchet distance.
    """
    points: dict[str, list[tuple[float, Metric, Record]]] = {}
    for record in sorted(records, key=_order):
        if metric := _frechet_distance(record):
            points.setdefault(_name(record), []).append((float(record.settings["guidance"]), metric, record))
    if not points:
        raise ResultsError(f"{path}: no generation record with a Fréchet distance; evaluate samples first")
    size = (WIDTH_IN * 0.7, 4.2 + LEGEND_LINE_IN * len({_denoiser(record).row for record in records}))
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    first = next(iter(points.values()))[0][1]
    _prepare(axes, f"{first.label} by guidance scale", "guidance scale s (1: none)")
    axes.set_ylabel(first.label)
    styles = _styles(records)
    for name, found in points.items():
        scales, metrics, owners = zip(*sorted(found, key=lambda point: point[0]), strict=True)
        values = np.array([metric.value for metric in metrics])
        style = styles[_denoiser(owners[0]).row]
        axes.plot(scales, values, label=name, markersize=4, **style)
        intervals = [metric.interval for metric in metrics if metric.interval]
        if len(intervals) == len(metrics):
            low, high = (np.array([getattr(interval, end) for interval in intervals]) for end in ("low", "high"))
            axes.fill_between(scales, low, high, color=style["color"], alpha=0.12, linewidth=0)
        best = int(values.argmin())
        axes.annotate(
            f"s = {scales[best]:g}", (scales[best], values[best]), (0, -11), textcoords="offset points", size=7
        )
    axes.legend(frameon=False, fontsize=8, handlelength=3.2, loc="upper center", bbox_to_anchor=(0.5, LEGEND_BELOW))
    save_figure(figure, path)


def first_samples(file: Path, count: int) -> np.ndarray:
    """The first images of ``samples.npy``, checked against the hash in the manifest beside it, if there is one.

    Returns uint8 (count, height, width, 3). Raises :class:`ResultsError` for a file that is damaged or is another.
    """
    try:
        if file.with_name(MANIFEST).exists():
            wanted = read_sample_manifest(file.parent).sha256
            if (found := known_sha256(file)) != wanted:
                raise ResultsError(f"{file}: sha256 is {found}, {MANIFEST} says {wanted}; sample again")
        return np.array(map_array(file)[:count])
    except (OSError, ValueError, IndexError) as error:
        raise ResultsError(f"{file}: cannot be read ({error}); sample again") from error


def _denoiser(record: Record) -> DenoiserSubject:
    if record.denoiser is None:
        raise ResultsError(
            f"a record of kind {record.kind} names no denoiser; pass those of generation or its training"
        )
    return record.denoiser


def _frechet_distance(record: Record) -> Metric | None:
    """The record's first Fréchet distance, such as gFID."""
    return next((metric for key, metric in record.metrics.items() if key.startswith("gf")), None)


def _order(record: Record) -> tuple:
    subject, denoiser = record.subject, _denoiser(record)
    latent = (subject.compression, subject.latent_channels, family_rank(subject.family), subject.autoencoder)
    return denoiser.process, denoiser.name, *latent, denoiser.row, float(record.settings.get("guidance", 1))


def _name(record: Record) -> str:
    denoiser = _denoiser(record)
    return f"{denoiser.row}: {record.subject.autoencoder} p{denoiser.patch}, {denoiser.tokens} tokens"


def _caption(record: Record) -> str:
    denoiser, lines = _denoiser(record), []
    lines.append(f"{record.subject.autoencoder} p{denoiser.patch}")
    lines += textwrap.wrap(denoiser.row, CAPTION)
    lines.append(f"s = {record.settings.get('guidance', '1')}")
    if metric := _frechet_distance(record):
        lines[-1] += f", {metric.label.split(' ')[0]} {metric.value:.4g}"
    return "\n".join(lines)


def _styles(records: Iterable[Record]) -> dict[str, dict]:
    """Style of each row's line: colour by family, dashes by compression, and a marker per row that shares both."""
    owners = {_denoiser(record).row: record for record in sorted(records, key=_order)}
    ratios = sorted({record.subject.compression for record in owners.values()})
    styles: dict[str, dict] = {}
    drawn: Counter[tuple] = Counter()
    for row, record in owners.items():
        colour = COLOURS.get(record.subject.family, OTHER_COLOUR)
        dashes = LINE_STYLES[ratios.index(record.subject.compression) % len(LINE_STYLES)]
        look = _denoiser(record).process, colour, dashes
        styles[row] = {
            "color": colour,
            "linestyle": dashes,
            "linewidth": 1.6,
            "marker": MARKERS[drawn[look] % len(MARKERS)],
        }
        drawn[look] += 1
    return styles


def _scale_operations(axes: Axes) -> None:
    """Make the axis of training FLOPs logarithmic, with numbers that do not overlap in a narrow panel."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high > 10 * low else (1, 3)))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _prepare(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, size=9.5)
    axes.set_xlabel(x)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
