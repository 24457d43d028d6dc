"""``dcae-bench report``: writes everything that was measured as one page."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import writable_file


def report(
    output: Annotated[Path, typer.Option(help="HTML file.", metavar="FILE", callback=writable_file)] = Path(
        "results/report.html"
    ),
    results: Annotated[
        Path,
        typer.Option(
            help="Folder of the tables of a run, with timings in throughput/ and evidence in reference/.", metavar="DIR"
        ),
    ] = Path("results"),
) -> None:
    """Write one page in HTML of all tables, with charts, images, records and provenance.

    The page holds what lies in the folder: nothing is measured or trained. It is one file that needs no network.
    """
    from dcae_bench.report.page import write_report
    from dcae_bench.tables.summary import summary

    size = write_report(results, output)
    # The most telling number of each table, which stands between the first and the last line about it.
    numbers = [line for table in sorted(results.glob("table_*.json")) for line in summary(table)[1:-1][:1]]
    typer.echo("\n".join([*numbers, f"{output}: {size / 1e6:.1f} MB; open it in a browser"]))
