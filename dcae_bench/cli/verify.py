"""``dcae-bench verify``: checks a bundle or a folder of evidence."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import CheckError
from dcae_bench.base.terminal import printable


def verify(
    path: Annotated[Path, typer.Argument(help="Bundle (folder or zip) or folder of evidence.", metavar="BUNDLE")],
    seal: Annotated[bool, typer.Option("--seal", help="First write the list of hashes, which must not exist.")] = False,
) -> None:
    """Check a bundle: compare all hashes, recompute the numbers of its timings, and rebuild its tables.

    Says in one line each why something is not accepted. Timings of a disturbed machine are told and refuse nothing.
    """
    from dcae_bench.tables.bundle.manifest import MANIFEST
    from dcae_bench.tables.bundle.opened import opened

    if seal:
        from dcae_bench.measurement import evidence

        evidence.seal(path)
    with opened(path) as folder:
        said = _bundle(path, folder) if path.is_file() or (folder / MANIFEST).exists() else _evidence(folder)
    typer.echo(printable(said))


def _bundle(path: Path, folder: Path) -> str:
    """Say what is wrong with a bundle, and return what is right with it. Raises :class:`CheckError`."""
    from dcae_bench.tables.bundle.accept import examine

    found = examine(folder)
    for problem in (*found.refused, *found.told):
        typer.echo(printable(str(problem)))
    if found.refused:
        raise CheckError(f"{path}: is not accepted, for {len(found.refused)} reasons; ask its makers for another one")
    return (
        f"{path}: accepted; {found.files} files, {len(found.records)} records name their protocol and code, "
        f"{found.tables} tables follow from them, {len(found.told)} timings are accepted nowhere"
    )


def _evidence(folder: Path) -> str:
    """Say what is wrong with evidence from before bundles, and return what is right. Raises :class:`CheckError`."""
    from dcae_bench.measurement import evidence
    from dcae_bench.tables.rebuild import check_tables, count_tables
    from dcae_bench.tables.throughput.evidence import check_table

    found = evidence.verify(folder)
    problems = [*found.problems, *check_table(folder), *check_tables(folder)]
    for problem in problems:
        typer.echo(printable(problem))
    if problems:
        raise CheckError(
            f"{folder}: {len(problems)} problems in {found.files} files; restore the files or measure again"
        )
    return (
        f"{folder}: {found.files} files have their hashes, {found.records} timings follow from their samples, "
        f"{count_tables(folder)} tables of records from their records"
    )
