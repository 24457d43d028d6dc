"""``dcae-bench evaluate``: measures an autoencoder's reconstructions on evaluation sets of the profile."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import (
    ChannelsOption,
    CompressionOption,
    DataOption,
    InceptionOption,
    PathOption,
    ProfileOption,
    SubjectOption,
    SubjectWeightsOption,
    find_sets,
    parse_path,
    writable_folder,
)
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes


def evaluate(
    autoencoder: SubjectOption,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for <set>.json, .images.parquet, .samples.npy and .gallery.npz of each set.",
            metavar="DIR",
            callback=writable_folder,
        ),
    ],
    weights: SubjectWeightsOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Evaluation set, e.g. imagenet-512; repeatable; by default all sets.", metavar="SET"
        ),
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last training phase of the weights.", min=1, max=3)] = None,
    f: CompressionOption = None,
    c: ChannelsOption = None,
    inception: InceptionOption = None,
    path: PathOption = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            help="Folder to which every original and reconstruction is also written as a file, e.g. for `score`.",
            metavar="DIR",
        ),
    ] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Reconstruct each evaluation set once and record Fréchet distances, PSNR, SSIM and LPIPS.

    Run the same command again after an interruption.
    """
    loaded, asked = of_autoencoder(load_profile(profile), autoencoder), parse_path(path)
    sets = find_sets(loaded, labels) if labels else None

    if start_processes(loaded):
        return

    from dcae_bench.subjects.choose import choose_autoencoder

    chosen = choose_autoencoder(loaded, autoencoder, weights, f=f, c=c, sets=sets, phase=phase)

    from dcae_bench.evaluation.reconstruction_run import evaluate_reconstruction

    evaluate_reconstruction(
        loaded, chosen, data=data, output=output, sets=sets, inception=inception, path=asked, png=png
    )
