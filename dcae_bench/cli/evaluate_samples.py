"""``dcae-bench evaluate-samples``: measures generated images against the images behind a denoiser's latents."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import DataOption, InceptionOption, ProfileOption, RowOption
from dcae_bench.config import load_profile


def evaluate_samples(
    row: RowOption,
    samples: Annotated[Path, typer.Option(help="Folder that `sample` wrote.", metavar="DIR")],
    training: Annotated[Path, typer.Option(help="Record of the denoiser's training.", metavar="FILE")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Record (JSON) that is written.", metavar="FILE")],
    batch: Annotated[
        Path | None,
        typer.Option("--adm-batch", help="ADM's reference batch (.npz), for a further FID.", metavar="FILE"),
    ] = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Record gFID, kernel distance, precision, recall and, with Inception weights, the Inception Score.

    Run the same command again after an interruption. Several GPUs: torchrun --nproc-per-node N -m dcae_bench
    evaluate-samples.
    """
    plan = load_profile(profile)
    plan.row(row)

    from dcae_bench.evaluation.generation_run import evaluate_samples

    evaluate_samples(
        plan, row, samples=samples, training=training, data=data, output=output, batch=batch, inception=inception
    )
