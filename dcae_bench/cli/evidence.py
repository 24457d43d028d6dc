"""``dcae-bench evidence``: copies a finished measurement into a sealed folder."""

from pathlib import Path
from typing import Annotated

import typer


def evidence(
    measured: Annotated[Path, typer.Argument(help="Folder that `measure` wrote.", metavar="DIR")],
    root: Annotated[Path, typer.Option(help="Folder in which <device>-<date> is created.", metavar="DIR")] = Path(
        "results/reference"
    ),
) -> None:
    """Copy records, traces and environment into a folder of evidence; add table, figure and the hash of every file."""
    from dcae_bench.tables.bundle.write import write_evidence

    typer.echo(write_evidence(measured, root))
