"""Printed cells in HTML: the few marks that tables print become elements, everything else is escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dcae_bench.tables.markdown import MINUS, Grid, one_line
from dcae_bench.tables.reported.verdict import Verdict

_STRONG = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")
_SUP = re.compile(r"<sup>([0-9]+(?:,[0-9]+)*)</sup>")
_MARK = re.compile(r"&lt;sup&gt;([0-9]+(?:,[0-9]+)*)&lt;/sup&gt;")
_VERDICT = re.compile(rf"(?<![a-z_`])({'|'.join(sorted(Verdict, key=len, reverse=True))})(?![a-z_`])")
_NUMBER = re.compile(rf"^[\s(*x]*([-+{MINUS}]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?)(?: ([MG])(?![a-z]))?")
_SCALE = {None: 1.0, "M": 1e6, "G": 1e9}

VERDICTS = {
    Verdict.MATCH: ("match", "="),
    Verdict.WITHIN_NOISE: ("within noise", "≈"),
    Verdict.BETTER: ("better", "▲"),
    Verdict.DEVIATES: ("deviates", "▼"),
    Verdict.NOT_COMPARABLE: ("not comparable", "≁"),
    Verdict.NOT_RUN: ("not run", "○"),
}
"""Words and sign of each verdict. Sign and words tell verdicts apart without colour."""
LONG = 30
"""Characters of a text that may break into lines."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table in HTML."""

    html: Markup
    number: float | None
    """Value to sort by; None sorts by the text."""


@dataclass(frozen=True)
class Head:
    """One column's head."""

    html: Markup
    label: str
    """Plain text, without arrows and notes: the label of a metric where the column holds one."""
    side: str
    """left or right; left wide for a column of long texts, which may break into lines."""


@dataclass(frozen=True)
class Row:
    """One row, with the ids of the records behind it."""

    cells: Sequence[Cell]
    records: Sequence[str]


@dataclass(frozen=True)
class ShownTable:
    """A table as the page shows it. Its name sets its footnotes apart from those of other tables."""

    name: str
    title: str
    heads: Sequence[Head]
    rows: Sequence[Row]
    notes: Sequence[tuple[int, str]]
    """Numbered footnotes that its cells mark."""
    before: str = ""
    after: str = ""


def show(
    name: str, title: str, grid: Grid, ids: Sequence[Sequence[str]] = (), *, before: str = "", after: str = ""
) -> ShownTable:
    """A table of printed cells for the page. ``ids`` are the records behind each row."""
    sides = [{"l": "left", "r": "right"}[letter] for letter in grid.align]
    longest = [max((len(_SUP.sub("", row[i])) for row in grid.rows), default=0) for i in range(len(sides))]
    heads = [
        _head(name, text, f"{side} wide" if side == "left" and length > LONG else side)
        for text, side, length in zip(grid.headers, sides, longest, strict=True)
    ]
    behind = ids or [()] * len(grid.rows)
    rows = [
        Row([_cell(name, text, side) for text, side in zip(row, sides, strict=True)], found)
        for row, found in zip(grid.rows, behind, strict=True)
    ]
    return ShownTable(name, title, heads, rows, _used(grid), before, after)


def _used(grid: Grid) -> list[tuple[int, str]]:
    """The notes that a grid marks, with their numbers; the grids of one page may share their footnotes."""
    texts = [text for row in (grid.headers, *grid.rows) for text in row]
    marked = {int(number) for text in texts for found in _SUP.findall(text) for number in found.split(",")}
    return [(number, one_line(note)) for number, note in enumerate(grid.footnotes.notes, start=1) if number in marked]


def prose(text: str) -> Markup:
    """A line of text in HTML: code and emphasis are marked."""
    return Markup(_STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", str(escape(one_line(text))))))


def chip(verdict: Verdict) -> Markup:
    """A verdict with its sign, in words."""
    words, sign = VERDICTS[verdict]
    return Markup('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>').format(verdict, sign, words)


def _head(name: str, text: str, side: str) -> Head:
    label = _SUP.sub("", one_line(text)).strip(" ↑↓").strip()
    return Head(_html(name, text), label, side)


def _cell(name: str, text: str, side: str) -> Cell:
    return Cell(_html(name, text), _number(text) if side == "right" else None)


def _html(name: str, text: str) -> Markup:
    """Escaped first, so that only our own marks become elements."""
    html = _STRONG.sub(r"<strong>\1</strong>", str(escape(one_line(text))))
    html = _VERDICT.sub(lambda found: str(chip(Verdict(found[1]))), html) if _is_verdict(text) else html
    return Markup(_MARK.sub(lambda found: _marks(name, found[1]), html))


def _is_verdict(text: str) -> bool:
    """Whether a cell holds verdicts: they stand alone, or behind a source or a metric. Names of models do not."""
    plain = _SUP.sub("", text)
    parts = [part.split(": ")[-1].split(" ")[-1].strip("* ") for part in re.split(r"; |, ", plain)]
    return _number(plain) is None and all(part in set(Verdict) for part in parts)


def _marks(name: str, numbers: str) -> str:
    links = ",".join(
        f'<a class="note" role="doc-noteref" href="#{name}-n{number}">{number}</a>' for number in numbers.split(",")
    )
    return f"<sup>{links}</sup>"


def _number(text: str) -> float | None:
    """The number that a cell begins with, in its plain unit; None if it begins with none."""
    if (found := _NUMBER.match(text)) is None:
        return None
    return float(found[1].replace(",", "").replace(MINUS, "-")) * _SCALE[found[2]]
