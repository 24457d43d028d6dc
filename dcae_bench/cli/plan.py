"""``dcae-bench plan``: estimates what a profile costs, before anything starts."""

import json
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import ProfileOption, wide_console
from dcae_bench.profile.profile import Profile, load_profile


def plan(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Targets of the workflow, e.g. results/table_rfid.md; by default everything in the profile."
        ),
    ] = None,
    profile: ProfileOption = "demo",
    gpus: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Simulate the jobs on this many GPUs; repeatable. For a profile that uses GPUs."),
    ] = None,
    cores: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Simulate the jobs on this many cores; repeatable. For a profile with device: cpu."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate jobs, hours, memory, disk and downloads of targets, and their schedule. Starts nothing."""
    loaded = load_profile(profile)
    _require_fitting(loaded, gpus, cores)
    console = Console(stderr=True)
    with console.status("counting operations"):
        from dcae_bench.planning.estimate import Estimator
        from dcae_bench.planning.jobs import job_graph
        from dcae_bench.planning.page import render
        from dcae_bench.planning.rates import Rates, reference_records
        from dcae_bench.planning.schedule_page import render_schedules, schedules_as_json
        from dcae_bench.planning.targets import all_targets

        estimator = Estimator(loaded, Rates.read(), reference_records())
        wanted = targets or all_targets(loaded)
        estimated = estimator.plan(*wanted)
        graph = job_graph(estimator, *wanted) if gpus or cores else None
    simulated = [graph.schedule("gpus" if gpus else "cores", one) for one in gpus or cores or ()] if graph else []
    if as_json:
        more = schedules_as_json(graph, simulated) if graph else {}
        typer.echo(json.dumps({**estimated.as_json(), **more}, indent=2))
    else:
        wide_console().print(render(estimated))
        if graph:
            wide_console().print(render_schedules(graph, simulated))
    if not (REPOSITORY / "Snakefile").is_file():
        console.print(
            "This is an installed package: snakemake runs these jobs in a checkout of the repository only.",
            soft_wrap=True,
        )


def _require_fitting(profile: Profile, gpus: list[int] | None, cores: list[int] | None) -> None:
    """Refuse a schedule that the profile cannot have. Raises :class:`ConfigError`."""
    if cores and profile.device != "cpu":
        raise ConfigError(f"--cores {cores[0]}: the jobs of profile {profile.name} use GPUs; give --gpus")
    if not gpus:
        return
    if profile.device == "cpu":
        raise ConfigError(f"--gpus {gpus[0]}: profile {profile.name} has 'device: cpu'; give --cores")
    if min(gpus) < profile.world:
        raise ConfigError(
            f"--gpus {min(gpus)}: a job of profile {profile.name} takes {profile.world} GPUs ('processes', 'nodes'); "
            "give as many"
        )
