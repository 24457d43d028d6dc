"""Markdown of all tables: grids of cells, footnotes and printed numbers."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from dcae_bench.records.record import Metric

ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
_TAG = re.compile(r"<(?!sup>[0-9,]+</sup>|/sup>)")
_LINK = re.compile(r"\]\(")
MINUS = "\N{MINUS SIGN}"
MOST_DECIMALS = 7
"""Largest number of decimals that a column prints."""


class Footnotes:
    """The numbered footnotes of one table; equal notes share a number."""

    def __init__(self) -> None:
        self._notes: list[str] = []

    def mark(self, notes: Iterable[str]) -> str:
        """Superscript numbers of ``notes``; empty without notes."""
        numbers = set()
        for note in notes:
            if note not in self._notes:
                self._notes.append(note)
            numbers.add(self._notes.index(note) + 1)
        return f"<sup>{','.join(map(str, sorted(numbers)))}</sup>" if numbers else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes in the order of their numbers, which begin at 1."""
        return tuple(self._notes)

    def text(self) -> str:
        """All notes, one a line, as they stand below the table."""
        return "".join(f"<sup>{number}</sup> {one_line(note)}  \n" for number, note in enumerate(self._notes, start=1))


@dataclass(frozen=True)
class Grid:
    """The printed cells of one table, from which its page in Markdown and the report are made."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    """A letter for each column: ``l`` for left, ``r`` for right."""
    footnotes: Footnotes
    """Notes that the cells mark; the tables of one page may share them."""
    records: Sequence[Sequence[str]] = ()
    """Paths of the records behind each row, as tables print them; empty if no row has one."""

    def text(self) -> str:
        """The table in Markdown, without its footnotes."""
        return grid(self.headers, self.rows, self.align)

    def with_notes(self) -> str:
        """The table in Markdown with its footnotes below."""
        return join(self.text(), self.footnotes.text())


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A GitHub table of printed cells; pipes in the cells are escaped, and a cell is one line.

    ``align`` has a letter for each column: ``l`` for left, ``r`` for right.
    """
    escaped = [[one_line(cell).replace("|", "\\|") for cell in row] for row in [headers, *rows]]
    sides = [{"l": "left", "r": "right"}[letter] for letter in align]
    return tabulate(escaped[1:], headers=escaped[0], tablefmt="pipe", colalign=sides, disable_numparse=True) + "\n"


def decimals(key: str, values: Sequence[float]) -> int:
    """Decimals of a metric's column: the usual number for PSNR, SSIM and LPIPS, else enough for the smallest value."""
    for prefix, habit in (("psnr", 2), ("ssim", 3), ("lpips", 3)):
        if key.startswith(prefix):
            return habit
    smallest = min((abs(value) for value in values if value), default=1.0)
    if smallest >= 0.01:
        return 1 if smallest >= 100 else 2 if smallest >= 1 else 3 if smallest >= 0.1 else 4
    return min(2 - math.floor(math.log10(smallest)), MOST_DECIMALS)


def number(value: float | None, places: int, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals; ``-`` for None. ``signed`` prints a plus or a true minus sign."""
    if value is None:
        return "-"
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.replace("-", MINUS) if signed else text


def spread(metric: Metric | None, places: int) -> str:
    """A metric's interval, printed after its value: the half-width, or both ends if the interval is not symmetric."""
    interval = metric.interval if metric else None
    if metric is None or interval is None:
        return ""
    half = interval.half_width
    if abs((interval.low + interval.high) / 2 - metric.value) > half / 10:
        return f" [{interval.low:.{places}f}, {interval.high:.{places}f}]"
    return f" ± {half:.{places}f}" if half == 0 or half >= 0.5 * 10**-places else f" ± {half:.1g}"


def millions(count: int) -> str:
    """A number of parameters in millions with three digits, e.g. 2.34 M."""
    value = count / 1e6
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} M"


def bullets(lines: Iterable[str]) -> str:
    """A list of lines."""
    return "".join(f"- {one_line(line)}\n" for line in lines)


def one_line(text: str) -> str:
    """Text without line breaks: a name from a record may hold one, which would end a row of a table."""
    return " ".join(text.splitlines())


def harmless(page: str) -> str:
    """A page whose names and notes hold neither HTML nor links; only our marks of footnotes remain."""
    return _LINK.sub(r"]\\(", _TAG.sub("&lt;", page))


def join(*blocks: str) -> str:
    """The blocks of a page below each other; empty blocks are left out."""
    return "\n".join(block for block in blocks if block)
