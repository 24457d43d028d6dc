"""``dcae-bench encode``: latents of a data set, cached for training denoisers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import DataOption, ProfileOption
from dcae_bench.config import load_profile
from dcae_bench.launch import work_is_here


def encode(
    latent: Annotated[
        str,
        typer.Option(
            help="autoencoder@retrained, autoencoder@released or, of the profile, autoencoder@own.",
            metavar="NAME@SOURCE",
        ),
    ],
    images: Annotated[str, typer.Option(help="Images, by their name in the profile's diffusion.data.", metavar="NAME")],
    data: DataOption,
    output: Annotated[
        Path, typer.Option(help="Folder that gets latents.npy, labels.npy and manifest.json.", metavar="DIR")
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of a retrained autoencoder; released and own ones are found.", metavar="FILE"),
    ] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Encode every image once. Run the same command again after an interruption."""
    plan = load_profile(profile)
    if not work_is_here(plan):
        return

    from dcae_bench.evaluation.encode import encode_dataset

    manifest = encode_dataset(plan, latent, images, data=data, output=output, weights=weights)
    Console(stderr=True).print(
        f"{latent} of {images}: {manifest.count} latents {manifest.shape} in {manifest.dtype}, RMS "
        f"{manifest.statistics.rms:.4g}, scaling factor {manifest.scaling_factor:.4g} ({manifest.scaling})",
        soft_wrap=True,
    )
