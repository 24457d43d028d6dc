"""Source of a diffusers model: a local folder or a hub repository, with config.json and a weights file."""

from pathlib import Path
from typing import Any

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.reading import read_json
from dcae_bench.specs.autoencoders import DiffusersSpec
from dcae_bench.weights import hub

CONFIG = "config.json"
# Names of the weights file in a local folder and in a hub repository. The first file that exists is used.
FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin")
HUB_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def read_config(spec: DiffusersSpec) -> dict[str, Any]:
    """Content of the source's config.json. Raises :class:`WeightsError` when the file is missing or no JSON object."""
    path = _locate(spec, CONFIG)
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise hub.NoSuchFile(f"{path}: does not exist; put diffusers' config.json there") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: is not a readable config ({error}); put diffusers' config.json there") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is not a JSON object; put diffusers' config.json there")
    return content


def source_weights(spec: DiffusersSpec) -> Path:
    """Path of the source's weights: the local folder, or a file fetched from the hub. Raises :class:`WeightsError`."""
    if is_local(spec):
        return folder_of(spec)
    try:
        return _locate(spec, HUB_FILES[0])
    except hub.NoSuchFile:
        return _locate(spec, HUB_FILES[1])


def is_local(spec: DiffusersSpec) -> bool:
    """Whether the source is a folder on this machine."""
    return Path(spec.source).expanduser().is_dir()


def folder_of(spec: DiffusersSpec) -> Path:
    """Folder of a local source that holds config.json and the weights."""
    return Path(spec.source).expanduser() / spec.subfolder


def find_weights(folder: Path) -> Path | None:
    """Weights file of a folder, or None."""
    return next((folder / name for name in FOLDER_FILES if (folder / name).exists()), None)


def find_local(spec: DiffusersSpec, *names: str) -> Path | None:
    """First of the named files of the source that is on this machine, or None. Fetches nothing."""
    if is_local(spec):
        found = (folder_of(spec) / name for name in names)
        return next((path for path in found if path.exists()), None)
    if not hub.HUB_ID.match(spec.source):
        return None
    cached = (hub.find_cached(spec.source, _path_in_repository(spec, name), spec.revision) for name in names)
    return next((path for path in cached if path is not None), None)


def _locate(spec: DiffusersSpec, name: str) -> Path:
    """Path of one file of the source, fetched from the hub if the source is a hub id."""
    if is_local(spec):
        return folder_of(spec) / name
    if not hub.HUB_ID.match(spec.source):
        raise WeightsError(f"{spec.source}: is neither a folder nor a hub id (owner/name); correct 'source'")
    by_hand = "get the repository on another machine and name its folder in place of the id"
    return hub.download(spec.source, _path_in_repository(spec, name), spec.revision, by_hand=by_hand).path


def _path_in_repository(spec: DiffusersSpec, name: str) -> str:
    return f"{spec.subfolder}/{name}".lstrip("/")
