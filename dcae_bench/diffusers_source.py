"""Where a model of diffusers comes from: a local folder or a repository of the hub, with config.json and weights."""

import json
from pathlib import Path
from typing import Any

from dcae_bench import hub
from dcae_bench.errors import WeightsError
from dcae_bench.specs import DiffusersSpec

CONFIG = "config.json"
# What a folder of weights may hold, and what the hub's repositories do; the first that exists counts.
FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin")
HUB_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def read_config(spec: DiffusersSpec) -> dict[str, Any]:
    """config.json of a spec's source. Raises :class:`WeightsError` when it is missing or is not JSON."""
    path = _file(spec, CONFIG)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise hub.NoSuchFile(f"{path}: does not exist; put diffusers' config.json there") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: is not a readable config ({error}); put diffusers' config.json there") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is not a JSON object; put diffusers' config.json there")
    return content


def source_weights(spec: DiffusersSpec) -> Path:
    """Weights of a spec's source: a local folder, or the file fetched from the hub. Raises :class:`WeightsError`."""
    if is_local(spec):
        return folder_of(spec)
    try:
        return _file(spec, HUB_FILES[0])
    except hub.NoSuchFile:
        return _file(spec, HUB_FILES[1])


def is_local(spec: DiffusersSpec) -> bool:
    """Whether the source is a folder of this machine."""
    return Path(spec.source).expanduser().is_dir()


def folder_of(spec: DiffusersSpec) -> Path:
    """The folder that holds config.json and weights of a local source."""
    return Path(spec.source).expanduser() / spec.subfolder


def weights_in(folder: Path) -> Path | None:
    """The weights file of a folder, if it has one."""
    return next((folder / name for name in FOLDER_FILES if (folder / name).exists()), None)


def here(spec: DiffusersSpec, *names: str) -> Path | None:
    """The first of some files of the source that is on this machine; nothing is fetched."""
    if is_local(spec):
        found = (folder_of(spec) / name for name in names)
        return next((path for path in found if path.exists()), None)
    if not hub.HUB_ID.match(spec.source):
        return None
    cached = (hub.cached(spec.source, _place(spec, name), spec.revision) for name in names)
    return next((path for path in cached if path is not None), None)


def _file(spec: DiffusersSpec, name: str) -> Path:
    if is_local(spec):
        return folder_of(spec) / name
    if not hub.HUB_ID.match(spec.source):
        raise WeightsError(f"{spec.source}: is neither a folder nor a hub id (owner/name); correct 'source'")
    by_hand = "get the repository on another machine and name its folder in place of the id"
    return hub.download(spec.source, _place(spec, name), spec.revision, by_hand=by_hand).path


def _place(spec: DiffusersSpec, name: str) -> str:
    """A file's path inside the repository."""
    return f"{spec.subfolder}/{name}".lstrip("/")
