"""Options that several verbs share, and look-ups of their values in a profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import require_writable_file, require_writable_folder
from dcae_bench.base.terminal import Console
from dcae_bench.profile.ablated import variants
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile
from dcae_bench.records.path import PathRequest

Name = TypeVar("Name", bound=str)


def writable_file(path: Path | None) -> Path | None:
    """Callback of an option that names a file to write: refuses, before any work, what cannot be written."""
    if path is not None:
        require_writable_file(path)
    return path


def writable_folder(folder: Path | None) -> Path | None:
    """Callback of an option that names a folder to write into, like :func:`writable_file`."""
    if folder is not None:
        require_writable_folder(folder)
    return folder


ProfileOption = Annotated[
    str, typer.Option("--profile", help="Profile by name (demo) or by path (config/demo.yaml).", metavar="NAME|FILE")
]
DataOption = Annotated[
    Path, typer.Option("--data", help="Folder of the data sets that `prepare` wrote.", metavar="DIR")
]
InceptionOption = Annotated[
    Path | None,
    typer.Option("--inception", help="Inception weights, if not fetched by `dcae-bench weights`.", metavar="FILE"),
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
        help="Weights to measure, in our layout, the authors' or diffusers'; not needed for released autoencoders and "
        "your own.",
        metavar="FILE|DIR",
    ),
]
CompressionOption = Annotated[
    int | None, typer.Option("--f", help="Compression f of your own autoencoder; by default probed.", min=1)
]
ChannelsOption = Annotated[
    int | None, typer.Option("--c", help="Latent channels c of your own autoencoder; by default probed.", min=1)
]
TrainedOption = Annotated[
    Path,
    typer.Option(
        help="File for the finished weights; record.json and log.jsonl are written beside it.",
        metavar="FILE",
        callback=writable_file,
    ),
]
RunDirOption = Annotated[
    Path,
    typer.Option(
        help="Folder for the state of the unfinished run, which survives an interruption.",
        metavar="DIR",
        callback=writable_folder,
    ),
]
RowOption = Annotated[str, typer.Option("--row", help="Row of the profile's diffusion part.", metavar="NAME")]
LatentsOption = Annotated[
    Path, typer.Option("--latents", help="Folder of the latents that `encode` wrote.", metavar="DIR")
]
DenoiserAutoencoderOption = Annotated[
    Path | None,
    typer.Option(
        "--autoencoder",
        help="Retrained weights of the autoencoder behind the latents; released and own weights are found by name.",
        metavar="FILE",
    ),
]
PathOption = Annotated[
    str | None,
    typer.Option(
        "--path",
        help="auto: on a GPU the fast path if it agrees with eager PyTorch on the first batch, else eager; eager; "
        "fast. By default the profile's.",
        metavar="auto|eager|fast",
    ),
]
OtherOption = Annotated[
    bool,
    typer.Option(
        "--other-configurations",
        help="Also show records that are not what their profile asks for now, marked; by default they are left out.",
    ),
]


def wide_console() -> Console:
    """Console for wide tables. Output to a file or a pipe is 200 columns wide, so that cells are not folded."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def choice(option: str, what: str, name: str | None, known: Sequence[Name]) -> Name | None:
    """The one of the ``known`` names that an option gives; None if it is left out. Raises :class:`ConfigError`."""
    if name is None:
        return None
    for one in known:
        if one == name:
            return one
    raise ConfigError(f"{option} {name}: there is no such {what}; choose {', '.join(known)}")


def parse_path(name: str | None) -> PathRequest | None:
    """The path that an option names; None for the profile's. Raises :class:`ConfigError` for another name."""
    return choice("--path", "path", name, get_args(PathRequest))


def find_autoencoder(profile: Profile, name: str) -> AutoencoderEntry:
    """Find an autoencoder of the profile. Raises :class:`ConfigError` that lists the known names."""
    if name not in profile.autoencoders:
        known = ", ".join([*profile.autoencoders, *variants(profile)])
        raise ConfigError(f"--autoencoder {name}: profile {profile.name} has no such autoencoder; it has {known}")
    return profile.autoencoders[name]


def find_sets(profile: Profile, labels: Sequence[str]) -> tuple[EvaluationSet, ...]:
    """Find evaluation sets of the profile by label; no labels select all sets. Raises :class:`ConfigError`."""
    known = {item.label: item for item in profile.evaluation.sets}
    for label in labels:
        if label not in known:
            raise ConfigError(
                f"--set {label}: profile {profile.name} has no such evaluation set; it has {', '.join(known)}"
            )
    return tuple(known[label] for label in dict.fromkeys(labels or known))
