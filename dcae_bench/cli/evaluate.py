"""``dcae-bench evaluate``: measures an autoencoder's reconstructions on every set of the profile."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import (
    ChannelsOption,
    CompressionOption,
    DataOption,
    InceptionOption,
    ProfileOption,
    SubjectOption,
    SubjectWeightsOption,
    find_sets,
)
from dcae_bench.config import load_profile
from dcae_bench.launch import work_is_here


def evaluate(
    autoencoder: SubjectOption,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder that gets, for each set, <set>.json, .images.parquet, .samples.npy and .gallery.npz.",
            metavar="DIR",
        ),
    ],
    weights: SubjectWeightsOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Evaluation set, e.g. imagenet-512, may be repeated; by default all.", metavar="SET"
        ),
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last phase the weights went through.", min=1, max=3)] = None,
    f: CompressionOption = None,
    c: ChannelsOption = None,
    inception: InceptionOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Reconstruct each evaluation set once and record Fréchet distances, PSNR, SSIM and LPIPS.

    Run the same command again after an interruption.
    """
    plan = load_profile(profile)
    sets = find_sets(plan, labels) if labels else None

    if not work_is_here(plan):
        return

    from dcae_bench.evaluation.subject import choose

    chosen = choose(plan, autoencoder, weights, f=f, c=c, sets=sets)

    from dcae_bench.evaluation.run import evaluate_reconstruction

    evaluate_reconstruction(
        chosen.profile,
        chosen.name,
        phase,
        weights=chosen.weights,
        data=data,
        output=output,
        weights_source=chosen.source,
        sets=sets,
        inception=inception,
    )
