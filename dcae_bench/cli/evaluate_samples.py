"""``dcae-bench evaluate-samples``: measures generated images against the images that a denoiser learned from."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import DataOption, InceptionOption, ProfileOption, RowOption
from dcae_bench.config import load_profile
from dcae_bench.launch import work_is_here


def evaluate_samples(
    row: RowOption,
    samples: Annotated[Path, typer.Option(help="Folder that `sample` wrote.", metavar="DIR")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Record (JSON) that is written.", metavar="FILE")],
    training: Annotated[
        Path | None, typer.Option(help="Record of the denoiser's training; released ones have none.", metavar="FILE")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option("--adm-batch", help="ADM's reference batch (.npz), for a further FID.", metavar="FILE"),
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Record gFID, kernel distance, precision, recall and, with Inception weights, the Inception Score.

    Run the same command again after an interruption.
    """
    plan = load_profile(profile)
    plan.row(row)
    if not work_is_here(plan):
        return

    from dcae_bench.evaluation.generation_run import evaluate_samples

    evaluate_samples(
        plan, row, samples=samples, training=training, data=data, output=output, batch=batch, inception=inception
    )
