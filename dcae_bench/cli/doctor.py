"""``dcae-bench doctor``: tells how far measurements on this machine can be trusted."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dcae_bench.cli.options import wide_console

STYLES = {"good": "green", "note": "yellow", "limits": "red", "yes": "green", "limited": "yellow", "no": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    probe: Annotated[
        Path | None,
        typer.Option(help="Only write NVML's answers for the GPU to FILE; takes half a minute.", metavar="FILE"),
    ] = None,
) -> None:
    """Tell how far a time or an energy measured on this machine now can be trusted. Changes nothing."""
    if probe is not None:
        from dcae_bench.measurement.session import probe_gpu

        probe_gpu(probe, lambda text: typer.echo(text, err=True))
        return
    from dcae_bench.measurement.instruments.doctor import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
        return
    machine = Table("what", "found", "", "what it means", title="This machine")
    for finding in found.findings:
        machine.add_row(finding.topic, finding.found, Text(finding.verdict, STYLES[finding.verdict]), finding.meaning)
    worth = Table("number", "worth it", "why", title="What a measurement here would be worth")
    for judged in found.worth:
        worth.add_row(judged.number, Text(judged.worth, STYLES[judged.worth]), judged.why)
    wide_console().print(Group(machine, worth))
