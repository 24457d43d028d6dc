"""``dcae-bench sample``: images from a denoiser."""

import math
from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import DenoiserAutoencoderOption, ProfileOption, RowOption
from dcae_bench.config import load_profile
from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.errors import ConfigError
from dcae_bench.launch import work_is_here


def sample(
    row: RowOption,
    output: Annotated[
        Path, typer.Option(help="Folder that gets samples.npy, labels.npy and samples.json.", metavar="DIR")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a trained denoiser; released ones are found.", metavar="FILE")
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option(help="Folder of the latents that a trained denoiser learned from (`encode`).", metavar="DIR"),
    ] = None,
    autoencoder: DenoiserAutoencoderOption = None,
    s: Annotated[
        float | None, typer.Option("--s", help="Guidance scale s, 1 is none; by default the row's first.", min=0)
    ] = None,
    w: Annotated[float | None, typer.Option("--w", help="The same as w = s - 1, as U-ViT states it.", min=-1)] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Folder that gets every image as a file too.", metavar="DIR")
    ] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Sample and decode images. Run the same command again after an interruption.

    A row that is trained needs --weights and --latents; one with released weights needs neither, nor --autoencoder.
    """
    plan = load_profile(profile)
    plan.row(row)
    if s is not None and w is not None:
        raise ConfigError(f"--s {s:g} and --w {w:g}: guidance is given either as s or as w (s = 1 + w); leave one out")
    for option, scale in (("--s", s), ("--w", w)):
        if scale is not None and not math.isfinite(scale):
            raise ConfigError(f"{option} {scale:g}: is not a finite number; the paper's scales s lie between 1 and 1.5")
    guidance = None if s is None and w is None else GuidanceSpec(s=s, w=w)

    if not work_is_here(plan):
        return

    from dcae_bench.evaluation.sampling import sample_images

    sample_images(
        plan,
        row,
        weights=weights,
        latents=latents,
        output=output,
        autoencoder=autoencoder,
        guidance=guidance,
        png=png,
    )
