"""Generated images on disk: ``samples.npy`` and ``labels.npy`` in one folder."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dcae_bench.errors import DataError

REMEDY = "run `dcae-bench sample` again"


class ArrayImages:
    """Images of an array uint8 (n, R, R, 3), which may be a mapped file, by index as uint8 (3, R, R)."""

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
        """Name and number."""
        return f"{self.name}#{index}"

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self._images[index])).permute(2, 0, 1)


class Samples(ArrayImages):
    """The generated images of one folder with their labels; pixels stay on disk."""

    def __init__(self, folder: Path, sha256: str):
        """``sha256`` is that of the pixels. Raises :class:`DataError` naming the file that is missing or damaged."""
        images = _array(folder / "samples.npy")
        self.labels = _array(folder / "labels.npy")
        if self.labels.shape != (len(images),) or self.labels.dtype.kind != "i":
            found = f"{self.labels.dtype} {self.labels.shape} for {len(images)} images"
            raise DataError(f"{folder / 'labels.npy'}: holds {found}; {REMEDY}")
        super().__init__(images, name=str(folder / "samples.npy"), sha256=sha256)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a NumPy array ({error}); {REMEDY}") from error
