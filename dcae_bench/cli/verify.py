"""``dcae-bench verify``: checks a folder of evidence."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import CheckError
from dcae_bench.base.terminal import printable


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of evidence.", metavar="DIR")],
    seal: Annotated[bool, typer.Option("--seal", help="First write the list of hashes, which must not exist.")] = False,
) -> None:
    """Check a folder of evidence: compare all hashes, recompute the numbers of its timings, and rebuild its tables."""
    from dcae_bench.measurement import evidence
    from dcae_bench.tables.rebuild import check_tables, count_tables
    from dcae_bench.tables.throughput.evidence import check_table

    if seal:
        evidence.seal(folder)
    found = evidence.verify(folder)
    problems = [*found.problems, *check_table(folder), *check_tables(folder)]
    for problem in problems:
        typer.echo(printable(problem))
    if problems:
        raise CheckError(
            f"{folder}: {len(problems)} problems in {found.files} files; restore the files or measure again"
        )
    typer.echo(
        f"{folder}: {found.files} files have their hashes, {found.records} timings follow from their samples, "
        f"{count_tables(folder)} tables of records from their records"
    )
