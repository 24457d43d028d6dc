"""Samples, the generated images on disk: pixels and labels, read by index and checked against their manifest."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.reading import map_array
from dcae_bench.data.sample_manifest import LABELS, MANIFEST, SAMPLES, SampleManifest

REMEDY = "run `dcae-bench sample` again"


class ArrayImages:
    """Images of an array by index: the array is uint8 (n, R, R, 3) and may be a mapped file, an image is (3, R, R)."""

    def __init__(self, images: np.ndarray, *, name: str, sha256: str, split: Literal["train", "eval"] = "eval"):
        """``sha256`` identifies the pixels. Raises :class:`DataError` for anything but square 8-bit colour images."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
            raise DataError(f"{name}: holds {images.dtype} {images.shape}, not uint8 (n, side, side, 3); {REMEDY}")
        self._images, self.name, self.split = images, name, split
        self.resolution = int(images.shape[1])
        self.sha256 = self.manifest_sha256 = sha256

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """Name of the array and index of the image."""
        return f"{self.name}#{index}"

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._images[index])).permute(2, 0, 1)


class Samples(ArrayImages):
    """The generated images of one folder, with their labels (n,). The pixels stay on disk until they are read."""

    def __init__(self, folder: Path, *, sha256: str, labels_sha256: str):
        """Open ``folder`` and check the hashes of pixels and labels.

        Raises :class:`DataError`, which names the file that is missing, damaged or not what it was.
        """
        images = _open_array(folder / SAMPLES)
        self.labels = _open_array(folder / LABELS)
        if self.labels.shape != (len(images),) or self.labels.dtype.kind != "i":
            found = f"{self.labels.dtype} {self.labels.shape} for {len(images)} images"
            raise DataError(f"{folder / LABELS}: holds {found}; {REMEDY}")
        super().__init__(images, name=str(folder / SAMPLES), sha256=sha256)
        for path, wanted in ((folder / SAMPLES, sha256), (folder / LABELS, labels_sha256)):
            if (found := known_sha256(path)) != wanted:
                raise DataError(
                    f"{path}: sha256 is {found}, {MANIFEST} says {wanted}; delete {folder} and sample again"
                )


def _open_array(path: Path) -> np.ndarray:
    try:
        return map_array(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    except ValueError as error:
        raise DataError(f"{path}: is not a NumPy array ({error}); {REMEDY}") from error


def open_samples(folder: Path, manifest: SampleManifest) -> Samples:
    """Open the samples of a manifest and check them against it. Raises :class:`DataError`."""
    return Samples(folder, sha256=manifest.sha256, labels_sha256=manifest.labels_sha256)
