"""What training draws its crops from: photographs by index whose sizes are known before they are decoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.data.photos import DATASETS
from dcae_bench.errors import DataError


class PhotoSet(Protocol):
    """Photographs by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Pixels, uint8 RGB (height, width, 3). Raises :class:`DataError` naming the file."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels, without decoding."""
        ...

    def key(self, index: int) -> str:
        """Name in messages."""
        ...


class TrainingSet(PhotoSet, Protocol):
    """A data set on disk, as a training names it in its record."""

    name: str
    sha256: str
    manifest_sha256: str


class FilePhotos:
    """The files of a manifest, decoded on access and not kept. Raises :class:`DataError` for a file that changed."""

    def __init__(self, manifest: FileManifest):
        self._manifest = manifest
        self.name = manifest.info.name
        self.split = manifest.info.split
        self.sha256 = self.manifest_sha256 = manifest.info.tree_sha256

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._manifest.read(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels, as the manifest has them."""
        height, width = self._manifest.sizes[index]
        return int(height), int(width)

    def key(self, index: int) -> str:
        """Path of the file."""
        return str(self._manifest.root / self._manifest[index].path)

    @property
    def sides(self) -> np.ndarray:
        """Shorter side of every photograph."""
        return self._manifest.sizes.min(axis=1)


class JoinedPhotos:
    """Several sets as one, in the order given, without photographs whose shorter side is below ``min_side``."""

    def __init__(self, sets: Sequence[PhotoSet], min_side: int | None = None):
        """Raises :class:`DataError` if no photograph is left."""
        self._sets = list(sets)
        self._starts = np.cumsum([0, *map(len, self._sets)])
        self._kept: np.ndarray | None = None
        if min_side is not None:
            self._kept = np.flatnonzero(np.concatenate([_sides(photos) for photos in self._sets]) >= min_side)
        if not len(self):
            raise DataError(f"no photograph has a shorter side of {min_side} px; lower min_side or add a data set")

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> np.ndarray:
        photos, inner = self._find(index)
        return photos[inner]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels, without decoding."""
        photos, inner = self._find(index)
        return photos.size(inner)

    def key(self, index: int) -> str:
        """Name in messages."""
        photos, inner = self._find(index)
        return photos.key(inner)

    def _find(self, index: int) -> tuple[PhotoSet, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        whole = index if self._kept is None else int(self._kept[index])
        number = int(np.searchsorted(self._starts, whole, side="right")) - 1
        return self._sets[number], whole - int(self._starts[number])


def is_packed(name: str, split: str, data: Path) -> bool:
    """Whether a split lies as one pack of pixels below ``data``: the embedded sets do, others are lists of files."""
    return name in DATASETS or (data / name / f"{split}.npy").exists()


def open_training_set(name: str, data: Path) -> TrainingSet:
    """The training split of a data set that was prepared into ``data``. Raises :class:`DataError`."""
    if is_packed(name, "train", data):
        return PackedPhotos.of(data, name, "train")
    return FilePhotos(FileManifest.of(data, name, "train"))


def _sides(photos: PhotoSet) -> np.ndarray:
    if isinstance(photos, FilePhotos):
        return photos.sides
    return np.array([min(photos.size(index)) for index in range(len(photos))])
