"""The program ``dcae-bench``: registers the verbs and prints errors."""

import os
import sys
from typing import Any

import typer

from dcae_bench.base.errors import UserError
from dcae_bench.cli import (
    bundle,
    check,
    doctor,
    encode,
    evaluate,
    evaluate_samples,
    evidence,
    figure,
    gpu_check,
    latents,
    leaderboard,
    measure,
    plan,
    prepare,
    report,
    sample,
    sanity,
    schema,
    score,
    show,
    table,
    table_ablation,
    table_diffusion,
    table_throughput,
    train,
    train_diffusion,
    verify,
    weights,
    zoo,
)
from dcae_bench.running.launch import end_with_launcher, report_error, report_stop
from dcae_bench.running.lease import join_lease
from dcae_bench.running.run_lock import join_jobs
from dcae_bench.running.stop import Stopped, stoppable

app = typer.Typer(
    name="dcae-bench",
    help="Benchmark and reproducibility harness for the Deep Compression Autoencoder (arXiv 2410.10733).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("plan")(plan.plan)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("train-diffusion")(train_diffusion.train_diffusion)
app.command("sample")(sample.sample)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate-samples")(evaluate_samples.evaluate_samples)
app.command("score")(score.score)
app.command("encode")(encode.encode)
app.command("latents")(latents.latents)
app.command("sanity")(sanity.sanity)
app.command("table")(table.table)
app.command("table-throughput")(table_throughput.table_throughput)
app.command("table-diffusion")(table_diffusion.table_diffusion)
app.command("table-ablation")(table_ablation.table_ablation)
app.command("report")(report.report)
app.command("check")(check.check)
app.add_typer(figure.app, name="figure")
app.command("show")(show.show)
app.command("measure")(measure.measure)
app.command("doctor")(doctor.doctor)
app.command("gpu-check")(gpu_check.gpu_check)
app.command("evidence")(evidence.evidence)
app.command("bundle")(bundle.bundle)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("verify")(verify.verify)
app.command("zoo")(zoo.zoo)
app.add_typer(weights.app, name="weights")
app.command("schema")(schema.schema)


CliError: Any = typer.BadParameter.__mro__[2]
"""Base of the errors of typer's command line; typer gives it no public name."""
LOST_PROCESS = "the connection to another process of this command is lost; run the same command again to go on"
OUT_OF_MEMORY = "memory ran out; make the sizes of the profile smaller, or use a machine with more memory"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says with an error that memory ran out: of a GPU by its class, of the CPU by its text alone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or "DefaultCPUAllocator: can't allocate memory" in str(error)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether torch says with an error that another process is gone: by the error's class, of gloo by its text."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"DistBackendError", "DistNetworkError", "DistStoreError"}) or "gloo/transport" in str(error)


def _report_usage(error: Any) -> None:
    """Print what is wrong with a command line in one line; without arguments, the help."""
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        if text := context.get_help():
            typer.echo(text)
        return
    where = f"; see `{context.command_path} --help`" if context is not None else ""
    report_error(f"{error.format_message().rstrip('.')}{where}")


def main() -> None:
    """Run the command line. A user's error prints one line on standard error and exits with code 2.

    A signal stops the command with one line and exit code 75.
    """
    end_with_launcher()
    join_jobs()
    try:
        with stoppable():
            join_lease()
            code = app(prog_name="dcae-bench", standalone_mode=False)
        sys.exit(code or 0)
    except Stopped as stopped:
        report_stop(stopped.line)
        raise
    except CliError as error:
        _report_usage(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        report_error("aborted, because the input ended")
        sys.exit(1)
    except UserError as error:
        report_error(str(error))
        sys.exit(2)
    except MemoryError:
        report_error(OUT_OF_MEMORY)
        sys.exit(2)
    except RuntimeError as error:
        if is_out_of_memory(error):
            report_error(OUT_OF_MEMORY)
        elif is_lost_process(error):
            report_error(LOST_PROCESS, lost=True)
        else:
            raise
        sys.exit(2)
    except OSError as error:
        report_error(f"{error.filename or 'input/output'}: {error.strerror or error}")
        sys.exit(2)
