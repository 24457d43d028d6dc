"""``dcae-bench show``: prints a record readably."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import Console
from dcae_bench.records.score import load_any


def show(record: Annotated[Path, typer.Argument(help="Record (JSON).", metavar="RESULT.json")]) -> None:
    """Print a record: what was measured, the data, the protocol, the numbers and their provenance."""
    from dcae_bench.tables.show import render

    Console().print(render(load_any(record)))
