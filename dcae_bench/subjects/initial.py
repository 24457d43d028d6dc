"""Initial weights that a profile names for a training: found by name, without torch, and fetched where they lie."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.weights import hub, released
from dcae_bench.weights.diffusers_folder import (
    AUTOENCODER_FOLDERS,
    HUB_FILES,
    INDEX,
    OFFICIAL_FILE,
    find_weights,
    listed_files,
    shards_of,
)

Kind = Literal["autoencoder", "denoiser"]
SUBFOLDERS: dict[Kind, tuple[str, ...]] = {
    "autoencoder": AUTOENCODER_FOLDERS,
    "denoiser": ("transformer",),
}
"""Folders of pipelines of diffusers that hold the weights of a kind."""


@dataclass(frozen=True)
class Initial:
    """Weights that a training starts from."""

    name: str
    """As the profile names them."""
    path: Path
    """File of the weights, or the index of several."""
    folder: Path | None = None
    """Folder of diffusers' form that holds the file, whose config.json is checked too; None: another place."""

    @property
    def opened(self) -> Path:
        """What is opened: the folder, or else the file."""
        return self.folder or self.path


def find_initial(wanted: str, kind: Kind, field: str) -> Initial:
    """Find the weights that a profile's ``field`` names, and download them where they are released or on the hub.

    ``wanted`` is tried in this order as a released name of the catalogues, a file or folder, and a hub id. Raises
    :class:`WeightsError`, which begins with the field.
    """
    if wanted in released.released_weights():
        return Initial(wanted, released.locate(wanted).path)
    path = Path(wanted).expanduser()
    if path.is_dir():
        if (inner := _in_folder(path, kind)) is not None:
            return Initial(wanted, inner, inner.parent)
        raise WeightsError(f"{field} '{wanted}': the folder holds no weights of a known name; name the file itself")
    if path.exists():
        return Initial(wanted, path)
    if hub.HUB_ID.match(wanted) and not path.suffix:
        return Initial(wanted, _from_hub(wanted, kind, field))
    raise WeightsError(
        f"{field} '{wanted}': is no file or folder here, no hub id (owner/name), and no released weights of the "
        "catalogue (dcae-bench weights list); correct it"
    )


def initial_files(wanted: str, kind: Kind) -> tuple[Path, ...]:
    """Files of initial weights as far as they are on this machine. Nothing is downloaded, and no weights are read."""
    with suppress(WeightsError):
        if wanted in released.released_weights():
            receipt = released.receipt(wanted)
            return (receipt.path,) if receipt is not None and receipt.path.exists() else ()
        path = Path(wanted).expanduser()
        found: Path | None = path if path.is_file() else None
        if path.is_dir():
            found = _in_folder(path, kind)
        elif found is None and hub.HUB_ID.match(wanted):
            found = _cached(wanted, kind)
        if found is not None:
            return (found, *(shards_of(found) if found.name.endswith(INDEX) else ()))
    return ()


def other_initial(wanted: str | None, sha256: str | None, kind: Kind) -> bool:
    """Whether initial weights that were once used are not what their name stands for now.

    False where nobody can tell: nothing is here, or the weights are several files.
    """
    files = initial_files(wanted, kind) if wanted is not None and sha256 is not None else ()
    if len(files) != 1:
        return False
    try:
        return known_sha256(files[0]) != sha256
    except OSError:
        return False


def _in_folder(folder: Path, kind: Kind) -> Path | None:
    inner = [folder, *(folder / name for name in SUBFOLDERS[kind])]
    return next((found for place in inner if place.is_dir() and (found := find_weights(place)) is not None), None)


def _names_on_hub(kind: Kind) -> tuple[str, ...]:
    inner = (f"{folder}/{name}" for folder in SUBFOLDERS[kind] for name in HUB_FILES)
    return (*HUB_FILES, OFFICIAL_FILE, *inner)


def _cached(repo: str, kind: Kind) -> Path | None:
    """Path of the first known file of weights in the hub's cache."""
    cached = (hub.find_cached(repo, name, None) for name in _names_on_hub(kind))
    return next((file for file in cached if file is not None), None)


def _from_hub(repo: str, kind: Kind, field: str) -> Path:
    """Path of the first known file of weights of a repository: a cached one, so that a training stays what it was.

    Raises :class:`WeightsError`.
    """
    if (known := _cached(repo, kind)) is not None and not known.name.endswith(INDEX):
        return known
    by_hand = "get the repository on another machine and name its folder in place of the id"
    for name in _names_on_hub(kind):
        with suppress(hub.NoSuchFile):
            found = hub.download(repo, name, None, by_hand=by_hand).path
            if name.endswith(INDEX):
                for shard in listed_files(found):
                    hub.download(repo, f"{name.rpartition('/')[0]}/{shard}".lstrip("/"), None, by_hand=by_hand)
            return found
    raise WeightsError(
        f"{field} '{repo}': the repository has none of {', '.join(_names_on_hub(kind))}; get the file and name it"
    )
