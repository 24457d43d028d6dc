"""``dcae-bench show``: prints a record readably."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.records import load


def show(record: Annotated[Path, typer.Argument(help="Record (JSON).", metavar="RESULT.json")]) -> None:
    """Print a record: what was measured, on what, by what, and the numbers."""
    from dcae_bench.tables.show import render

    Console().print(render(load(record)))
