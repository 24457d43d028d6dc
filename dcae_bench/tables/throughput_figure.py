"""The figure of the throughput table: images per second and per joule against tokens, with the line of the MACs."""

import math
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from dcae_bench.files import write_with
from dcae_bench.measurement.statistics import Estimate
from dcae_bench.tables.figures import COLOURS, DPI, OTHER_COLOUR, WIDTH_IN
from dcae_bench.tables.throughput import BASELINE, Row, ThroughputTable


def throughput_figure(table: ThroughputTable, path: Path) -> None:
    """Draw one line of panels per protocol, model and work that was measured. Raises :class:`ResultsError`."""
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.record.derived is not None and row.record.model.tokens:
            record = row.record
            title = f"{record.protocol}: {record.model.name}, {record.model.resolution} px, {record.work}"
            groups.setdefault(title, []).append(row)
    height = 3.2 * max(len(groups), 1)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")
    if not groups:
        figure.text(0.5, 0.5, "no row of a denoiser was measured in a good state", ha="center", va="center")
    every = [row.record.derived for rows in groups.values() for row in rows]
    energy = any(derived.energy_per_image_j is not None for derived in every)
    panels = figure.subplots(len(groups), 2 if energy else 1, squeeze=False) if groups else []
    for axes, (title, rows) in zip(panels, groups.items(), strict=True):
        _panel(axes[0], rows, "images per second", lambda row: row.record.derived.images_per_s)
        if energy:
            _panel(axes[1], rows, "joule per image", lambda row: row.record.derived.energy_per_image_j)
        axes[0].set_title(title, fontsize=9, loc="left")
    if groups and not energy:
        reason = next((derived.energy_reason for derived in every if derived.energy_reason), "not measured")
        figure.supxlabel(f"no energy: {reason}", fontsize=8)
    write_with(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _panel(axes: Axes, rows: list[Row], label: str, value: Callable[[Row], Estimate | None]) -> None:
    axes.set_xlabel("tokens")
    axes.set_ylabel(label)
    found = [(row, estimate) for row in rows if (estimate := value(row)) is not None]
    if not found:
        reason = rows[0].record.derived.energy_reason or "not measured"
        axes.text(
            0.5, 0.5, f"none: {reason}", ha="center", va="center", transform=axes.transAxes, fontsize=8, wrap=True
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    counts = sorted({row.record.model.tokens for row, _ in found})
    axes.set_xscale("log", base=2)
    axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.margins(y=0.15)
    plain = FuncFormatter(lambda x, _: f"{x:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain if _decades(found) < 1 else NullFormatter())
    for row, estimate in found:
        tokens = row.record.model.tokens
        family = (row.record.model.latent_space or "").partition("-f")[0]
        errors = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.errorbar(tokens, estimate.value, yerr=errors, fmt="o", color=COLOURS.get(family, OTHER_COLOUR), capsize=3)
        left = len(counts) > 1 and tokens == counts[-1]
        beside = {"textcoords": "offset points", "xytext": (-6, -11) if left else (6, 5), "fontsize": 7}
        beside["ha"] = "right" if left else "left"
        axes.annotate(row.record.model.latent_space, (tokens, estimate.value), **beside)
    base = next(((row, one) for row, one in found if row.record.model.latent_space == BASELINE), None)
    if base is not None and len(found) > 1:
        # What the work alone would make of the baseline: images/s go with 1/MAC, joules with MAC.
        sign = 1 if label == "images per second" else -1
        line = sorted((row.record.model.tokens, base[1].value * (row.mac_ratio or 1) ** sign) for row, _ in found)
        axes.plot(*zip(*line, strict=True), color="0.5", linestyle="--", label="by the MAC ratio")
        axes.legend(fontsize=7)


def _decades(found: list[tuple[Row, Estimate]]) -> float:
    """How far the values lie apart, in powers of ten."""
    values = [one.value for _, one in found]
    return math.log10(max(values) / min(values))
