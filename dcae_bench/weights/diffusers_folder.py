"""Source of a diffusers model: a local folder or a hub repository, with config.json and a weights file."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.reading import read_json
from dcae_bench.specs.autoencoders import DiffusersSpec
from dcae_bench.weights import hub

CONFIG = "config.json"
INDEX = ".safetensors.index.json"
"""How the name of an index ends, which lists the tensors of weights in several files."""
# Names of the weights file in a local folder and in a hub repository. The first file that exists is used.
FOLDER_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    f"diffusion_pytorch_model{INDEX}",
    f"model{INDEX}",
)
HUB_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", f"diffusion_pytorch_model{INDEX}")
OFFICIAL_FILE = "model.safetensors"
"""Weights in the authors' own repositories on the hub."""
AUTOENCODER_FOLDERS = ("vae", "vqvae", "vqgan", "movq")
"""Where pipelines of diffusers keep their autoencoder."""
VARIANT = re.compile(r"(diffusion_pytorch_model|model)\.(?!.*-\d+-of-)[\w-]+(\.safetensors|\.bin)")
"""File of a variant, such as fp16, which is used where a folder holds no other weights."""


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
    for name in HUB_FILES[:-1]:
        with suppress(hub.NoSuchFile):
            return _locate(spec, name)
    index = _locate(spec, HUB_FILES[-1])
    for name in listed_files(index):
        _locate(spec, name)
    return index


def is_local(spec: DiffusersSpec) -> bool:
    """Whether the source is a folder on this machine."""
    return Path(spec.source).expanduser().is_dir()


def folder_of(spec: DiffusersSpec) -> Path:
    """Folder of a local source that holds config.json and the weights."""
    return Path(spec.source).expanduser() / spec.subfolder


def find_weights(folder: Path) -> Path | None:
    """Weights file of a folder, or the index of several; None without one.

    The file of a variant, such as fp16, is used where it is the only one. Raises :class:`WeightsError` for a folder
    that holds several variants and nothing else.
    """
    if (found := next((folder / name for name in FOLDER_FILES if (folder / name).exists()), None)) is not None:
        return found
    variants = sorted(file for file in folder.glob("*model.*") if VARIANT.fullmatch(file.name))
    if len(variants) > 1:
        names = ", ".join(file.name for file in variants)
        raise WeightsError(f"{folder}: holds the variants {names}; name the file itself")
    return variants[0] if variants else None


def listed_files(index: Path) -> list[str]:
    """Names of the files that an index lists, sorted. Raises :class:`WeightsError`."""
    try:
        listed = sorted(set(read_json(index)["weight_map"].values()))
        wrong = [name for name in listed if Path(name).name != name]
    except OSError as error:
        raise WeightsError(f"{index}: cannot be read ({error.strerror}); fetch it first") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: is not an index of weights; get the folder again") from error
    if wrong or not listed:
        raise WeightsError(f"{index}: lists {wrong[0] if wrong else 'no file'}; get the folder again")
    return listed


def shards_of(index: Path) -> list[Path]:
    """The files that an index lists. Raises :class:`WeightsError`, also for a file that is not there."""
    found = [index.parent / name for name in listed_files(index)]
    if missing := [path for path in found if not path.exists()]:
        raise WeightsError(f"{missing[0]}: does not exist, but {index.name} lists it; get it too")
    return found


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
