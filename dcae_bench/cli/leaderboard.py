"""``dcae-bench leaderboard``: compares the results of many bundles on one page."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import printable


def leaderboard(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, as folders or zips.", metavar="BUNDLE...")],
    output: Annotated[Path, typer.Option(help="Folder for index.html.", metavar="DIR")],
) -> None:
    """Write one page in HTML of the results of many bundles, grouped by protocol and hardware.

    Bundles that `verify` refuses are named with the reasons; none of their numbers stands on the page.
    """
    from dcae_bench.report.leaderboard import write_leaderboard

    accepted, refused = write_leaderboard(bundles, output)
    for one in refused:
        typer.echo(printable(f"{one.name} is left out: {one.reasons[0]} ({len(one.reasons)} reasons)"))
    typer.echo(f"{output / 'index.html'}: {accepted} of {accepted + len(refused)} bundles; open it in a browser")
