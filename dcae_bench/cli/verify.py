"""``dcae-bench verify``: checks a folder of evidence."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.errors import CheckError


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of evidence.", metavar="DIR")],
    seal: Annotated[bool, typer.Option("--seal", help="Write the list of hashes first; it must not be there.")] = False,
) -> None:
    """Check every hash of a folder of evidence, and derive the numbers of its timings anew from their samples."""
    from dcae_bench.measurement import evidence

    if seal:
        evidence.seal(folder)
    found = evidence.verify(folder)
    for problem in found.problems:
        typer.echo(problem)
    if found.problems:
        raise CheckError(
            f"{folder}: {len(found.problems)} problems in {found.files} files; restore the files or measure again"
        )
    typer.echo(f"{folder}: {found.files} files have their hashes, {found.records} timings follow from their samples")
