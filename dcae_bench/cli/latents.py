"""``dcae-bench latents``: statistics of an autoencoder's latents."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.cli.options import (
    ChannelsOption,
    CompressionOption,
    DataOption,
    ProfileOption,
    SubjectOption,
    SubjectWeightsOption,
    find_sets,
)
from dcae_bench.config import load_profile
from dcae_bench.errors import ConfigError
from dcae_bench.presets import Scaling, catalogue


def latents(
    autoencoder: SubjectOption,
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Record; <name>.channels.json is written beside it.", metavar="FILE")],
    weights: SubjectWeightsOption = None,
    label: Annotated[
        str | None, typer.Option("--set", help="Evaluation set, e.g. photos-indoor-64; by default the first.")
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last phase the weights went through.", min=1, max=3)] = None,
    f: CompressionOption = None,
    c: ChannelsOption = None,
    declared: Annotated[
        float | None,
        typer.Option(help="Scaling factor to compare with 1/RMS; of released weights the catalogue's.", min=1e-9),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if the declared factor deviates.")] = False,
    profile: ProfileOption = "demo",
) -> None:
    """Encode an evaluation set once and record mean, RMS and standard deviation, overall and per channel.

    A declared scaling factor must be 1/RMS within 1 %.
    """
    plan = load_profile(profile)
    item = find_sets(plan, [label] if label else [])[0]

    from dcae_bench.evaluation.subject import choose

    chosen = choose(plan, autoencoder, weights, f=f, c=c, sets=[item])
    scaling = None if declared is None else Scaling(factor=declared, source="--declared")
    if scaling is None and chosen.source == "released":
        scaling = catalogue().preset(chosen.name).scaling
    if strict and scaling is None:
        raise ConfigError("--strict: there is nothing to compare with; add --declared FACTOR")

    from dcae_bench.evaluation.latents import measure_latents

    record = measure_latents(
        chosen.profile,
        chosen.name,
        phase,
        item,
        weights=chosen.weights,
        weights_source=chosen.source,
        data=data,
        output=output,
        declared=scaling,
        strict=strict,
    )
    shown = ", ".join(f"{metric.label} {metric.value:.5g}" for metric in record.metrics.values())
    notes = "".join(f"; {note}" for metric in record.metrics.values() for note in metric.notes)
    Console(stderr=True).print(f"{chosen.name} on {item.label}: {shown}{notes}", soft_wrap=True)
