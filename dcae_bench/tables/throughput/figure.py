"""Figure of the throughput table: images per second and joules per image against tokens, with the MACs' prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from dcae_bench.base.files import write_with
from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import Derived
from dcae_bench.tables.figures.style import COLOURS, DPI, OTHER_COLOUR, WIDTH_IN
from dcae_bench.tables.throughput.table import BASELINE, ThroughputRow, ThroughputTable


@dataclass(frozen=True)
class _Point:
    """A measured row of a denoiser, as the panels draw it."""

    row: ThroughputRow
    derived: Derived
    tokens: int


def throughput_figure(table: ThroughputTable, path: Path) -> None:
    """Draw one line of panels per protocol, model and work that was measured.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    groups: dict[str, list[_Point]] = {}
    for row in table.rows:
        record = row.record
        if record.derived is not None and record.model.tokens:
            title = f"{record.protocol}: {record.model.name}, {record.model.resolution} px, {record.work}"
            groups.setdefault(title, []).append(_Point(row, record.derived, record.model.tokens))
    height = 3.2 * max(len(groups), 1)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")
    every = [point.derived for points in groups.values() for point in points]
    energy = any(derived.energy_per_image_j is not None for derived in every)
    if groups:
        panels = figure.subplots(len(groups), 2 if energy else 1, squeeze=False)
        for axes, (title, points) in zip(panels, groups.items(), strict=True):
            _draw(axes[0], points, "images per second", lambda derived: derived.images_per_s)
            if energy:
                _draw(axes[1], points, "joule per image", lambda derived: derived.energy_per_image_j)
            axes[0].set_title(title, fontsize=9, loc="left")
        if not energy:
            reason = next((derived.energy_reason for derived in every if derived.energy_reason), "not measured")
            figure.supxlabel(f"no energy: {reason}", fontsize=8)
    else:
        figure.text(0.5, 0.5, "no row of a denoiser was measured in a good state", ha="center", va="center")
    write_with(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _draw(axes: Axes, points: list[_Point], label: str, value: Callable[[Derived], Estimate | None]) -> None:
    """Draw one panel: a value with its interval against tokens, a point per latent space."""
    axes.set_xlabel("tokens")
    axes.set_ylabel(label)
    found = [(point, estimate) for point in points if (estimate := value(point.derived)) is not None]
    if not found:
        reason = points[0].derived.energy_reason or "not measured"
        axes.text(
            0.5, 0.5, f"none: {reason}", ha="center", va="center", transform=axes.transAxes, fontsize=8, wrap=True
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    counts = sorted({point.tokens for point, _ in found})
    axes.set_xscale("log", base=2)
    axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.margins(y=0.15)
    plain = FuncFormatter(lambda x, _: f"{x:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain if _decades([one.value for _, one in found]) < 1 else NullFormatter())
    for point, estimate in found:
        space = point.row.record.model.latent_space or ""
        family = space.partition("-f")[0]
        errors = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        colour = COLOURS.get(family, OTHER_COLOUR)
        axes.errorbar(point.tokens, estimate.value, yerr=errors, fmt="o", color=colour, capsize=3)
        left = len(counts) > 1 and point.tokens == counts[-1]
        axes.annotate(
            space,
            (point.tokens, estimate.value),
            textcoords="offset points",
            xytext=(-6, -11) if left else (6, 5),
            fontsize=7,
            ha="right" if left else "left",
        )
    base = next((one for point, one in found if point.row.record.model.latent_space == BASELINE), None)
    if base is not None and len(found) > 1:
        # The baseline's value scaled by work alone: images/s go with 1/MAC, joules with MAC.
        sign = 1 if label == "images per second" else -1
        line = sorted((point.tokens, base.value * (point.row.mac_ratio or 1) ** sign) for point, _ in found)
        axes.plot(*zip(*line, strict=True), color="0.5", linestyle="--", label="by the MAC ratio")
        axes.legend(fontsize=7)


def _decades(values: list[float]) -> float:
    """How far the values lie apart, in powers of ten."""
    return math.log10(max(values) / min(values))
