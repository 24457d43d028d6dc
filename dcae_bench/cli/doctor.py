"""``dcae-bench doctor``: what a measurement on this machine would and would not be worth."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table

from dcae_bench.cli.options import wide_console

STYLES = {"good": "green", "note": "yellow", "limits": "red", "yes": "green", "limited": "yellow", "no": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    probe: Annotated[
        Path | None,
        typer.Option(help="Write what NVML answers on the GPU, half a minute.", metavar="FILE"),
    ] = None,
) -> None:
    """Tell what a timing or an energy measured on this machine now would be worth; nothing is changed."""
    if probe is not None:
        from dcae_bench.measurement.session import probe_gpu

        probe_gpu(probe, lambda text: typer.echo(text, err=True))
        return
    from dcae_bench.measurement.doctor import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
        return
    machine = Table("what", "found", "", "what it means", title="This machine")
    for one in found.findings:
        machine.add_row(one.topic, one.found, f"[{STYLES[one.verdict]}]{one.verdict}[/]", one.meaning)
    worth = Table("number", "worth it", "why", title="What a measurement here would be worth")
    for one in found.worth:
        worth.add_row(one.number, f"[{STYLES[one.worth]}]{one.worth}[/]", one.why)
    wide_console().print(Group(machine, worth))
