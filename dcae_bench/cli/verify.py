"""``dcae-bench verify``: checks a folder of evidence."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.errors import CheckError


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of evidence.", metavar="DIR")],
    seal: Annotated[bool, typer.Option("--seal", help="Write the list of hashes first; it must not be there.")] = False,
) -> None:
    """Check every hash of a folder of evidence, derive the numbers of its timings anew, and build its table again."""
    from dcae_bench.measurement import evidence
    from dcae_bench.tables.throughput_evidence import check_table

    if seal:
        evidence.seal(folder)
    found = evidence.verify(folder)
    problems = [*found.problems, *check_table(folder)]
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise CheckError(
            f"{folder}: {len(problems)} problems in {found.files} files; restore the files or measure again"
        )
    typer.echo(f"{folder}: {found.files} files have their hashes, {found.records} timings follow from their samples")
