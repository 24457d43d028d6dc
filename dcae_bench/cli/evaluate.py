"""``dcae-bench evaluate``: measures an autoencoder's reconstructions on every set of the profile."""

from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.cli.options import AutoencoderOption, DataOption, ProfileOption, find_autoencoder
from dcae_bench.config import load_profile


def evaluate(
    autoencoder: AutoencoderOption,
    weights: Annotated[Path, typer.Option(help="Weights to measure (safetensors).", metavar="FILE")],
    data: DataOption,
    output: Annotated[
        Path, typer.Option(help="Folder that gets <set>.json and <set>.samples.npy for each set.", metavar="DIR")
    ],
    phase: Annotated[int | None, typer.Option(help="Last phase the weights went through.", min=1, max=3)] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Reconstruct each evaluation set once and record rFD, PSNR, SSIM and LPIPS."""
    plan = load_profile(profile)
    find_autoencoder(plan, autoencoder)

    from dcae_bench.evaluation.run import evaluate_reconstruction

    evaluate_reconstruction(plan, autoencoder, phase, weights=weights, data=data, output=output)
