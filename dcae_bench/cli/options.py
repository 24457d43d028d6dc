"""Options that several verbs share."""

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
AutoencoderOption = Annotated[str, typer.Option("--autoencoder", help="Autoencoder of the profile.", metavar="NAME")]


def wide_console() -> Console:
    """The terminal; where output goes to a file or a pipe, wide enough that no cell of a table is folded."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def find_set(profile: Profile, label: str) -> EvaluationSet:
    """An evaluation set of the profile. Raises :class:`ConfigError` with the labels there are."""
    known = {item.label: item for item in profile.evaluation.sets}
    if label not in known:
        raise ConfigError(
            f"--set {label}: profile {profile.name} has no such evaluation set; it has {', '.join(known)}"
        )
    return known[label]


def find_autoencoder(profile: Profile, name: str) -> AutoencoderEntry:
    """An autoencoder of the profile. Raises :class:`ConfigError` with the names there are."""
    if name not in profile.autoencoders:
        known = ", ".join(profile.autoencoders)
        raise ConfigError(f"--autoencoder {name}: profile {profile.name} has no such autoencoder; it has {known}")
    return profile.autoencoders[name]
