"""``dcae-bench measure``: times networks in one session, or in all sessions of a measurement plan."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from dcae_bench.base.errors import CheckError, MeasurementError
from dcae_bench.cli.options import writable_folder
from dcae_bench.running.stop import acting

TABLE_S = 15.0
"""Seconds of a plan's budget that are kept for ending a session and for the table."""


def measure(
    output: Annotated[
        Path, typer.Option(help="Folder for records and traces.", metavar="DIR", callback=writable_folder)
    ],
    plan: Annotated[
        str | None,
        typer.Option(
            help="Run a measurement plan: cpu, cpu-rehearsal, h100-15min or matrix. Skips timings whose records exist."
        ),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print a plan's sessions, with their seconds on an H100.")
    ] = False,
    session: Annotated[
        str | None, typer.Option(help="Measure only this session of the plan, in this process; see --dry-run.")
    ] = None,
    compile_ahead: Annotated[
        bool, typer.Option("--compile-ahead", help="Only compile what the plan's sessions need, all at once.")
    ] = False,
    compile_shape: Annotated[int | None, typer.Option(hidden=True, min=0)] = None,
) -> None:
    """Time networks with random weights, in one session or by a plan of sessions (docs/measuring.md)."""
    only_plans = {"--budget-s": budget_s, "--dry-run": dry_run, "--session": session, "--compile-ahead": compile_ahead}
    if plan is None and (odd := next((name for name, given in only_plans.items() if given), None)):
        raise MeasurementError(f"{odd}: is for a plan; add --plan, or drop it")
    named = {"--denoiser": denoiser, "--latent": latent, "--resolution": resolution, "--batch": batch}
    named |= {"--share": share, "--mode": mode, "--short": short}
    if plan is not None and (odd := next((name for name, given in named.items() if given), None)):
        raise MeasurementError(f"{odd}: --plan {plan} says it for each of its sessions; drop one of the two")

    def say(text: str) -> None:
        typer.echo(text, err=True)

    if plan is not None and (compile_ahead or compile_shape is not None):
        _compile(plan, compile_shape, say)
    elif plan is not None and session is not None:
        from dcae_bench.measurement.plan_run import measure_session
        from dcae_bench.measurement.plans import plan_for

        for path in measure_session(plan_for(plan).session(session), output, restart, say):
            typer.echo(path)
    elif plan is not None and dry_run:
        _print_plan(plan, output, budget_s)
    elif plan is not None:
        _run_plan(plan, output, budget_s, say)
    else:
        for path in _measure(
            protocol, denoiser, latent, work, resolution, batch, share, mode, restart, short, output, say
        ):
            typer.echo(path)


def _measure(
    protocol: str,
    denoiser: str | None,
    latent: list[str] | None,
    work: str,
    resolution: int | None,
    batch: int | None,
    share: int | None,
    mode: str | None,
    restart: int,
    short: bool,
    output: Path,
    say: Callable[[str], None],
) -> list[Path]:
    """Measure the one session that the options describe. Returns the records' paths."""
    from pydantic import TypeAdapter, ValidationError

    from dcae_bench.measurement.record import Work
    from dcae_bench.measurement.workloads.cases import Case, Latent, usual_resolution
    from dcae_bench.measurement.workloads.recipes import Mode, recipe_for, with_effort

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
    from dcae_bench.measurement import session as sessions

    chosen = with_effort(recipe, "short" if short else "whole")
    timings = sessions.Session(cases, chosen, output, restart, batch, None if mode is None else modes[mode], share)
    return sessions.measure(timings, say)


def _compile(name: str, shape: int | None, say: Callable[[str], None]) -> None:
    from dcae_bench.measurement.ahead import compile_ahead, compile_numbered
    from dcae_bench.measurement.plans import plan_for

    if shape is not None:
        compile_numbered(plan_for(name), shape)
    else:
        say(f"{compile_ahead(plan_for(name), say)} shapes compiled")


def _print_plan(name: str, output: Path, budget_s: float | None) -> None:
    """Print the sessions with their commands, and what they take on an H100 by the estimate."""
    from dcae_bench.measurement.ahead import shapes
    from dcae_bench.measurement.estimate import ahead_seconds, session_seconds
    from dcae_bench.measurement.plan_run import command
    from dcae_bench.measurement.plans import plan_for

    plan, total, known = plan_for(name), 0.0, True
    waiting = plan.compile_ahead
    for session, restart in plan.runs():
        if waiting and session.compiles:
            waiting = False
            seconds = ahead_seconds([shape.step.work for shape in shapes(plan)])
            total += seconds
            typer.echo(f"compile ahead, about {seconds:.0f} s, {total:.0f} s so far")
        words = shlex.join(command(plan, session, output, restart))
        found = session_seconds(session) if known and restart == 1 else None
        if restart > 1:
            typer.echo(f"dcae-bench {words}")
            continue
        known = found is not None
        if found is None:
            typer.echo(f"dcae-bench {words}  # no estimate: nothing measured on an H100 says how fast it is")
        else:
            total += found.all
            cut = f", beyond the budget of {budget_s:.0f} s" if budget_s is not None and total > budget_s else ""
            said = f"about {found.all:.0f} s, {found.other:.0f} of them no timing; {total:.0f} s so far{cut}"
            typer.echo(f"dcae-bench {words}  # {said}")
        for step in session.steps:
            batches = ", ".join(f"{case.latent.slug} {step.batch_of(case)}" for case in step.cases)
            who = step.denoiser or "autoencoders"
            energy = "every row" if step.energy is None else ", ".join(step.energy) or "none"
            part = f", 1/{step.share} of the protocol's batches" if step.share else ""
            typer.echo(
                f"  {step.protocol} {who} {step.work} {step.side} px, batches: {batches}{part}; {step.effort}; "
                f"energy: {energy}"
            )
    if known:
        typer.echo(f"{plan.name}: about {total:.0f} s on one H100 for each session once")


def _run_plan(name: str, output: Path, budget_s: float | None, say: Callable[[str], None]) -> None:
    """Run a plan. At its end, also after a cut or a stop, write and print the table of what is there."""
    from dcae_bench.measurement.plan_run import run_plan
    from dcae_bench.measurement.plans import plan_for

    plan = plan_for(name)
    if budget_s is not None:
        budget_s -= min(TABLE_S, budget_s / 4)
    try:
        outcomes = run_plan(plan, output, budget_s=budget_s, say=say)
    finally:
        with acting(lambda _number: None):  # the table takes a second
            _print_table(output)
    failed = [session for session, outcome in outcomes.items() if outcome.startswith("exit code")]
    if failed:
        raise CheckError(
            f"{output}: {len(failed)} of {len(outcomes)} sessions failed ({failed[0]}); see above, run again"
        )
    typer.echo(f"{output}: {sum(one.startswith('measured') for one in outcomes.values())} sessions measured")


def _print_table(output: Path) -> None:
    """Write the table of the records in a folder beside them and print it; nothing without records."""
    from dcae_bench.tables.throughput.build import build, find_records, planned_timings
    from dcae_bench.tables.throughput.files import write

    if not any(output.glob("*.r[0-9]*.json")):
        typer.echo(f"{output}: no timing is there, so no table", err=True)
        return
    path = output / "table_throughput.md"
    write(build(find_records([output]), planned=planned_timings([output])), path)
    typer.echo(path.read_text())
    typer.echo(f"{path}: written", err=True)
