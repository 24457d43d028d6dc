"""``dcae-bench plan``: estimates what a profile costs, before anything starts."""

import json
from typing import Annotated

import typer

from dcae_bench.base.files import REPOSITORY
from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import ProfileOption, wide_console
from dcae_bench.profile.profile import load_profile


def plan(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Targets of the workflow, e.g. results/table_rfid.md; by default everything in the profile."
        ),
    ] = None,
    profile: ProfileOption = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate jobs, hours, memory, disk and downloads of targets. Starts nothing."""
    loaded = load_profile(profile)
    console = Console(stderr=True)
    with console.status("counting operations"):
        from dcae_bench.planning.estimate import Estimator
        from dcae_bench.planning.page import render
        from dcae_bench.planning.rates import Rates, reference_records
        from dcae_bench.planning.targets import all_targets

        estimator = Estimator(loaded, Rates.read(), reference_records())
        estimated = estimator.plan(*(targets or all_targets(loaded)))
    if as_json:
        typer.echo(json.dumps(estimated.as_json(), indent=2))
    else:
        wide_console().print(render(estimated))
    if not (REPOSITORY / "Snakefile").is_file():
        console.print(
            "This is an installed package: snakemake runs these jobs in a checkout of the repository only.",
            soft_wrap=True,
        )
