"""Figure of the throughput table: per model and work the images/s, the joules per image and the speed-ups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.tables.figures.style import PROTOCOLS, WIDTH_IN, ShownProtocol, save_figure
from dcae_bench.tables.throughput.judge import is_degraded
from dcae_bench.tables.throughput.table import BASELINE, ThroughputRow, ThroughputTable, named_batch

REPORTED = "reported"
WORKS = {"train": "training", "forward": "one forward pass", "sample": "sampling", "sample_decode": "sampling, decoded"}
LINE_IN, MARGIN_IN, LEGEND_IN = 0.2, 0.95, 0.5
"""Heights in inches: of a value, of what stands around a panel, and of the legend."""
EDGE_PX = 12
"""Free pixels between a written value and the edge of its panel."""


@dataclass(frozen=True)
class _Value:
    """A value of one series on one latent space; ``low`` and ``high`` are None for a reported one."""

    space: str
    series: str
    value: float
    low: float | None = None
    high: float | None = None
    remark: str = ""

    @property
    def text(self) -> str:
        """The value as the panels print it."""
        return f"{_digits(self.value).removesuffix('.0')}{self.remark}"

    @property
    def text_with_interval(self) -> str:
        """The value with its interval, e.g. ``17.98 [17.97, 18.00]``."""
        ends = "" if self.low is None or self.high is None else f" [{_digits(self.low)}, {_digits(self.high)}]"
        return f"{_digits(self.value)}{ends}{self.remark}"


def throughput_figure(table: ThroughputTable, path: Path, *, vector: bool = True) -> None:
    """Write the figure as PNG and SVG; without ``vector`` as PNG alone, for evidence, which holds no markup.

    Raises :class:`ResultsError` when the folder cannot be written.
    """
    save_figure(draw(table), path, vector=vector)


def draw(table: ThroughputTable) -> Figure:
    """Draw a line of panels for each model and work of a denoiser that was measured."""
    groups: dict[tuple, list[ThroughputRow]] = {}
    for row in sorted(table.rows, key=_shown_order):
        if row.record.derived is not None and row.record.model.latent_space:
            groups.setdefault(_group(row), []).append(row)
    if not groups:
        figure = Figure(figsize=(WIDTH_IN, 2), layout="constrained")
        figure.text(0.5, 0.5, "no row of a denoiser was measured in a good state", ha="center", va="center")
        return figure
    derived = [row.record.derived for rows in groups.values() for row in rows if row.record.derived]
    energy = any(one.energy_per_image_j is not None for one in derived)
    speeds = {key: [*_reported(rows), *_measured(rows, "images_per_s")] for key, rows in groups.items()}
    lines = [_lines(_places(values)[0]) for values in speeds.values()]
    figure = Figure(
        figsize=(WIDTH_IN, LEGEND_IN + sum(MARGIN_IN + LINE_IN * count for count in lines)), layout="constrained"
    )
    panels = figure.subplots(
        len(groups), 3 if energy else 2, squeeze=False, height_ratios=[MARGIN_IN / 2 + LINE_IN * one for one in lines]
    )
    for axes, (key, rows) in zip(panels, groups.items(), strict=True):
        values = speeds[key]
        _dots(axes[0], values, values, "images/s, log scale")
        if energy:
            joules = _measured(rows, "energy_per_image_j")
            _dots(axes[1], joules, values, "joule per image, log scale")
        _bars(axes[-1], rows, values)
        axes[0].set_title(_title(rows[0]), fontsize=10, loc="left", fontweight="bold")
        for later in axes[1:]:
            later.set_yticklabels([])
    said = [*_devices(table), "batches and iterations: in the notes of the table"]
    if not energy:
        reason = next((one.energy_reason for one in derived if one.energy_reason), "not measured")
        said.append(f"no joule per image: {reason}")
    figure.supxlabel("; ".join(said), fontsize=8)
    _legend(figure, [one.series for values in speeds.values() for one in values])
    _make_room(figure, panels[:, -1])
    return figure


def _make_room(figure: Figure, panels: Iterable[Axes]) -> None:
    """Lengthen the linear axis of each panel until the values that are written behind the bars fit into it."""
    figure.draw_without_rendering()
    for axes in panels:
        left, right = axes.get_xlim()
        width = axes.get_window_extent().width - EDGE_PX
        for label in (text for text in axes.texts if isinstance(text, Annotation)):
            shown, end = label.get_window_extent(), float(label.xy[0])
            beside = shown.x1 - axes.transData.transform((end, 0))[0]  # px from the end of the bar to that of its value
            if beside < width:
                right = max(right, left + (end - left) * width / (width - beside))
        axes.set_xlim(left, right)


def _devices(table: ThroughputTable) -> list[str]:
    found = {}
    for environment in (row.record.environment for row in table.rows):
        gpu = environment.gpu
        limit = f", {gpu.power_limit_w:.0f} W" if gpu and gpu.power_limit_w else ""
        found[f"{gpu.name}{limit}" if gpu else environment.processor] = True
    return list(found)


def _group(row: ThroughputRow) -> tuple:
    """What the values of one line of panels share."""
    return row.record.model.name, row.record.model.resolution, row.record.work, named_batch(row.record)


def _title(row: ThroughputRow) -> str:
    model, work, batch = row.record.model, row.record.work, named_batch(row.record)
    name = model.name.replace("uvit-", "UViT-").replace("dit-", "DiT-")
    head, _, size = name.rpartition("-")
    named = f"{head}-{size.upper()}" if head in ("UViT", "DiT") else name
    return f"{named}, {model.resolution} px, {WORKS.get(work, work)}{f', batch {batch}' if batch else ''}"


def _series(row: ThroughputRow) -> str:
    """Name of a row's series: the protocol's short name, and the mode where it is not the protocol's."""
    short = row.record.protocol.removeprefix("throughput/").rpartition("-v")[0] or row.record.protocol
    return f"{short}, {row.record.mode}" if row.record.mode == "trt" else short


def _shown_order(row: ThroughputRow) -> tuple:
    model = row.record.model
    return model.name, model.resolution, -(model.tokens or 0)


def _measured(rows: Iterable[ThroughputRow], name: str) -> list[_Value]:
    """The estimates ``name`` of the rows that have it; ``speed_up`` is the row's, the others are the record's."""
    found = []
    for row in rows:
        estimate: Estimate | None = row.speed_up if name == "speed_up" else getattr(row.record.derived, name)
        if estimate is not None:
            remark = ", degraded" if is_degraded(row.record) else ""
            space = row.record.model.latent_space or ""
            found.append(_Value(space, _series(row), estimate.value, estimate.low, estimate.high, remark))
    return found


def _reported(rows: Iterable[ThroughputRow]) -> list[_Value]:
    """The paper's images/s, once a latent space; none beside a batch of the user's own or a processor."""
    found = {
        row.record.model.latent_space: row.reported_pass_per_s
        for row in rows
        if row.reported_pass_per_s is not None and not named_batch(row.record) and row.record.environment.gpu
    }
    return [_Value(space or "", REPORTED, value) for space, value in found.items() if value is not None]


def _places(values: Sequence[_Value]) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Heights of each value and of each latent space's name, downwards, with a gap between latent spaces."""
    places: dict[tuple[str, str], float] = {}
    names: dict[str, float] = {}
    spaces = list(dict.fromkeys(value.space for value in values if value.series != REPORTED))
    top = 0.0
    for space in spaces:
        series = sorted({one.series for one in values if one.space == space}, key=lambda one: _look(one).rank)
        places |= {(space, one): top + index for index, one in enumerate(series)}
        names[space] = top + (len(series) - 1) / 2
        top += len(series) + 0.6
    return places, names


def _lines(places: dict[tuple[str, str], float]) -> float:
    return max(places.values()) + 1


def _look(series: str) -> ShownProtocol:
    return PROTOCOLS.get(series.partition(",")[0], PROTOCOLS["other"])


def _prepare(axes: Axes, every: Sequence[_Value], label: str) -> dict[tuple[str, str], float]:
    """Set up a panel with a line for each value of ``every``, and return the heights of the lines."""
    places, names = _places(every)
    axes.set_ylim(_lines(places) - 0.3, -0.7)
    axes.set_yticks(list(names.values()), list(names), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(label, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return places


def _dots(axes: Axes, values: Sequence[_Value], every: Sequence[_Value], label: str) -> None:
    """Draw values as dots on a logarithmic axis, where equal ratios are equal distances."""
    places = _prepare(axes, every, label)
    if not values:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, fontsize=8)
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    for one in values:
        height, look = places[one.space, one.series], _look(one.series)
        ends = None if one.low is None or one.high is None else [[one.value - one.low], [one.high - one.value]]
        axes.errorbar(one.value, height, xerr=ends, fmt=look.marker, color=look.colour, mfc=look.fill, capsize=2)
        _write(axes, one.high or one.value, height, one.text)
    smallest, largest = min(one.low or one.value for one in values), max(one.high or one.value for one in values)
    axes.set_xlim(smallest / 1.6, largest * max(2.5, (largest / smallest) ** 0.3))  # room for the last label
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if largest / smallest > 30 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, rows: Sequence[ThroughputRow], every: Sequence[_Value]) -> None:
    """Draw the speed-ups over the baseline as bars from zero, with the MAC ratio as a dotted line."""
    places = _prepare(axes, every, f"speed-up over {BASELINE}")
    values = _measured(rows, "speed_up")
    reported = {
        row.record.model.latent_space or "": row.reported_speed_up for row in rows if not named_batch(row.record)
    }
    values += [_Value(space, REPORTED, value) for space, value in reported.items() if value is not None]
    values = [one for one in values if (one.space, one.series) in places]
    for one in values:
        height, look = places[one.space, one.series], _look(one.series)
        ends = None if one.low is None or one.high is None else [[one.value - one.low], [one.high - one.value]]
        axes.barh(
            *(height, one.value, 0.72), xerr=ends, color=look.fill, edgecolor=look.colour, ecolor="black", capsize=2
        )
        _write(axes, one.high or one.value, height, one.text_with_interval)
    ratios = {row.record.model.latent_space or "": row.mac_ratio for row in rows if row.baseline is not row.record}
    for space, ratio in ratios.items():
        lines = [height for (where, _), height in places.items() if where == space]
        if ratio is not None and lines:
            axes.plot([ratio] * 2, [min(lines) - 0.5, max(lines) + 0.5], color="black", linestyle=":", linewidth=1.2)
    if heights := [height for (where, _), height in places.items() if where == BASELINE]:
        axes.text(0, sum(heights) / len(heights), " 1, by definition", va="center", fontsize=8, color="0.35")
    axes.set_xlim(0, 1.75 * max([1.0, *(one.value for one in values), *(one for one in ratios.values() if one)]))


def _write(axes: Axes, x: float, height: float, text: str) -> None:
    """Write a value to the right of its mark."""
    axes.annotate(text, (x, height), textcoords="offset points", xytext=(7, 0), va="center", fontsize=8)


def _legend(figure: Figure, series: Iterable[str]) -> None:
    handles = []
    for one in sorted(dict.fromkeys(series), key=lambda name: _look(name).rank):
        look = _look(one)
        label = "reported by the paper" if one == REPORTED else f"ours, protocol {one}"
        handles.append(
            Line2D([], [], color=look.colour, marker=look.marker, markerfacecolor=look.fill, linestyle="", label=label)
        )
    handles.append(Line2D([], [], color="black", linestyle=":", label="ratio of the multiply-accumulates"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)


def _digits(value: float) -> str:
    """A number with three or four digits, never with an exponent."""
    places = 0 if value >= 100 else 1 if value >= 30 else 2 if value >= 1 else 3
    return f"{value:,.{places}f}"
