"""The last words on a table: what it holds, its three most telling numbers, and what to open, from its JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.reading import read_json
from dcae_bench.base.terminal import printable
from dcae_bench.records.record import Metric
from dcae_bench.tables.markdown import decimals, number, one_line, spread
from dcae_bench.tables.reported.verdict import Verdict
from dcae_bench.tables.runs import FAMILIES, shown_path

NUMBERS = 3
"""Numbers that a summary has room for."""
NO_VERDICT = (Verdict.NOT_RUN, Verdict.NOT_COMPARABLE)
TOLD = ("psnr", "lpips", "rf")
"""Beginnings of the keys of the metrics that tell most of a reconstruction, the first one first."""

Content = Mapping[str, Any]


def summary(table: Path) -> list[str]:
    """Lines for a terminal about a table: what it holds, at most three numbers, and what to open.

    ``table`` is its page or its ``.json``. Numbers with a verdict on the paper come first.

    Raises:
        ResultsError: if the file cannot be read or is not the JSON of a table.

    """
    source = Path(table).with_suffix(".json")
    try:
        content = read_json(source)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{source}: cannot be read ({error}); make the table again") from error
    try:
        told = (*_judged(content), *_measured(content))
        page = shown_path(source.with_suffix(".md"))
        lines = [f"{page}: {_holds(content)}", *(f"  {one_line(line)}" for line in told[:NUMBERS])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultsError(f"{source}: is not the JSON of a table ({error!r}); make the table again") from error
    return [printable(line) for line in (*lines, f"Open {page}, or everything in one page: make report")]


def is_table(content: Any) -> bool:
    """Whether the content of a JSON file is a table's and no record's."""
    return isinstance(content, Mapping) and ("table" in content or {"rows", "sources"} <= content.keys())


def _holds(content: Content) -> str:
    if "rows" in content:
        return f"{_count(len(content['rows']), 'row')} of timings"
    runs, expected = len(content["runs"]), len(content["expected"])
    made = f"{runs} of {expected} measurements" if expected else _count(runs, "measurement")
    return f"{made} of profile {content['profile']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _judged(content: Content) -> Iterator[str]:
    """Numbers of the paper that were measured and judged."""
    for result in content.get("reported", ()):
        row = result["row"]
        space = result.get("latent_shape") or result.get("latent_space") or f"f{row['compression']}"
        name = row.get("label") or FAMILIES.get(row.get("family"), row["table"])
        for weights, answer in result["answers"].items():
            for metric, judgement in answer["judgements"].items():
                if judgement["verdict"] not in NO_VERDICT:
                    where = f"{name} {space} on {row['dataset']} {row['resolution']} px, {weights}"
                    yield f"{where}, {metric}: {judgement['verdict'].replace('_', ' ')} ({judgement['reason']})"


def _measured(content: Content) -> Iterator[str]:
    """Numbers of this table alone, the most telling ones first."""
    if "rows" in content:
        return _timings(content["rows"])
    kinds = {"reconstruction": _pair, "generation": _lowest, "ablation": _effects}
    return kinds[content["table"]](content)


def _timings(rows: Sequence[Content]) -> Iterator[str]:
    measured = [row for row in rows if row["status"] == "measured"]
    for row in sorted(measured, key=lambda one: one["speed_up"] is None):  # the others keep their order
        named = f"{row['name']} on {row['latent_space']}, {row['work']}, {row['protocol'].removeprefix('throughput/')}"
        speed = f"{row['images_per_s']:,.{0 if row['images_per_s'] >= 100 else 2}f} images/s"
        if row["speed_up"] is None:
            yield f"{named}: {speed}"
        else:
            verdict = "" if row["verdict"] in NO_VERDICT else f" ({row['verdict'].replace('_', ' ')})"
            yield f"{named}: {row['speed_up']:.2f}x as fast as its baseline{verdict}, {speed}"


def _pair(content: Content) -> Iterator[str]:
    """DC-AE beside SD-VAE at the highest compression and resolution that have both; else the last measurement."""
    runs = {run["path"]: run["record"] for run in content["runs"]}
    pairs = [(runs[one["dc_ae"]], runs[one["sd_vae"]]) for one in content["differences"] if one["obstacle"] is None]
    if pairs:
        shown = max(pairs, key=lambda one: (one[0]["subject"]["compression"], one[0]["data"]["resolution"]))
    else:
        shown = tuple(runs.values())[-1:]
    for key in _keys(shown[0]["metrics"], TOLD) if shown else ():
        data, metric = shown[0]["data"], shown[0]["metrics"][key]
        values = [
            f"{_value(key, one['metrics'][key])} by {one['subject']['autoencoder']}"
            for one in shown
            if key in one["metrics"]
        ]
        yield f"{metric['label']} on {data['name']} {data['resolution']} px: {' beside '.join(values)}"


def _lowest(content: Content) -> Iterator[str]:
    """The lowest Fréchet distances, one for each latent space."""
    runs = content["runs"]
    keys = _keys(runs[0]["record"]["metrics"], ("gf",)) if runs else []
    for key in islice(keys, 1):
        spaces: dict[str, Content] = {}
        for run in sorted(
            (run for run in runs if key in run["record"]["metrics"]),
            key=lambda one: one["record"]["metrics"][key]["value"],
        ):
            spaces.setdefault(run["latent_space"], run)
        for space, run in spaces.items():
            metric = run["record"]["metrics"][key]
            yield f"{metric['label']}: {_value(key, metric)} by {run['row']} on {space}, s = {run['guidance']:g}"


def _effects(content: Content) -> Iterator[str]:
    """What each idea adds, in PSNR or in the first metric that there is; one number for each idea first."""
    effects = [one for one in content["effects"] if one["obstacle"] is None and one["with_minus_without"]]
    first = {one["idea"]: one for one in reversed(effects)}
    told = [one for one in effects if first[one["idea"]] is one]
    for one in (*told, *(effect for effect in effects if effect not in told)):
        key = next(iter(_keys(one["with_minus_without"], TOLD)), next(iter(one["with_minus_without"])))
        found = one["with_minus_without"][key]
        value, places = found["value"], decimals(key, [found["value"]])
        low, high = (number(found[f"interval_{end}"], places, signed=True) for end in ("low", "high"))
        name = key.partition("_")[0].upper()
        adds = f"{name} {number(value, places, signed=True)} [{low}, {high}]"
        yield f"{one['idea']}: {adds} on {one['data_set']} {one['resolution']} px, {found['verdict']}"


def _keys(metrics: Mapping[str, Any], beginnings: Iterable[str]) -> list[str]:
    """The first key with each of the beginnings, in their order."""
    found = (next((key for key in metrics if key.startswith(start)), None) for start in beginnings)
    return [key for key in found if key is not None]


def _value(key: str, content: Content) -> str:
    """A value with its interval, as the table prints it, and its unit."""
    metric = Metric.model_validate(content)
    places = decimals(key, [metric.value])
    return f"{number(metric.value, places)}{spread(metric, places)}{f' {metric.unit}' if metric.unit else ''}"
