"""``dcae-bench encode``: encodes images and stores the latents for training denoisers."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.terminal import Console
from dcae_bench.cli.options import DataOption, PathOption, ProfileOption, parse_path, writable_folder
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes
from dcae_bench.specs.latent_scale import told


def encode(
    latent: Annotated[
        str,
        typer.Option(
            help="Autoencoder and its weights: NAME@retrained, NAME@released, or NAME@own for your own of the profile.",
            metavar="NAME@SOURCE",
        ),
    ],
    images: Annotated[str, typer.Option(help="Name of the images in the profile's diffusion.data.", metavar="NAME")],
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for latents.npy, labels.npy and manifest.json.", metavar="DIR", callback=writable_folder
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of a retrained autoencoder; released and own weights are found by name.", metavar="FILE"
        ),
    ] = None,
    path: PathOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Encode every image once. Run the same command again after an interruption."""
    loaded, asked = load_profile(profile), parse_path(path)
    if start_processes(loaded):
        return

    from dcae_bench.generation.encode import encode_dataset

    manifest = encode_dataset(loaded, latent, images, data=data, output=output, weights=weights, path=asked)
    Console(stderr=True).print(
        f"{latent} of {images}: {manifest.count} latents {manifest.shape} in {manifest.dtype}, RMS "
        f"{manifest.statistics.rms:.4g}, scaling factor {told(manifest.scaling_factor, 4)} ({manifest.scaling})",
        soft_wrap=True,
    )
