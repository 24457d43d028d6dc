"""Photo sets, which training draws its crops from: photographs by index, with sizes known before decoding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos
from dcae_bench.data.photos import DATASETS


class PhotoSet(Protocol):
    """Photographs by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a photograph as uint8 RGB (height, width, 3). Raises :class:`DataError`, which names the file."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels, without decoding."""
        ...

    def key(self, index: int) -> str:
        """Name of a photograph in messages."""
        ...


class TrainingSet(PhotoSet, Protocol):
    """A photo set on disk, with the name and the hashes that the record of a training holds."""

    name: str
    sha256: str
    manifest_sha256: str


class FilePhotos:
    """The files of a manifest, decoded at each access. Access raises :class:`DataError` for a file that changed."""

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
        """Height and width in pixels, from the manifest."""
        height, width = self._manifest.sizes[index]
        return int(height), int(width)

    def key(self, index: int) -> str:
        """Path of the file, or its container and its name there."""
        return self._manifest.describe(index)

    @property
    def sides(self) -> np.ndarray:
        """Shorter side of every photograph."""
        return self._manifest.sizes.min(axis=1)


class JoinedPhotos:
    """Several photo sets joined into one, without photographs whose shorter side is below ``min_side`` pixels."""

    def __init__(self, sets: Sequence[PhotoSet], min_side: int | None = None):
        """Join ``sets`` in their order. Raises :class:`DataError` if no photograph is left."""
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
        """Name of a photograph in messages."""
        photos, inner = self._find(index)
        return photos.key(inner)

    @property
    def sides(self) -> np.ndarray:
        """Shorter side of every photograph."""
        sides = np.concatenate([_sides(photos) for photos in self._sets])
        return sides if self._kept is None else sides[self._kept]

    def _find(self, index: int) -> tuple[PhotoSet, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        whole = index if self._kept is None else int(self._kept[index])
        number = int(np.searchsorted(self._starts, whole, side="right")) - 1
        return self._sets[number], whole - int(self._starts[number])


def is_packed(name: str, split: str, data: Path) -> bool:
    """Whether a split is one pack below ``data``, as those of the embedded data sets are; others are lists of files."""
    return name in DATASETS or (data / name / f"{split}.npy").exists()


def open_training_set(name: str, data: Path, short_side: int) -> TrainingSet:
    """Open the training split of a data set in the folder ``data`` of prepared data.

    ``short_side`` is the largest shorter side of packed photographs in pixels. Raises :class:`DataError`.
    """
    if is_packed(name, "train", data):
        return PackedPhotos.open_split(data, name, "train", short_side)
    return FilePhotos(FileManifest.open_split(data, name, "train"))


def _sides(photos: PhotoSet) -> np.ndarray:
    if isinstance(photos, FilePhotos):
        return photos.sides
    return np.array([min(photos.size(index)) for index in range(len(photos))])
