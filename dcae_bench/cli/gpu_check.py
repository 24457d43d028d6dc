"""``dcae-bench gpu-check``: tries on a GPU, at tiny size, what tests cannot try without one."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import write_text
from dcae_bench.cli.options import writable_file

SKIPPED = 77
"""Exit code where there is no CUDA device, as automake and meson use it for a test that is skipped."""


def gpu_check(
    output: Annotated[
        Path | None, typer.Option(help="File for a summary (JSON).", metavar="FILE", callback=writable_file)
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu: a rehearsal without a GPU.", metavar="cuda|cpu")] = "cuda",
    budget_s: Annotated[
        float, typer.Option("--budget-s", help="Seconds after which no further check begins.", min=1)
    ] = 180.0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only checks whose name holds this text; repeatable.", metavar="TEXT"),
    ] = None,
) -> None:
    """Try timed work, CUDA graphs, memory, NVML, results beside the CPU, training and NCCL on this machine's GPU.

    Prints one line for each check: ok, failed or skipped, with its seconds and what it found. Exits with 0 if nothing
    failed, with 1 if something did, and with 77 if there is no CUDA device.
    """
    if device not in ("cuda", "cpu"):
        raise ConfigError(f"--device {device}: is neither cuda nor cpu")
    from dcae_bench.gpu_check.catalogue import all_checks
    from dcae_bench.gpu_check.runner import run_checks
    from dcae_bench.gpu_check.summary import device_name, summary_of
    from dcae_bench.running.gpus import leased_gpu, usable_gpus

    checks = [check for check in all_checks() if not only or any(text in check.name for text in only)]
    if not checks:
        raise ConfigError(f"--only {', '.join(only or ())}: no check has such a name; leave it out to see all names")
    name = device_name(device)
    if name is None:
        typer.echo("skipped, no CUDA device")
        raise typer.Exit(SKIPPED)
    kind: Literal["cuda", "cpu"] = "cuda" if device == "cuda" else "cpu"
    typer.echo(f"{kind}: {name}")
    with leased_gpu(say=typer.echo) if kind == "cuda" and usable_gpus() else nullcontext():
        outcomes = run_checks(checks, kind, budget_s=budget_s, say=lambda outcome: typer.echo(outcome.line))
    summary = summary_of(kind, name, outcomes)
    if output is not None:
        write_text(output, summary.model_dump_json(indent=2) + "\n")
    counts = ", ".join(f"{summary.count(status)} {status}" for status in ("ok", "failed", "skipped"))
    typer.echo(f"{counts} in {summary.seconds:.0f} s")
    if summary.count("failed"):
        raise typer.Exit(1)
