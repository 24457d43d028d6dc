"""``dcae-bench evidence``: makes a sealed folder of a finished measurement."""

from pathlib import Path
from typing import Annotated

import typer


def evidence(
    measured: Annotated[Path, typer.Argument(help="Folder that `measure` wrote.", metavar="DIR")],
    root: Annotated[Path, typer.Option(help="Where <device>-<date> is made.", metavar="DIR")] = Path(
        "results/reference"
    ),
) -> None:
    """Copy records, traces and environment to a folder of evidence, with its table and the hash of every file."""
    from dcae_bench.tables.throughput_evidence import bundle

    typer.echo(bundle(measured, root))
