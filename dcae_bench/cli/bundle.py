"""``dcae-bench bundle``: seals everything that was measured in one folder or zip."""

from pathlib import Path
from typing import Annotated

import typer


def bundle(
    results: Annotated[
        Path, typer.Argument(help="Folder of results, as `results`, or that `measure` wrote.", metavar="DIR")
    ],
    output: Annotated[Path, typer.Option(help="New folder, or a new file that ends in .zip.", metavar="PATH")] = Path(
        "results/bundles/bundle.zip"
    ),
) -> None:
    """Copy records, traces, environment, tables and figures into one sealed folder or zip, which `verify` accepts.

    Tables of timings are made anew. docs/bundle.md describes the format.
    """
    from dcae_bench.tables.bundle.write import write_bundle

    made = write_bundle(results, output)
    typer.echo(f"{made}: check it with `dcae-bench verify {made}`")
