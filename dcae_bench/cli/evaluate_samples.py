"""``dcae-bench evaluate-samples``: compares generated samples with the images that a denoiser learned from."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import DataOption, InceptionOption, ProfileOption, RowOption, writable_file
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes


def evaluate_samples(
    row: RowOption,
    samples: Annotated[Path, typer.Option(help="Folder that `sample` wrote.", metavar="DIR")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Record (JSON) to write.", metavar="FILE", callback=writable_file)],
    training: Annotated[
        Path | None,
        typer.Option(help="Record of the denoiser's training; leave out for released denoisers.", metavar="FILE"),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option("--adm-batch", help="ADM's reference batch (.npz); adds an FID.", metavar="FILE"),
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Record gFID, kernel distance, precision, recall, and with Inception weights the Inception Score.

    Run the same command again after an interruption.
    """
    loaded = load_profile(profile)
    loaded.row(row)
    if start_processes(loaded):
        return

    from dcae_bench.evaluation.samples_run import evaluate_samples

    evaluate_samples(
        loaded, row, samples=samples, training=training, data=data, output=output, batch=batch, inception=inception
    )
