"""``dcae-bench check``: compares a record with the values that the authors measured with the same weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dcae_bench.base.errors import CheckError
from dcae_bench.base.files import write_text
from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import writable_file
from dcae_bench.records.record import load


def check(
    record: Annotated[
        Path, typer.Argument(help="Record (JSON) of a reconstruction or of samples.", metavar="RESULT.json")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file to write if the record agrees.", metavar="FILE", callback=writable_file),
    ] = None,
) -> None:
    """Compare a record with its expected values (baselines/reported/expected.yaml); exit with 2 if one deviates."""
    from dcae_bench.tables.reported.expected import compare_with_expectation, find_expectation, load_expected

    measured = load(record)
    expectation = find_expectation(measured, load_expected())
    comparisons = compare_with_expectation(measured, expectation)
    table = Table("metric", "measured", "expected", "tolerance", "", title=expectation.label)
    for row in comparisons:
        numbers = (f"{row.measured:.5f}", f"{row.expected:.5f}", f"{row.tolerance:g}")
        table.add_row(row.label, *numbers, "agrees" if row.holds else "deviates")
    Console(stderr=True).print(table)
    if wrong := [row for row in comparisons if not row.holds]:
        shown = ", ".join(f"{row.label} {row.measured:.5f} instead of {row.expected:.5f}" for row in wrong)
        raise CheckError(
            f"{record}: deviates from {expectation.source}: {shown}; check weights, data, crop and library versions"
        )
    if output is not None:
        content = {
            "record": measured.key,
            "expectation": expectation.model_dump(mode="json"),
            "comparisons": [asdict(row) for row in comparisons],
        }
        write_text(output, json.dumps(content, indent=2) + "\n")
