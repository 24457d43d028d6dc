"""Options that several verbs share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dcae_bench.config import AutoencoderEntry, Profile
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation_spec import EvaluationSet

ProfileOption = Annotated[
    str, typer.Option("--profile", help="Profile by name (demo) or by path (config/demo.yaml).", metavar="NAME|FILE")
]
DataOption = Annotated[
    Path, typer.Option("--data", help="Folder of the data sets that `prepare` wrote.", metavar="DIR")
]
InceptionOption = Annotated[
    Path | None,
    typer.Option("--inception", help="Inception weights, if not fetched (`dcae-bench weights`).", metavar="FILE"),
]
AutoencoderOption = Annotated[str, typer.Option("--autoencoder", help="Autoencoder of the profile.", metavar="NAME")]
SubjectOption = Annotated[
    str,
    typer.Option(
        "--autoencoder",
        help="Name in the profile or in the catalogue (`dcae-bench zoo`), module:Class, diffusers folder, or hub id.",
        metavar="NAME|MODULE:CLASS|DIR|ID",
    ),
]
SubjectWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Weights to measure, in our layout, the authors' or diffusers'. Released autoencoders and your own bring "
        "theirs.",
        metavar="FILE|DIR",
    ),
]
CompressionOption = Annotated[
    int | None, typer.Option("--f", help="Compression of your own autoencoder; else probed.", min=1)
]
ChannelsOption = Annotated[int | None, typer.Option("--c", help="Its latent channels; else probed.", min=1)]
RowOption = Annotated[str, typer.Option("--row", help="Row of the profile's diffusion part.", metavar="NAME")]
LatentsOption = Annotated[
    Path, typer.Option("--latents", help="Folder of the latents that `encode` wrote.", metavar="DIR")
]
DenoiserAutoencoderOption = Annotated[
    Path | None,
    typer.Option(
        "--autoencoder",
        help="Weights behind the latents, if retrained; released and own ones are found.",
        metavar="FILE",
    ),
]


def wide_console() -> Console:
    """The terminal; where output goes to a file or a pipe, wide enough that no cell of a table is folded."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def find_autoencoder(profile: Profile, name: str) -> AutoencoderEntry:
    """An autoencoder of the profile. Raises :class:`ConfigError` with the names there are."""
    if name not in profile.autoencoders:
        known = ", ".join(profile.autoencoders)
        raise ConfigError(f"--autoencoder {name}: profile {profile.name} has no such autoencoder; it has {known}")
    return profile.autoencoders[name]


def find_sets(profile: Profile, labels: Sequence[str]) -> tuple[EvaluationSet, ...]:
    """Evaluation sets of the profile by their labels, all for none. Raises :class:`ConfigError`."""
    known = {item.label: item for item in profile.evaluation.sets}
    for label in labels:
        if label not in known:
            raise ConfigError(
                f"--set {label}: profile {profile.name} has no such evaluation set; it has {', '.join(known)}"
            )
    return tuple(known[label] for label in dict.fromkeys(labels or known))
