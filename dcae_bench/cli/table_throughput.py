"""``dcae-bench table-throughput``: writes the throughput table and its figure from records of timings."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import writable_file


def table_throughput(
    records: Annotated[list[Path], typer.Argument(help="Records of timings, or folders that hold such records.")],
    output: Annotated[
        Path,
        typer.Option(
            help="Markdown file; .csv and .json are written beside it.", metavar="FILE", callback=writable_file
        ),
    ],
    figure: Annotated[
        Path | None,
        typer.Option(help="PNG file for the figure; by default none.", metavar="FILE", callback=writable_file),
    ] = None,
    degraded: Annotated[
        bool, typer.Option("--degraded", help="Also show measurements of a device in a degraded state.")
    ] = False,
) -> None:
    """Write the throughput table (the paper's Table 3): measured values beside the paper's."""
    from dcae_bench.records.fingerprint import fingerprint
    from dcae_bench.tables.summary import summary
    from dcae_bench.tables.throughput.build import MEASURES, build, find_records, planned_timings
    from dcae_bench.tables.throughput.files import write

    planned, code = planned_timings(records), fingerprint(MEASURES)
    table = build(find_records(records), degraded=degraded, planned=planned, code=code)
    write(table, output)
    if figure is not None:
        from dcae_bench.tables.throughput.figure import throughput_figure

        throughput_figure(table, figure)
    typer.echo("\n".join(summary(output)))
