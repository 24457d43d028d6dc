"""Figure of the ablations: the paper's two plots, reported above measured."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from dcae_bench.tables.ablation.judge import SeedMean
from dcae_bench.tables.ablation.table import AblationTable, Effect
from dcae_bench.tables.figures.style import (
    CENTRED,
    COLOURS,
    LINE_STYLES,
    OTHER_COLOUR,
    PROTOCOLS,
    WIDTH_IN,
    save_figure,
)
from dcae_bench.tables.reported.ablation import AblationRow

WITH, WITHOUT = COLOURS["dc-ae"], COLOURS["sd-vae"]
MARKERS = "os^v"
"""Of the pairs of lines of one panel."""
TITLES = ("(a) Residual autoencoding, low resolution", "(b) High-resolution adaptation")
PREFERRED = ("rfid", "rfd", "lpips", "psnr")
"""Beginnings of the keys of the metric that is drawn, the best first."""

_Series = dict[str, dict[int, SeedMean]]
"""Value by compression, of each line by its label."""


def ablation_figure(table: AblationTable, path: Path) -> None:
    """Write the figure as PNG. Raises :class:`ResultsError` when the folder cannot be written."""
    save_figure(draw(table), path)


def draw(table: AblationTable) -> Figure:
    """Draw the paper's two plots: above as reported, below as measured."""
    figure = Figure(figsize=(WIDTH_IN, 6.4), facecolor="white", layout="constrained")
    panels = figure.subplots(2, 2)
    reported = _reported([result.row for result in table.reported])
    key = next((key for start in PREFERRED for key in table.columns if key.startswith(start)), None)
    measured = _measured(table, key) if key else ({}, {})
    label = table.columns[key].label if key else ""
    for column, title in enumerate(TITLES):
        _panel(panels[0][column], reported[column], hollow=True)
        _panel(panels[1][column], measured[column], hollow=False)
        panels[0][column].set_title(title, size=10)
        panels[1][column].set_xlabel("compression f")
    panels[0][0].set_ylabel("reported by the paper\nrFID, lower is better")
    if key:
        direction = {"lower": ", lower is better", "higher": ", higher is better"}
        better = direction.get(table.columns[key].better, "")
        panels[1][0].set_ylabel(f"measured, profile {table.profile}\n{label}{better}")
    return figure


def _reported(rows: Iterable[AblationRow]) -> tuple[_Series, _Series]:
    residual: _Series = {}
    adapted: _Series = {}
    for row in rows:
        if row.compression is None or row.resolution is None:
            continue
        value = SeedMean(row.metrics["rfid"].value, None, 1)
        into = residual if row.study == "residual" else adapted
        into.setdefault(_name(row.arm, None if row.study == "residual" else row.resolution), {})[row.compression] = (
            value
        )
        if row.study == "residual" and row.arm == "with":  # the paper draws these values in (b) too
            adapted.setdefault(f"{row.resolution} px", {})[row.compression] = value
    return residual, adapted


def _measured(table: AblationTable, key: str) -> tuple[_Series, _Series]:
    residual: _Series = {}
    adapted: _Series = {}
    for effect in table.effects:
        data = effect.with_it.first.record.data
        several = len({one.with_it.first.record.data.name for one in table.effects}) > 1
        where = f"{data.name}, " if several else ""
        if not table.is_plotted(effect):
            continue
        if effect.idea == "residual" and data.resolution == table.lowest:
            _put(residual, effect, key, where, None)
        if effect.idea == "phase 2":
            _put(adapted, effect, key, where, data.resolution)
    return residual, adapted


def _put(into: _Series, effect: Effect, key: str, where: str, resolution: int | None) -> None:
    compression = effect.with_it.first.record.subject.compression
    for name, arm in (("without", effect.without), ("with", effect.with_it)):
        if (found := arm.mean(key)) is not None:
            into.setdefault(where + _name(name, resolution), {})[compression] = found


def _name(arm: str, resolution: int | None) -> str:
    return arm if resolution is None else f"{resolution} px, {arm}"


def _panel(axes: Axes, series: _Series, *, hollow: bool) -> None:
    axes.grid(alpha=0.25, axis="y", which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if not series:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", color=OTHER_COLOUR, transform=axes.transAxes, **CENTRED)
        return
    factors = sorted({f for points in series.values() for f in points})
    values = [found.mean for points in series.values() for found in points.values()]
    for number, (name, points) in enumerate(series.items()):
        places = [factors.index(f) for f in points]
        colour = WITHOUT if "without" in name else WITH if "with" in name else OTHER_COLOUR
        half = [found.interval.half_width if found.interval else 0.0 for found in points.values()]
        shift = 0.04 * (number - (len(series) - 1) / 2)
        axes.errorbar(
            [place + shift for place in places],
            [found.mean for found in points.values()],
            yerr=None if hollow or not any(half) else half,
            color=colour,
            linestyle="-" if hollow else LINE_STYLES[number // 2 % len(LINE_STYLES)],
            marker=PROTOCOLS["reported"].marker if hollow else MARKERS[number // 2 % len(MARKERS)],
            markerfacecolor="white" if hollow else colour,
            markersize=5,
            linewidth=1.5,
            capsize=3,
            label=name,
        )
    axes.set_xticks(range(len(factors)), [f"f{f}" for f in factors])
    axes.set_xlim(-0.4, len(factors) - 0.6)
    if min(values) > 0 and max(values) > 3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=8)
