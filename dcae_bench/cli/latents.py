"""``dcae-bench latents``: measures the statistics of an autoencoder's latents."""

import math
from pathlib import Path
from typing import Annotated

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.terminal import Console
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.cli.options import (
    ChannelsOption,
    CompressionOption,
    DataOption,
    ProfileOption,
    SubjectOption,
    SubjectWeightsOption,
    find_sets,
    writable_file,
)
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.profile import load_profile
from dcae_bench.running.gpus import take_gpus


def latents(
    autoencoder: SubjectOption,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            help="Record (JSON) to write; <name>.channels.json is written beside it.",
            metavar="FILE",
            callback=writable_file,
        ),
    ],
    weights: SubjectWeightsOption = None,
    label: Annotated[
        str | None, typer.Option("--set", help="Evaluation set, e.g. photos-indoor-64; by default the profile's first.")
    ] = None,
    phase: Annotated[int | None, typer.Option(help="Last training phase of the weights.", min=1, max=3)] = None,
    f: CompressionOption = None,
    c: ChannelsOption = None,
    declared: Annotated[
        float | None,
        typer.Option(
            help="Scaling factor to compare with 1/RMS; by default the catalogue's, or a config.json's.", min=1e-9
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if the declared factor deviates.")] = False,
    profile: ProfileOption = "demo",
) -> None:
    """Encode an evaluation set once and record mean, RMS and standard deviation, overall and per channel.

    A declared scaling factor matches if it differs from 1/RMS by at most 1 %, and declared statistics by channel if
    each mean and deviation differs by at most 1 % of the declared deviation.
    """
    if declared is not None and not math.isfinite(declared):
        raise ConfigError(f"--declared {declared}: is not a finite number; name the published scaling factor")
    loaded = of_autoencoder(load_profile(profile), autoencoder)
    item = find_sets(loaded, [label] if label else [])[0]
    take_gpus(loaded, 1)

    from dcae_bench.subjects.choose import choose_autoencoder

    chosen = choose_autoencoder(loaded, autoencoder, weights, f=f, c=c, sets=[item], phase=phase)
    scaling = None if declared is None else Scaling(factor=declared, source="--declared")
    from dcae_bench.evaluation.latents import measure_latents

    record = measure_latents(loaded, chosen, item, data=data, output=output, declared=scaling, strict=strict)
    shown = ", ".join(f"{metric.label} {metric.value:.5g}" for metric in record.metrics.values())
    notes = "".join(f"; {note}" for metric in record.metrics.values() for note in metric.notes)
    Console(stderr=True).print(f"{chosen.name} on {item.label}: {shown}{notes}", soft_wrap=True)
