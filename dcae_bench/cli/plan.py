"""``dcae-bench plan``: what a profile costs, before anything starts."""

import json
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import ProfileOption, wide_console
from dcae_bench.config import load_profile


def plan(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Targets of the workflow, e.g. results/table_rfid.md; everything of the profile if none."),
    ] = None,
    profile: ProfileOption = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate jobs, hours, memory, disk and downloads of targets; nothing is started."""
    chosen = load_profile(profile)
    console = Console(stderr=True)
    with console.status("counting operations"):
        from dcae_bench.planning.estimate import Estimator
        from dcae_bench.planning.page import render
        from dcae_bench.planning.rates import Rates, reference_records
        from dcae_bench.planning.targets import everything

        estimator = Estimator(chosen, Rates.read(), reference_records())
        estimated = estimator.plan(*(targets or everything(chosen)))
    if as_json:
        typer.echo(json.dumps(estimated.as_json(), indent=2))
    else:
        wide_console().print(render(estimated))
