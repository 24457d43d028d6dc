"""``dcae-bench latents``: statistics of an autoencoder's latents."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import AutoencoderOption, DataOption, ProfileOption, find_autoencoder, find_sets
from dcae_bench.config import load_profile
from dcae_bench.errors import ConfigError


def latents(
    autoencoder: AutoencoderOption,
    weights: Annotated[Path, typer.Option(help="Weights to measure (safetensors).", metavar="FILE")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Record; <name>.channels.json is written beside it.", metavar="FILE")],
    label: Annotated[
        str | None, typer.Option("--set", help="Evaluation set, e.g. photos-indoor-64; by default the first.")
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last phase the weights went through.", min=1, max=3)] = None,
    declared: Annotated[float | None, typer.Option(help="Scaling factor to compare with 1/RMS.", min=1e-9)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if the declared factor deviates.")] = False,
    profile: ProfileOption = "demo",
) -> None:
    """Encode an evaluation set once and record mean, RMS and standard deviation, overall and per channel."""
    plan = load_profile(profile)
    find_autoencoder(plan, autoencoder)
    item = find_sets(plan, [label] if label else [])[0]
    if strict and declared is None:
        raise ConfigError("--strict: there is nothing to compare with; add --declared FACTOR")

    from dcae_bench.evaluation.latents import measure_latents

    record = measure_latents(
        plan,
        autoencoder,
        phase,
        item,
        weights=weights,
        data=data,
        output=output,
        declared=declared,
        strict=strict,
    )
    shown = ", ".join(f"{metric.label} {metric.value:.5g}" for metric in record.metrics.values())
    notes = "".join(f"; {note}" for metric in record.metrics.values() for note in metric.notes)
    Console(stderr=True).print(f"{autoencoder} on {item.label}: {shown}{notes}", soft_wrap=True)
