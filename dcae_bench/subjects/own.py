"""Own autoencoders of a profile (``weights: own``): the weights and files of each, found without torch."""

from dataclasses import dataclass
from pathlib import Path

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.base.files import sha256_json
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.profile import Profile
from dcae_bench.specs.autoencoders import CustomSpec, DiffusersSpec, unfolded
from dcae_bench.weights import released as weights
from dcae_bench.weights.diffusers_folder import (
    CONFIG,
    FOLDER_FILES,
    HUB_FILES,
    INDEX,
    find_local,
    find_weights,
    folder_of,
    is_local,
    listed_files,
    read_config,
    shards_of,
    source_weights,
)
from dcae_bench.weights.user_class import source_modules


@dataclass(frozen=True)
class OwnFiles:
    """The files that define one autoencoder of the profile. A change of any file makes a different autoencoder."""

    present: tuple[Path, ...]
    missing: tuple[str, ...]
    """One message per absent file: what it is and how to get it."""


def own_weights(entry: AutoencoderEntry) -> Path | None:
    """File or folder of an entry's weights: the entry's ``file``, else the weights of its diffusers source.

    None where the user's class brings its weights itself. Weights on the hub are downloaded unless they are cached.
    Raises :class:`WeightsError`.
    """
    if entry.file is not None:
        return entry.file.expanduser()
    spec = unfolded(entry.model)
    return source_weights(spec) if isinstance(spec, DiffusersSpec) else None


def latent_weights(profile: Profile, source: LatentSource, option: str) -> Path | None:
    """Weights of the autoencoder behind latents, found by name: released weights or the user's own.

    None where the user's class brings its weights itself. Retrained weights are not found by name: for them a
    :class:`ConfigError` asks for the command's ``option``. Raises :class:`WeightsError` too.
    """
    if source.weights == "released":
        return weights.locate(source.autoencoder).path
    if source.weights == "own":
        return own_weights(profile.autoencoders[source.autoencoder])
    raise ConfigError(
        f"{option} is missing: name the weights of {source.autoencoder}@{source.weights} that training wrote"
    )


def fetch_own(profile: Profile, name: str) -> tuple[Path, ...]:
    """Download the hub files of an own autoencoder; returns all its files.

    Raises :class:`ConfigError` for a name that is no own autoencoder of the profile, and :class:`WeightsError`.
    """
    if name not in profile.with_weights("own"):
        known = ", ".join(profile.with_weights("own")) or "none"
        raise ConfigError(f"{name}: is no own autoencoder of profile {profile.name}; it has {known}")
    entry = profile.autoencoders[name]
    spec = unfolded(entry.model)
    if isinstance(spec, DiffusersSpec):
        if spec.config is None:
            read_config(spec)
        own_weights(entry)
    found = own_files(name, entry)
    if found.missing:
        raise WeightsError(found.missing[0])
    return found.present


def own_files(name: str, entry: AutoencoderEntry) -> OwnFiles:
    """List the files that define an entry: its weights, its source's config.json, and the modules of its class."""
    spec = unfolded(entry.model)
    wanted: list[list[Path] | str] = []
    if isinstance(spec, CustomSpec):
        wanted.append(_class_files(name, spec))
    if isinstance(spec, DiffusersSpec) and spec.config is None:
        wanted.append(_source_files(name, spec, CONFIG))
    if entry.file is not None:
        wanted.append(_weights_files(name, entry.file.expanduser()))
    elif isinstance(spec, DiffusersSpec):
        wanted.append(_source_weights(name, spec))
    found = [file for files in wanted if not isinstance(files, str) for file in files]
    # Several files of a source may be absent for one reason, so equal messages are kept once.
    return OwnFiles(tuple(found), tuple(dict.fromkeys(reason for reason in wanted if isinstance(reason, str))))


def own_files_sha256(name: str, entry: AutoencoderEntry) -> str | None:
    """Hash over the files that define an entry, see :func:`own_files`; None where one is absent or cannot be read."""
    files = own_files(name, entry)
    if files.missing:
        return None
    try:
        return sha256_json(sorted({known_sha256(path) for path in files.present}))
    except OSError:
        return None  # the opener says what is wrong


def are_other_own_weights(name: str, entry: AutoencoderEntry, sha256: str) -> bool:
    """Whether weights that were once used are not in the files of an entry now.

    False where nobody can tell: a file is absent, or the hash is that of several files, or of a user's class with its
    weights. The hash over all files, :func:`own_files_sha256`, tells these.
    """
    files = own_files(name, entry)
    several = any(path.name.endswith(INDEX) for path in files.present)
    if files.missing or several or isinstance(unfolded(entry.model), CustomSpec):
        return False
    try:
        return sha256 not in map(known_sha256, files.present)
    except OSError:
        return False


def needs_fetch(name: str, entry: AutoencoderEntry) -> bool:
    """Whether the entry's hub weights must still be downloaded."""
    spec = unfolded(entry.model)
    elsewhere = entry.file is None and isinstance(spec, DiffusersSpec) and not is_local(spec)
    return elsewhere and bool(own_files(name, entry).missing)


def _class_files(name: str, spec: CustomSpec) -> list[Path] | str:
    try:
        return [*source_modules(spec.class_name).values()]
    except ConfigError as error:
        return f"class of {name}, {error}, or with its folder in PYTHONPATH"


def _source_files(name: str, spec: DiffusersSpec, *files: str) -> list[Path] | str:
    """Find the first of ``files`` that the source holds on this machine; else return a message with the remedy."""
    if (found := find_local(spec, *files)) is not None:
        return [found]
    if is_local(spec):
        return f"{folder_of(spec)}, the source of {name}, holds no {' or '.join(files)}: put one there"
    return (
        f"{spec.source}, the source of {name}, is neither a folder here nor in the hub's cache: put the folder there, "
        f"or `dcae-bench weights fetch {name} --profile PROFILE`"
    )


def _source_weights(name: str, spec: DiffusersSpec) -> list[Path] | str:
    """The weights files of a source on this machine, or a message with the remedy."""
    if is_local(spec):
        if (file := find_weights(folder_of(spec))) is None:
            return f"{folder_of(spec)}, the source of {name}, holds no {' or '.join(FOLDER_FILES)}: put one there"
        return [file, *(shards_of(file) if file.name.endswith(INDEX) else [])]
    found = _source_files(name, spec, *HUB_FILES)
    if isinstance(found, list) and found[0].name.endswith(INDEX):
        for shard in listed_files(found[0]):
            more = _source_files(name, spec, shard)
            if isinstance(more, str):
                return more
            found += more
    return found


def _weights_files(name: str, path: Path) -> list[Path] | str:
    if not path.is_dir():
        remedy = f"put the file there, or correct autoencoders.{name}.file"
        return [path] if path.exists() else f"weights of {name} are not at {path}: {remedy}"
    if (file := find_weights(path)) is None:
        return f"{path}, the folder of {name}'s weights, holds no {' or '.join(FOLDER_FILES)}: put one there"
    shards = shards_of(file) if file.name.endswith(INDEX) else []
    return [file, *shards, *([path / CONFIG] if (path / CONFIG).exists() else [])]
