"""``dcae-bench show``: prints a record readably, or the three most telling numbers of a table."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.reading import read_json
from dcae_bench.base.terminal import Console
from dcae_bench.records.score import load_any


def show(record: Annotated[Path, typer.Argument(help="Record or table (JSON).", metavar="RESULT.json")]) -> None:
    """Print a record: what was measured, the data, the protocol, the numbers and their provenance.

    Of a table: what it holds, its three most telling numbers, and what to open.
    """
    if _is_table(record):
        from dcae_bench.tables.summary import summary

        typer.echo("\n".join(summary(record)))
        return
    from dcae_bench.tables.show import render

    Console().print(render(load_any(record)))


def _is_table(path: Path) -> bool:
    from dcae_bench.tables.summary import is_table

    try:
        return is_table(read_json(path))
    except (OSError, ValueError):  # reading it as a record says what is wrong
        return False
