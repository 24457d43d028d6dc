"""The leaderboard: results of many bundles on one page, each table with what is comparable alone."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dcae_bench.base.errors import CheckError, ResultsError, UserError
from dcae_bench.base.files import sha256_file, write_text
from dcae_bench.measurement.evidence import SUMS
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.records.record import Record
from dcae_bench.report.cells import Cell, Head, Row, ShownTable
from dcae_bench.report.page import environment, packed
from dcae_bench.report.records import Panels
from dcae_bench.report.sources import Source
from dcae_bench.tables.bundle.accept import examine
from dcae_bench.tables.bundle.manifest import AnyRecord
from dcae_bench.tables.bundle.opened import opened
from dcae_bench.tables.markdown import ARROWS
from dcae_bench.tables.throughput.build import build
from dcae_bench.tables.throughput.page import hardware
from dcae_bench.tables.throughput.table import named_batch

QUALITY = ("rfid", "rfd", "psnr", "ssim", "lpips", "gfid", "gfd")
"""Beginnings of the keys of metrics that stand on the page, in the order of columns."""
LONGEST, LONGEST_FACT = 160, 1000
"""Characters of a cell, and of a fact about a record: names of strangers may be of any length."""
MOST_REASONS = 20


@dataclass(frozen=True)
class Entry:
    """A bundle that was accepted."""

    id: str
    name: str
    sha256: str
    """Hash of its list of hashes, which identifies the bundle."""
    records: dict[str, AnyRecord]
    told: int
    """Number of timings that are accepted nowhere."""


@dataclass(frozen=True)
class Refused:
    """A bundle that was not accepted, with the reasons."""

    name: str
    reasons: Sequence[str]


@dataclass(frozen=True)
class _Line:
    """A row before it is printed: its group, the cells that name it, and its values."""

    title: str
    key: tuple
    names: tuple[str, ...]
    values: dict[tuple, tuple[float, str]]
    """Value and printed text by column; a column is its label and what sets it apart."""
    id: str
    bundle: str


QUALITY_HEADS = ("of", "weights", "guidance", "bundle")
SPEED_HEADS = ("network", "latent space", "batch", "torch", "settings", "bundle")


def write_leaderboard(bundles: Sequence[Path], output: Path) -> tuple[int, list[Refused]]:
    """Write ``index.html`` below a folder from the bundles that are accepted. Returns their number, and the refused.

    Raises :class:`CheckError` if none is accepted.
    """
    entries, refused = read_bundles(bundles)
    if not entries:
        raise CheckError(f"none of {len(bundles)} bundles is accepted ({refused[0].name}: {refused[0].reasons[0]})")
    write_text(Path(output) / "index.html", render(entries, refused))
    return len(entries), refused


def read_bundles(bundles: Sequence[Path]) -> tuple[list[Entry], list[Refused]]:
    """Examine bundles; equal ones stand once."""
    entries: dict[str, Entry] = {}
    refused: list[Refused] = []
    for path in bundles:
        name = plain(Path(path).resolve().name)
        try:
            with opened(path) as folder:
                found = examine(folder)
                sha256 = sha256_file(folder / SUMS)
        except (UserError, OSError) as error:
            refused.append(Refused(name, [plain(str(error), LONGEST_FACT)]))
            continue
        if found.refused:
            refused.append(Refused(name, [plain(str(one), LONGEST_FACT) for one in found.refused[:MOST_REASONS]]))
        elif sha256 not in entries:
            entries[sha256] = Entry(f"b{len(entries) + 1}", name, sha256, dict(found.records), len(found.told))
    return list(entries.values()), refused


def render(entries: Sequence[Entry], refused: Sequence[Refused]) -> str:
    """The page of accepted bundles as HTML, which names the refused ones."""
    panels = Panels()
    quality: list[_Line] = []
    speed: list[_Line] = []
    odd: list[str] = []
    for entry in entries:
        source = Source(entry.id, f"bundle {entry.id}: {entry.name}", Path(), committed=True)
        for name, record in entry.records.items():
            if isinstance(record, Record) and record.kind in ("reconstruction", "generation"):
                _add(quality, odd, f"{entry.id}: {name}", _quality, record, name, source, panels)
        _add(speed, odd, f"{entry.id}: its timings", _speeds, entry, source, panels)
    shown = packed(panels.panels)
    return environment().get_template("leaderboard.html.j2").render(
        quality=list(_tables("quality", quality, QUALITY_HEADS)),
        speed=list(_tables("speed", speed, SPEED_HEADS)),
        bundles=_bundles(entries),
        odd=odd,
        refused=refused,
        panels=shown | {"texts": [plain(text, LONGEST_FACT) for text in shown["texts"]]},
    )  # fmt: skip


def _add(lines: list[_Line], odd: list[str], name: str, lines_of: Callable[..., Iterable[_Line]], *of: Any) -> None:
    """Add the lines of a record, or to ``odd`` why it has none: a value may fit its type and make no sense."""
    try:
        lines.extend(list(lines_of(*of)))  # all of them or none
    except (ArithmeticError, LookupError, TypeError, ValueError, ResultsError) as error:
        odd.append(plain(f"{name}: no row can be made of it ({error})", LONGEST_FACT))


def _quality(record: Record, file: str, source: Source, panels: Panels) -> Iterator[_Line]:
    """The line of a record. What a protocol does not fix sets groups apart: images, settings, precision, tiles."""
    subject, data, device = record.subject, record.data, record.provenance.device
    where = device.name if device.kind != "cpu" else f"CPU: {device.name}"
    settings = sorted((key, value) for key, value in record.settings.items() if key != "guidance")
    tiles = record.tiling.model_dump_json() if record.tiling else None
    key = (record.kind, record.protocol, *data.model_dump().values(), *settings, device.precision, tiles, where)
    told = ", ".join(
        [*(f"{name} {value}" for name, value in settings), device.precision, *(["tiles"] if tiles else [])]
    )
    title = f"{record.protocol}: {data.images:,} images of {data.name} at {data.resolution} px ({told}) on {where}"
    of = record.denoiser.row if record.denoiser else subject.autoencoder
    of += f" on {subject.autoencoder}" if record.denoiser else ""
    of += f", {subject.variant.name}" if subject.variant else ""
    weights = subject.weights_source + (f", phase {subject.phase}" if subject.phase is not None else "")
    values: dict[tuple, tuple[float, str]] = {}
    for rank, start in enumerate(QUALITY):
        for name, metric in sorted(record.metrics.items()):
            if name.startswith(start):
                column = (rank, metric.label, metric.better, metric.unit or "", name, metric.weights_sha256 or "")
                ends = f" [{metric.interval.low:.5g}, {metric.interval.high:.5g}]" if metric.interval else ""
                values[column] = (metric.value, f"{metric.value:.5g}{ends}")
    names = (of, weights, record.settings.get("guidance", "-"))
    if values:
        yield _Line(title, key, names, values, panels.add(source, file, record), source.name)


def _speeds(entry: Entry, source: Source, panels: Panels) -> Iterator[_Line]:
    """Lines of timings whose state was good; processes of one measurement are merged as in the table."""
    timings = [record for record in entry.records.values() if isinstance(record, ThroughputRecord)]
    for row in build(timings).rows if timings else ():
        record, found = row.record, row.record.derived
        if found is None or found.gate.state != "good":
            continue
        where, part = hardware(record), f", 1/{record.share} of the batch" if record.share else ""
        model, batch = record.model, named_batch(record)
        named = f", batch {batch}" if batch else ""
        key = (
            record.protocol,
            record.work,
            model.resolution,
            record.mode,
            record.precision,
            batch,
            record.share,
            where,
        )
        how = f"{record.mode}, {record.precision}{part}{named}"
        title = f"{record.protocol}: {record.work} at {model.resolution} px, {how}, on {where}"
        values = {}
        for rank, label, better, estimate in (
            (0, "images/s", "higher", found.images_per_s),
            (1, "J per image", "lower", found.energy_per_image_j),
        ):
            if estimate is not None:
                text = f"{estimate.value:.5g} [{estimate.low:.5g}, {estimate.high:.5g}]"
                values[rank, label, better, "", "", ""] = (estimate.value, text)
        settings = ", ".join(f"{name}: {value}" for name, value in record.settings.items())
        names = (model.name, model.latent_space or "-", str(record.batch), record.environment.torch or "-", settings)
        yield _Line(title, key, names, values, panels.add(source, "", record), entry.id)


def _tables(name: str, lines: Iterable[_Line], heads: Sequence[str]) -> Iterator[ShownTable]:
    """A table for each group of comparable lines, the best first by its first column."""
    groups: dict[tuple, list[_Line]] = {}
    for line in lines:
        groups.setdefault(line.key, []).append(line)
    for number, found in enumerate(sorted(groups.values(), key=lambda one: one[0].title)):
        columns = sorted({column for line in found for column in line.values})
        twice = [column[1] for column in columns]
        shown = [
            f"{label}{f' ({unit})' if unit else ''}{f' [{key} {sha[:8]}]' if twice.count(label) > 1 else ''}"
            f"{ARROWS[better]}"
            for _, label, better, unit, key, sha in columns
        ]
        sign = 1 if columns[0][2] == "lower" else -1
        found.sort(key=lambda line: sign * line.values[columns[0]][0] if columns[0] in line.values else float("inf"))
        rows = [
            Row(
                [
                    *(_cell(text) for text in line.names),
                    _link(line.bundle),
                    *(_value(line.values.get(column)) for column in columns),
                ],
                [line.id],
            )
            for line in found
        ]
        yield ShownTable(f"{name}-{number}", plain(found[0].title, 400), _heads(heads, shown), rows, [])


def _bundles(entries: Sequence[Entry]) -> ShownTable:
    rows = []
    for entry in entries:
        made = [record.provenance for record in entry.records.values()]
        machines = ", ".join(sorted({one.device.machine for one in made}))
        commits = ", ".join(sorted({(one.commit or "none")[:12] for one in made}))
        told = (entry.id, entry.name, entry.sha256[:16], str(len(made)), str(entry.told), machines, commits)
        first = Cell(Markup('<span id="{0}">{0}</span>').format(entry.id), None)
        rows.append(Row([first, *(_cell(text) for text in told[1:])], []))
    heads = ("bundle", "name", "SHA-256 of SHA256SUMS", "records", "timings not accepted", "machines", "commits")
    return ShownTable("bundles-table", "Accepted bundles", _heads(heads, ()), rows, [])


def _heads(names: Sequence[str], values: Sequence[str]) -> list[Head]:
    sides = [
        *((name, "left wide" if name == "settings" else "left") for name in names),
        *((name, "right") for name in values),
    ]
    return [Head(escape(plain(name)), plain(name).strip(" ↑↓"), side) for name, side in sides]


def _cell(text: str) -> Cell:
    """A cell of text from strangers: no mark in it becomes an element."""
    return Cell(escape(plain(text)), None)


def _value(found: tuple[float, str] | None) -> Cell:
    """A cell of a number with its interval; a dash without one."""
    return Cell(escape("-"), None) if found is None else Cell(escape(found[1]), found[0])


def _link(bundle: str) -> Cell:
    return Cell(Markup('<a href="#{0}">{0}</a>').format(bundle), None)


def plain(text: str, longest: int = LONGEST) -> str:
    """One line of printable characters, cut where it is too long."""
    line = re.sub(r"\s+", " ", "".join(sign if sign.isprintable() else " " for sign in text)).strip()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
