"""The weights file of FID's Inception network: where it is, how it is fetched, and the check of its hash."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcae_bench.base.errors import WeightsError
from dcae_bench.base.files import atomic_write, cache_dir, open_regular, sha256_file
from dcae_bench.weights.https import Progress, download

if TYPE_CHECKING:
    from torch import Tensor

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
OTHER_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's name for the same file."""
SHA256_PREFIX = "6726825d"
"""First digits of the file's SHA-256; the publishers put these digits into the file's name."""
LICENCE = "Apache-2.0"
VARIABLE = "DCAE_BENCH_INCEPTION"


@dataclass(frozen=True)
class InceptionState:
    """The content of a weights file."""

    tensors: Mapping[str, Tensor]
    sha256: str
    official: bool
    """Whether the file is FID's. A distance by other weights is not called FID."""


def inception_weights(path: Path | None = None) -> Path:
    """Path of the Inception weights: ``path``, else ``$DCAE_BENCH_INCEPTION``, else the file in the cache.

    Nothing is downloaded. Raises :class:`WeightsError` when there is no file, or when the file's hash is not FID's.
    """
    path, source = _locate(path)
    found = _sha256(path, source)
    if not found.startswith(SHA256_PREFIX):
        raise WeightsError(
            f"{source}{path}: SHA-256 is {found}, expected {SHA256_PREFIX}…; {_remedy()}, or measure with these other "
            "weights under their own name (any_hash)"
        )
    return path


def fetch_inception(path: Path | None = None, *, progress: Progress = lambda done, total: None) -> Path:
    """Bring the file to the cache, from ``path`` if given, else over https, and return the file's path in the cache.

    Without ``path``, a file already in the cache is kept if its hash is right. Raises :class:`WeightsError`.
    """
    target = _target()
    if path is None:
        if not (target.exists() and _sha256(target, "").startswith(SHA256_PREFIX)):
            download(URL, target, sha256_prefix=SHA256_PREFIX, progress=progress)
        return target
    checked = inception_weights(path)
    if checked.resolve() != target.resolve():
        with atomic_write(target) as file, open_regular(checked) as source:
            while chunk := source.read(1 << 20):
                file.write(chunk)
    return inception_weights(target)


def load_inception_state(path: Path | None = None, *, any_hash: bool = False) -> InceptionState:
    """Read the weights as tensors, without running any code in the file.

    ``any_hash`` admits a file other than FID's, for distances under another name. Raises :class:`WeightsError`.
    """
    # Commands and the workflow only ask where the file is. The slow import of torch waits until the file is read.
    import torch

    path, source = _locate(path) if any_hash else (inception_weights(path), "")
    sha256 = _sha256(path, source)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{source}{path}: is not a file of tensors ({reason}); {_remedy()}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{source}{path}: holds something else than named tensors; {_remedy()}")
    return InceptionState(tensors, sha256, official=sha256.startswith(SHA256_PREFIX))


def is_available() -> bool:
    """Whether ``$DCAE_BENCH_INCEPTION`` names a file or the cache has one. Does not read the file."""
    return bool(os.environ.get(VARIABLE)) or cached_file() is not None


def cached_file() -> Path | None:
    """The weights file in the cache, under either of its names, or None. Does not read the file."""
    folder = cache_dir() / "weights"
    return next((path for path in (folder / FILE, folder / OTHER_FILE) if path.exists()), None)


def _target() -> Path:
    return cache_dir() / "weights" / FILE


def _locate(path: Path | None) -> tuple[Path, str]:
    """The file, and the text before its name in a message: which variable named the file, or nothing."""
    if path is not None:
        return Path(path).expanduser(), ""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser(), f"${VARIABLE}="
    return cached_file() or _target(), ""


def _sha256(path: Path, source: str) -> str:
    try:
        return sha256_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{source}{path}: the Inception weights are not there; {_remedy()}") from error
    except OSError as error:
        raise WeightsError(f"{source}{path}: cannot be read ({error.strerror}); {_remedy()}") from error


def _remedy() -> str:
    return (
        f"run `dcae-bench weights fetch inception`, or put {FILE} from {URL} at {_target()} or name it with ${VARIABLE}"
    )
