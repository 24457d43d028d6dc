"""Own autoencoders of a profile (``weights: own``): the weights and files that each brings, found without torch."""

from dataclasses import dataclass
from pathlib import Path

from dcae_bench import weights
from dcae_bench.config import AutoencoderEntry, Profile
from dcae_bench.diffusers_source import (
    CONFIG,
    FOLDER_FILES,
    HUB_FILES,
    folder_of,
    here,
    is_local,
    read_config,
    source_weights,
    weights_in,
)
from dcae_bench.diffusion_spec import LatentSource
from dcae_bench.errors import ConfigError, WeightsError
from dcae_bench.own_class import source_file
from dcae_bench.specs import CustomSpec, DiffusersSpec, core


@dataclass(frozen=True)
class OwnFiles:
    """Files of one entry: an edit of one of them makes another autoencoder of it."""

    here: tuple[Path, ...]
    missing: tuple[str, ...]
    """Of each that is not on this machine: which it is, and the remedy."""


def own_weights(entry: AutoencoderEntry) -> Path | None:
    """File or folder to load an entry's weights from: its own ``file``, else what its source holds.

    None where a class brings them itself. A source on the hub is fetched if need be. Raises :class:`WeightsError`.
    """
    if entry.file is not None:
        return entry.file.expanduser()
    spec = core(entry.model)
    return source_weights(spec) if isinstance(spec, DiffusersSpec) else None


def profile_weights(profile: Profile, source: LatentSource, option: str) -> Path | None:
    """Weights behind latents, without an ``option`` that names them: released ones, or the user's own.

    None where a class brings them itself. Raises :class:`ConfigError` for retrained ones, and :class:`WeightsError`.
    """
    if source.weights == "released":
        return weights.locate(source.autoencoder).path
    if source.weights == "own":
        return own_weights(profile.autoencoders[source.autoencoder])
    raise ConfigError(
        f"{option} is missing: name the weights of {source.autoencoder}@{source.weights} that training wrote"
    )


def fetch_own(profile: Profile, name: str) -> tuple[Path, ...]:
    """Bring what an own autoencoder has on the hub here; returns its files.

    Raises :class:`ConfigError` for another kind of autoencoder, and :class:`WeightsError`.
    """
    if name not in profile.named("own"):
        known = ", ".join(profile.named("own")) or "none"
        raise ConfigError(f"{name}: is no own autoencoder of profile {profile.name}; it has {known}")
    entry = profile.autoencoders[name]
    spec = core(entry.model)
    if isinstance(spec, DiffusersSpec):
        if spec.config is None:
            read_config(spec)
        own_weights(entry)
    found = own_files(name, entry)
    if found.missing:
        raise WeightsError(found.missing[0])
    return found.here


def own_files(name: str, entry: AutoencoderEntry) -> OwnFiles:
    """The files that an entry of this name is made of: weights, config.json of a source, module of a class."""
    spec, wanted = core(entry.model), []
    if isinstance(spec, CustomSpec):
        wanted.append(_of_class(name, spec))
    if isinstance(spec, DiffusersSpec) and spec.config is None:
        wanted.append(_of_source(name, spec, CONFIG))
    if entry.file is not None:
        wanted.append(_of_file(name, entry.file.expanduser()))
    elif isinstance(spec, DiffusersSpec):
        wanted.append(_of_source(name, spec, *(FOLDER_FILES if is_local(spec) else HUB_FILES)))
    found = [file for files in wanted if not isinstance(files, str) for file in files]
    # A source that is not here at all lacks several files for one reason.
    return OwnFiles(tuple(found), tuple(dict.fromkeys(reason for reason in wanted if isinstance(reason, str))))


def to_fetch(name: str, entry: AutoencoderEntry) -> bool:
    """Whether weights that an entry takes from the hub are not here."""
    spec = core(entry.model)
    elsewhere = entry.file is None and isinstance(spec, DiffusersSpec) and not is_local(spec)
    return elsewhere and bool(own_files(name, entry).missing)


def _of_class(name: str, spec: CustomSpec) -> list[Path] | str:
    try:
        file = source_file(spec.class_name)
    except ConfigError as error:
        return f"class of {name}, {error}, or with its folder in PYTHONPATH"
    return [] if file is None else [file]


def _of_source(name: str, spec: DiffusersSpec, *files: str) -> list[Path] | str:
    """The first of some files of a source."""
    if (found := here(spec, *files)) is not None:
        return [found]
    if is_local(spec):
        return f"{folder_of(spec)}, the source of {name}, holds no {' or '.join(files)}: put one there"
    return (
        f"{spec.source}, the source of {name}, is neither a folder here nor in the hub's cache: put the folder there, "
        f"or `dcae-bench weights fetch {name} --profile PROFILE`"
    )


def _of_file(name: str, path: Path) -> list[Path] | str:
    if not path.is_dir():
        remedy = f"put the file there, or correct autoencoders.{name}.file"
        return [path] if path.exists() else f"weights of {name} are not at {path}: {remedy}"
    if (file := weights_in(path)) is None:
        return f"{path}, the folder of {name}'s weights, holds no {' or '.join(FOLDER_FILES)}: put one there"
    return [file, *([path / CONFIG] if (path / CONFIG).exists() else [])]
