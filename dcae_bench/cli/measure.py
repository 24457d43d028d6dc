"""``dcae-bench measure``: times networks in one session, or in all sessions of a measurement plan."""

import shlex
from pathlib import Path
from typing import Annotated, get_args

import typer

from dcae_bench.base.errors import CheckError, MeasurementError
from dcae_bench.cli.options import writable_folder


def measure(
    output: Annotated[
        Path, typer.Option(help="Folder for records and traces.", metavar="DIR", callback=writable_folder)
    ],
    plan: Annotated[
        str | None,
        typer.Option(help="Run a measurement plan: cpu, h100-30min or matrix. Skips timings whose records exist."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="paper or tuned on a GPU, cpu anywhere.")] = "cpu",
    denoiser: Annotated[
        str | None, typer.Option(help="uvit-s, uvit-h, uvit-2b, dit-xl, ...; leave out to time an autoencoder.")
    ] = None,
    latent: Annotated[
        list[str] | None,
        typer.Option(help="Latent space, e.g. dc-ae-f64c128-p1; repeatable: several are timed in turn."),
    ] = None,
    work: Annotated[
        str,
        typer.Option(
            help="Denoiser: train, forward, sample or sample_decode. Autoencoder: encode, decode, or phase1, phase2 or "
            "phase3 for a step of that training phase."
        ),
    ] = "forward",
    resolution: Annotated[
        int | None,
        typer.Option(help="Side of the images in px; by default 512, for a training phase the paper's.", min=1),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per iteration; by default the protocol's.", min=1)] = None,
    share: Annotated[
        int | None,
        typer.Option(help="4: a quarter of the protocol's batch, e.g. of the authors' map; without a search.", min=2),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="eager, compile, compile+cudagraph or trt; by default the protocol's.")
    ] = None,
    restart: Annotated[int, typer.Option(help="Number of this restart of the process, from 1.", min=1)] = 1,
    short: Annotated[bool, typer.Option("--short", help="Fewer iterations, for a borrowed GPU.")] = False,
    budget_s: Annotated[float | None, typer.Option(help="Most seconds that a plan may take.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print and check the commands of a plan.")] = False,
) -> None:
    """Time networks with random weights, in one session or by a plan of sessions (docs/measuring.md)."""
    if plan is not None:
        _run_plan(plan, output, budget_s, dry_run)
        return
    from pydantic import TypeAdapter, ValidationError

    from dcae_bench.measurement.record import Work
    from dcae_bench.measurement.workloads.cases import Case, Latent, usual_resolution
    from dcae_bench.measurement.workloads.recipes import Mode, recipe_for, shortened

    recipe = recipe_for(protocol)
    if batch is not None and share is not None:
        raise MeasurementError(f"--share {share}: is a part of the protocol's batch; drop --batch, or --share")
    if not latent:
        raise MeasurementError("--latent: none is given; name a latent space, e.g. dc-ae-f64c128-p1, or a --plan")
    kind: TypeAdapter[Work] = TypeAdapter(Work)
    try:
        timed = kind.validate_python(work)
        side = resolution or usual_resolution(timed)
        cases = tuple(Case(denoiser=denoiser, latent=Latent.parse(one), resolution=side, work=timed) for one in latent)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise MeasurementError(f"--work {work}: {reason}; see `dcae-bench measure --help`") from error
    modes: dict[str, Mode] = {name: name for name in get_args(Mode)}
    if mode is not None and mode not in modes:
        raise MeasurementError(f"--mode {mode}: there is no such mode; see `dcae-bench measure --help`")
    from dcae_bench.measurement import session

    chosen = shortened(recipe) if short else recipe
    timings = session.Session(cases, chosen, output, restart, batch, None if mode is None else modes[mode], share)
    for path in session.measure(timings, lambda text: typer.echo(text, err=True)):
        typer.echo(path)


def _run_plan(name: str, output: Path, budget_s: float | None, dry_run: bool) -> None:
    from dcae_bench.measurement.plans import plan_for, run_plan

    plan = plan_for(name)
    if dry_run:
        from dcae_bench.measurement.workloads.recipes import recipe_for

        for step, restart in plan.sessions():
            batches = [str(step.batch or recipe_for(step.protocol).first_batch(case)[0]) for case in step.cases]
            typer.echo(f"dcae-bench {shlex.join(step.command(output, restart))}  # batch {', '.join(batches)}")
        return
    outcomes = run_plan(plan, output, budget_s=budget_s, say=lambda text: typer.echo(text, err=True))
    failed = [command for command, outcome in outcomes.items() if outcome.startswith("exit code")]
    if failed:
        raise CheckError(
            f"{output}: {len(failed)} of {len(outcomes)} sessions failed ({failed[0]}); see above, run again"
        )
    typer.echo(f"{output}: {sum(one.startswith('measured') for one in outcomes.values())} sessions measured")
