"""``dcae-bench table-throughput``: writes the throughput table, and its figure, from records of timings."""

from pathlib import Path
from typing import Annotated

import typer


def table_throughput(
    records: Annotated[list[Path], typer.Argument(help="Records of timings, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Markdown file; .csv and .json are written beside it.", metavar="FILE")],
    figure: Annotated[Path | None, typer.Option(help="PNG file of the figure.", metavar="FILE")] = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="Show measurements in a degraded state too.")] = False,
) -> None:
    """Write the throughput table (the paper's Table 3): what was timed here beside what the paper reports."""
    from dcae_bench.tables.throughput import build, find_records
    from dcae_bench.tables.throughput_page import write

    table = build(find_records(records), degraded=degraded)
    write(table, output)
    if figure is not None:
        from dcae_bench.tables.throughput_figure import throughput_figure

        throughput_figure(table, figure)
