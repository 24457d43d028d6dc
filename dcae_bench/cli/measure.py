"""``dcae-bench measure``: times networks, one session or a whole plan."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.errors import CheckError, MeasurementError


def measure(
    output: Annotated[Path, typer.Option(help="Folder of the records and traces.", metavar="DIR")],
    plan: Annotated[
        str | None, typer.Option(help="Run a whole plan: cpu, h100-30min or matrix. What is there is kept.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="paper or tuned on a GPU, cpu anywhere.")] = "cpu",
    denoiser: Annotated[
        str | None, typer.Option(help="uvit-s, uvit-h, uvit-2b, dit-xl, ...; none for an autoencoder's own work.")
    ] = None,
    latent: Annotated[
        list[str] | None, typer.Option(help="Latent space, e.g. dc-ae-f64c128-p1; several are timed in turn.")
    ] = None,
    work: Annotated[
        str,
        typer.Option(
            help="train, forward, sample or sample_decode of a denoiser; encode, decode, phase1, phase2 or phase3 (a "
            "step of that training phase) of an autoencoder."
        ),
    ] = "forward",
    resolution: Annotated[
        int | None,
        typer.Option(help="Side of the images, px; by default 512, in a training phase the paper's.", min=1),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per iteration, instead of the protocol's.", min=1)] = None,
    mode: Annotated[
        str | None, typer.Option(help="eager, compile, compile+cudagraph or trt; else the protocol's.")
    ] = None,
    restart: Annotated[int, typer.Option(help="Number of this process among its restarts.", min=1)] = 1,
    short: Annotated[bool, typer.Option("--short", help="Fewer iterations, for a borrowed GPU.")] = False,
    budget_s: Annotated[float | None, typer.Option(help="Seconds that a plan may take.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands of a plan, and check them.")] = False,
) -> None:
    """Time networks with random weights: a session of cases in turn, or a plan of sessions (docs/measuring.md)."""
    if plan is not None:
        _plan(plan, output, budget_s, dry_run)
        return
    from pydantic import ValidationError

    from dcae_bench.measurement.cases import Case, Latent, usual_resolution
    from dcae_bench.measurement.recipes import recipe_for, shortened

    recipe = recipe_for(protocol)
    if not latent:
        raise MeasurementError("--latent: none is given; name a latent space, e.g. dc-ae-f64c128-p1, or a --plan")
    side = resolution or usual_resolution(work)
    try:
        cases = tuple(Case(denoiser=denoiser, latent=Latent.parse(one), resolution=side, work=work) for one in latent)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise MeasurementError(f"--work {work}: {reason}; see `dcae-bench measure --help`") from error
    if mode not in (None, "eager", "compile", "compile+cudagraph", "trt"):
        raise MeasurementError(f"--mode {mode}: there is no such mode; see `dcae-bench measure --help`")
    from dcae_bench.measurement import session

    one = session.Session(cases, shortened(recipe) if short else recipe, output, restart, batch, mode)
    for path in session.measure(one, lambda text: typer.echo(text, err=True)):
        typer.echo(path)


def _plan(name: str, output: Path, budget_s: float | None, dry_run: bool) -> None:
    from dcae_bench.measurement.plans import plan_for, run_plan

    plan = plan_for(name)
    if dry_run:
        from dcae_bench.measurement.recipes import recipe_for

        for step, restart in plan.jobs():
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
