"""``dcae-bench sample``: samples images from a denoiser."""

import math
from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.cli.options import (
    DenoiserAutoencoderOption,
    PathOption,
    ProfileOption,
    RowOption,
    parse_path,
    writable_folder,
)
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.launch import start_processes
from dcae_bench.specs.diffusion import GuidanceSpec


def sample(
    row: RowOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for samples.npy, labels.npy and samples.json.", metavar="DIR", callback=writable_folder
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of a trained denoiser; released weights are found by name.", metavar="FILE"),
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `encode` wrote, with the latents that a trained denoiser learned from.", metavar="DIR"
        ),
    ] = None,
    autoencoder: DenoiserAutoencoderOption = None,
    s: Annotated[
        float | None, typer.Option("--s", help="Guidance scale s (1: no guidance); by default the row's first.", min=0)
    ] = None,
    w: Annotated[
        float | None, typer.Option("--w", help="Guidance scale as w = s - 1, U-ViT's convention.", min=-1)
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            help="Folder to which every image is also written as a file.",
            metavar="DIR",
            callback=writable_folder,
        ),
    ] = None,
    path: PathOption = None,
    profile: ProfileOption = "demo",
) -> None:
    """Sample and decode images. Run the same command again after an interruption.

    A trained row needs --weights and --latents. A row with released weights takes neither, nor --autoencoder.
    """
    loaded, asked = load_profile(profile), parse_path(path)
    loaded.row(row)
    if s is not None and w is not None:
        raise ConfigError(f"--s {s:g} and --w {w:g}: guidance is given either as s or as w (s = 1 + w); leave one out")
    for option, scale in (("--s", s), ("--w", w)):
        if scale is not None and not math.isfinite(scale):
            raise ConfigError(f"{option} {scale:g}: is not a finite number; the paper's scales s lie between 1 and 1.5")
    guidance = None if s is None and w is None else GuidanceSpec(s=s, w=w)

    if start_processes(loaded):
        return

    from dcae_bench.generation.sample import sample_images

    sample_images(
        loaded,
        row,
        weights=weights,
        latents=latents,
        output=output,
        autoencoder=autoencoder,
        guidance=guidance,
        png=png,
        path=asked,
    )
