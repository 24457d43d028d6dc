"""Interactive charts as Vega-Lite specifications, each with a drawing in SVG for readers without JavaScript."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import SchemaBase
from markupsafe import Markup

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.records.record import Interval, Metric
from dcae_bench.report.curves import Curve
from dcae_bench.tables.ablation.table import IDEAS, AblationTable
from dcae_bench.tables.figures.style import COLOURS, OTHER_COLOUR, PROTOCOLS
from dcae_bench.tables.reconstruction.table import ReconstructionTable
from dcae_bench.tables.runs import FAMILIES
from dcae_bench.tables.throughput.table import ThroughputRow, ThroughputTable, named_batch

REPORTED, DASHED = "datum.series == 'reported by the paper'", (alt.value([4, 3]), alt.value([1, 0]))
PAPERS_GPU = " The paper measured on an H100."
VEGALITE = "6.4"
"""Version of Vega-Lite that draws: the newest that both libraries know."""
WIDTH, HEIGHT = 400, 250
"""Size of a drawing in px. In the page a chart is as wide as its column."""
FAMILY_COLOURS = {name: COLOURS.get(family, OTHER_COLOUR) for family, name in FAMILIES.items()}
WORKS = {"train": "training", "forward": "one forward pass"}
DASHES = [[1, 0], [6, 3], [2, 2], [6, 2, 2, 2]]
Data = list[dict[str, Any]]
Layers = alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    name: str
    title: str
    caption: str
    spec: Mapping[str, Any]
    svg: Markup
    """The same chart as a drawing."""


@cache
def script() -> str:
    """JavaScript that draws charts in the page: Vega, Vega-Lite and vega-embed in one text."""
    # Without a snippet the bundle sets window.vegaEmbed, which the stubs of the package do not know.
    return vl_convert.javascript_bundle(snippet=None, vl_version=VEGALITE)  # type: ignore[arg-type]


def _chart(name: str, title: str, caption: str, made: SchemaBase) -> Chart:
    """A chart with its drawing. The libraries escape every name that they draw."""
    spec = made.to_dict()
    fixed = spec | {"width": WIDTH, "height": HEIGHT}
    svg = vl_convert.vegalite_to_svg(fixed, vl_version=VEGALITE)
    # As an image it is described by its caption alone. Attributes hold no quotes, which stand in them as entities.
    svg = re.sub(r' (?:aria-[a-z]+|role)="[^"]*"', "", svg)
    return Chart(name, title, caption, spec | {"width": "container", "height": HEIGHT}, Markup(svg))


def _style(made: Layers, *, short: bool = True) -> SchemaBase:
    """The chart in the style of the page; ``short`` names of the legend stand in two columns."""
    axis = {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e3e6ea"}
    legend = {"orient": "bottom", "labelFontSize": 11, "columns": 2 if short else 1, "labelLimit": 300}
    return (
        made.configure(font="system-ui, sans-serif", background="white")
        .configure_axis(**axis)
        .configure_legend(**legend)
        .configure_view(stroke=None)
    )


def quality(name: str, table: ReconstructionTable) -> Iterator[Chart]:
    """A chart for each metric: its value by compression, after the last phase, of one data set at a time."""
    for number, (key, metric) in enumerate(table.columns.items()):
        rows: Data = []
        for run in table.final_runs:
            subject, data = run.record.subject, run.record.data
            if (found := run.record.metrics.get(key)) is None or not math.isfinite(found.value):
                continue  # an identity's PSNR has no place on an axis
            rows.append(
                {
                    "set": f"{data.name}, {data.resolution} px",
                    "compression": subject.latent_space,
                    "family": FAMILIES.get(subject.family, subject.autoencoder),
                    "autoencoder": subject.autoencoder,
                    **_ends(found.value, found.interval, "none"),
                }
            )
        if not rows:
            continue
        sets = list(dict.fromkeys(row["set"] for row in rows))
        shown = alt.param(name="shown", value=sets[-1], bind=alt.binding_select(options=sets, name="Data set "))
        chart = _quality(rows, metric)
        if len(sets) > 1:
            chart = chart.transform_filter("datum.set == shown").add_params(shown)
        caption = f"After the last phase, on {sets[-1]}{' at first' if len(sets) > 1 else ''}; bars are intervals."
        caption += _direction(metric)
        yield _chart(f"{name}-quality-{number}", f"{metric.label} by compression", caption, _style(chart))


def _quality(rows: Data, metric: Metric) -> Layers:
    unit = f" ({metric.unit})" if metric.unit else ""
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("compression:N", title="compression and latent channels", axis=alt.Axis(labelAngle=0), sort=None),
        xOffset=alt.XOffset("family:N", sort=list(FAMILIES.values())),
        color=_family_colour(rows),
        tooltip=[*_tooltip("autoencoder", "set"), alt.Tooltip("value:Q", format=".5~g"), *_tooltip("interval")],
    )
    y = alt.Y("value:Q", title=f"{metric.label}{unit}", scale=alt.Scale(zero=False))
    shape = alt.Shape("family:N", title=None, scale=alt.Scale(domain=_families(rows)))
    return alt.layer(_bars(base, "y"), base.mark_point(size=80, filled=True, opacity=1).encode(y=y, shape=shape))


def _bars(base: alt.Chart, along: str) -> alt.Chart:
    ends = {"y": alt.Y("low:Q", title=""), "y2": "high:Q"} if along == "y" else {"x": alt.X("low:Q"), "x2": "high:Q"}
    return base.mark_rule(strokeWidth=1.6).encode(**ends)


def _ends(value: float, interval: Interval | Estimate | None, without: str = "") -> dict[str, Any]:
    """A value with the ends of its bar and the text of its interval; ``without`` is that text where there is none."""
    low, high = (interval.low, interval.high) if interval else (value, value)
    return {
        "value": value,
        "low": low,
        "high": high,
        "interval": f"{low:.5g} to {high:.5g}" if interval else without,
    }


def _direction(metric: Metric) -> str:
    return {"higher": " Higher is better.", "lower": " Lower is better."}.get(metric.better, "")


def _family_colour(rows: Data) -> alt.Color:
    names, spare = _families(rows), itertools.cycle(("#CC79A7", "#009E73", "#E69F00"))
    palette = [FAMILY_COLOURS.get(name) or next(spare) for name in names]
    return alt.Color("family:N", title=None, scale=alt.Scale(domain=names, range=palette))


def _families(rows: Data) -> list[str]:
    """The families of rows: the compared ones in their order, then all others."""
    found = dict.fromkeys(row["family"] for row in rows)
    return [
        *(name for name in FAMILIES.values() if name in found),
        *(name for name in found if name not in FAMILIES.values()),
    ]


def _tooltip(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:N") for name in names]


def speed(name: str, table: ThroughputTable) -> Iterator[Chart]:
    """Images per second and joule per image by tokens, of training and of one forward pass."""
    quantities = (
        ("images/s", "images_per_s", "More is better."),
        ("energy per image (J)", "energy_per_image_j", "Less is better."),
    )
    for work, called in WORKS.items():
        for title, field, better in quantities:
            rows = list(_speed_rows(table.rows, work, field))
            if not rows:
                continue
            models = sorted({row["model"] for row in rows})
            theirs = any(row["series"].startswith("reported") for row in rows)
            yield _chart(
                f"{name}-{work}-{field}".replace("_", "-"),
                f"{title.split(' (')[0].capitalize()} of {called}",
                f"{', '.join(models)}, both axes logarithmic. {better}{PAPERS_GPU if theirs else ''}",
                _style(_by_tokens(rows, title)),
            )


def _speed_rows(rows: Sequence[ThroughputRow], work: str, field: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        record = row.record
        if record.work != work or record.model.tokens is None or named_batch(record):
            continue
        protocol = record.protocol.removeprefix("throughput/")
        about = {"model": record.model.name, "tokens": record.model.tokens, "space": record.model.latent_space}
        found: Estimate | None = getattr(record.derived, field) if record.derived else None
        if found is not None:
            ends = _ends(found.value, found)
            yield {**about, "series": f"ours, {protocol}", "line": f"{record.model.name} {protocol}", **ends}
        theirs = row.reported_pass_per_s
        if field == "images_per_s" and theirs:
            ends = _ends(theirs, None, "not told")
            yield {**about, "series": "reported by the paper", "line": f"{record.model.name} reported", **ends}


def _by_tokens(rows: Data, title: str) -> Layers:
    names = sorted({row["series"] for row in rows}, key=lambda one: (one.startswith("reported"), one))
    looks = [PROTOCOLS.get(_protocol(one), PROTOCOLS["other"]).colour for one in names]
    tokens = sorted({row["tokens"] for row in rows})
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("tokens:Q", title="tokens of one image", scale=_log(), axis=alt.Axis(values=tokens, grid=False)),
        y=alt.Y("value:Q", title=title, scale=_log(), axis=alt.Axis(format="~g", tickCount=5)),
        color=alt.Color("series:N", title=None, scale=alt.Scale(domain=names, range=looks)),
        detail="line:N",
        tooltip=[
            *_tooltip("model", "space", "series", "tokens"),
            alt.Tooltip("value:Q", format=".4~g"),
            *_tooltip("interval"),
        ],
    )
    shape = alt.Shape("series:N", title=None, scale=alt.Scale(domain=names))
    return alt.layer(
        base.mark_line(strokeWidth=1.6, opacity=0.7).encode(strokeDash=alt.condition(REPORTED, *DASHED)),
        base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q", title=title, scale=_log()), y2="high:Q"),
        base.mark_point(size=80, filled=True, opacity=1).encode(shape=shape),
    )


def _protocol(series: str) -> str:
    """Name of the style of a series: reported, paper, tuned or cpu."""
    return "reported" if series.startswith("reported") else series.removeprefix("ours, ").split("-v")[0]


def _log() -> alt.Scale:
    return alt.Scale(type="log", nice=False, padding=18)


def losses(name: str, title: str, caption: str, x: str, y: str, curves: Sequence[Curve]) -> Iterator[Chart]:
    """One chart of loss curves: colour by family, dashes within a family; a click on the legend singles one out."""
    rows: Data = [
        {
            "curve": curve.name,
            "family": FAMILIES.get(curve.family, curve.family),
            "x": at,
            "y": loss,
        }
        for curve in curves
        for at, loss in curve.points
    ]
    if not rows:
        return
    values = [row["y"] for row in rows]
    logarithmic = 0 < min(values) < max(values) / 3
    scale = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False)
    chosen = alt.selection_point(fields=["curve"], bind="legend", name="chosen")
    names = list(dict.fromkeys(row["curve"] for row in rows))
    of = {row["curve"]: row for row in rows}
    colours = [FAMILY_COLOURS.get(of[one]["family"], "#009E73") for one in names]
    # Curves of one family differ in their dashes: another latent shape, or another length of training.
    families = [of[one]["family"] for one in names]
    dashes = [DASHES[families[:place].count(family) % len(DASHES)] for place, family in enumerate(families)]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=x, axis=alt.Axis(format="~s", tickCount=5)),
        y=alt.Y("y:Q", title=y, scale=scale, axis=alt.Axis(format="~g", tickCount=6)),
        color=alt.Color("curve:N", title=None, scale=alt.Scale(domain=names, range=colours)),
        strokeDash=alt.StrokeDash("curve:N", title=None, scale=alt.Scale(domain=names, range=dashes)),
        opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.12)),
        tooltip=[alt.Tooltip("curve:N"), alt.Tooltip("x:Q", title=x, format="~s"), alt.Tooltip("y:Q", format=".4~g")],
    )
    made = alt.layer(base.mark_line(strokeWidth=1.8)).add_params(chosen)
    yield _chart(name, title, caption, _style(made, short=max(map(len, names)) <= 16))


def effects(name: str, table: AblationTable) -> Iterator[Chart]:
    """The effect of each idea on PSNR or on the first metric, with its interval."""
    keys = [key for key in table.columns if key.startswith("psnr")] or list(table.columns)[:1]
    for key in keys[:1]:
        metric, rows = table.columns[key], []
        for effect in table.effects:
            if (found := effect.difference(key)) is None or not table.is_plotted(effect):
                continue
            record, low = effect.with_it.first.record, found.interval.low if found.interval else found.mean
            rows.append(
                {
                    "idea": IDEAS[effect.idea],
                    "what": f"{effect.with_it.first.variant.of}, {record.data.resolution} px",
                    "value": found.mean,
                    "low": low,
                    "high": found.interval.high if found.interval else found.mean,
                    "verdict": effect.verdict(key) or "",
                }
            )
        if rows:
            unit = f" ({metric.unit})" if metric.unit else ""
            caption = f"With the idea minus without it, mean over seeds; bars are intervals.{_direction(metric)}"
            made = _style(_forest(rows, f"Δ {metric.label}{unit}"), short=False)
            yield _chart(f"{name}-by-idea", f"What each idea changes in {metric.label}", caption, made)


def _forest(rows: Data, title: str) -> Layers:
    ideas = list(dict.fromkeys(row["idea"] for row in rows))
    palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=150)),
        yOffset=alt.YOffset("idea:N", sort=ideas),
        color=alt.Color("idea:N", title=None, scale=alt.Scale(domain=ideas, range=palette)),
        tooltip=[*_tooltip("idea", "what"), alt.Tooltip("value:Q", format="+.4~g"), *_tooltip("verdict")],
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color="#555", strokeDash=[4, 3]).encode(x="zero:Q")
    bars = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    shape = alt.Shape("idea:N", title=None, scale=alt.Scale(domain=ideas))
    points = base.mark_point(size=70, filled=True, opacity=1).encode(x=alt.X("value:Q", title=title), shape=shape)
    return alt.layer(zero, bars, points)
