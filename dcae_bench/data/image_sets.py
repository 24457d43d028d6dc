"""Image sets: images that the user already has, in a folder or in an array, by index in the order of their names."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.npz import array_names, map_member
from dcae_bench.base.reading import map_array
from dcae_bench.base.terminal import Console
from dcae_bench.data.decode import SUFFIXES
from dcae_bench.data.external import image_folder
from dcae_bench.data.layout import ANY, describe_folder, find_pattern
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.prepare import prepare_files

ARRAYS = (".npz", ".npy")
"""Suffixes of files that hold all images in one array."""
IMAGES = "arr_0"
"""Name of the images in ADM's ``.npz`` files, as ``np.savez`` gives it to its first array."""
SHAPE = "uint8 (n, height, width, 3)"


class ImageSet(Protocol):
    """Images of any size by index, with names."""

    source: str
    """What the user named."""
    sha256: str
    """Hash over the names and contents of all images; for an array, of its file."""
    named: bool
    """Whether the names are the user's; the images of an array are only numbered."""

    def __len__(self) -> int: ...

    @property
    def names(self) -> Sequence[str]:
        """Unique names: paths below the source with forward slashes, or numbers of six digits."""
        ...

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, (n, 2)."""
        ...

    def read(self, index: int) -> np.ndarray:
        """Pixels, uint8 RGB (height, width, 3). Raises :class:`DataError` for an image that is not what it was."""
        ...


class FileSet:
    """The files of a manifest, in the order of their paths, part by part, whatever order the manifest has."""

    named = True

    def __init__(self, manifest: FileManifest, source: str):
        self._manifest, self.source = manifest, source
        paths = [row.path for row in manifest]
        self._order = sorted(range(len(paths)), key=lambda index: paths[index].split("/"))
        self.names = [paths[index] for index in self._order]
        self.sha256 = manifest.info.tree_sha256
        if self.names != paths:
            rows = list(manifest)
            texts = (f"{row.sha256} {row.bytes} {row.path}\0" for row in (rows[index] for index in self._order))
            self.sha256 = hashlib.sha256("".join(texts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each file, (n, 2)."""
        return self._manifest.sizes[self._order]

    def read(self, index: int) -> np.ndarray:
        """Pixels of a file, whose hash is checked."""
        return self._manifest.read(self._order[index])


class ArraySet:
    """The images of one array, uint8 (n, height, width, 3), which may be mapped from its file."""

    named = False

    def __init__(self, images: np.ndarray, source: str, sha256: str):
        """Raises :class:`DataError` for an array of another type or shape."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DataError(f"{source}: holds {images.dtype} {images.shape}; save the images as {SHAPE}")
        if 0 in images.shape:
            raise DataError(f"{source}: holds no images; its array has shape {images.shape}")
        self._images, self.source, self.sha256 = images, source, sha256
        self.names = [f"{index:06}" for index in range(len(images))]
        self.sizes = np.broadcast_to(np.array(images.shape[1:3]), (len(images), 2))

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> np.ndarray:
        """Pixels of an image of the array."""
        return np.array(self._images[index])


def require_source(source: Path) -> None:
    """Check, before any work, that images may be in a source. Raises :class:`DataError`."""
    if source.is_dir():
        if find_pattern(source, (ANY,)) is None:
            suffixes = ", ".join(sorted(SUFFIXES))
            raise DataError(
                f"{source}: holds no images ({suffixes}), but {describe_folder(source)}; name the folder that does"
            )
    elif source.suffix.lower() not in ARRAYS:
        what = "is no folder and" if source.exists() else "is not there;"
        raise DataError(f"{source}: {what} none of {', '.join(ARRAYS)}; name a folder of images or such a file")


def open_image_set(source: Path, scratch: Path, *, workers: int = 1, console: Console | None = None) -> ImageSet:
    """Open the images of a folder (at any depth), or of a ``.npz`` or ``.npy`` file.

    Every file of a folder is read once and listed in a manifest in the folder ``scratch``, which must stay until the
    images are read; readings are kept in the user's cache. Raises :class:`DataError` for a source that is not there, or
    holds no images, or some that cannot be used, and :class:`ResultsError`.
    """
    require_source(source)
    if source.is_dir():
        prepare_files(image_folder(str(source)), "eval", source, scratch, workers=workers, console=console)
    return reopen_image_set(source, scratch)


def reopen_image_set(source: Path, scratch: Path) -> ImageSet:
    """Open a source that another process has opened with the same ``scratch``. Raises :class:`DataError`."""
    if source.is_dir():
        return FileSet(FileManifest(scratch / "eval.parquet"), str(source))
    return open_array(source, scratch)


def open_array(path: Path, scratch: Path) -> ArraySet:
    """Open the images of a ``.npz`` or ``.npy`` file without reading them into memory.

    Of a ``.npz`` file, the images are ``arr_0``, else its only array; a compressed one is unpacked into ``scratch``.
    Raises :class:`DataError` and :class:`ResultsError`.
    """
    try:
        if path.suffix.lower() == ".npy":
            images: np.ndarray = map_array(path)
        else:
            names = array_names(path)
            if IMAGES not in names and len(names) != 1:
                raise ValueError(f"it holds {', '.join(names) or 'nothing'}, not {IMAGES}")
            images = map_member(path, IMAGES if IMAGES in names else names[0], scratch / "images.npy")
        sha256 = known_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); make it readable") from error
    except ValueError as error:
        raise DataError(f"{path}: holds no images that can be read ({error}); save {SHAPE} as {IMAGES}") from error
    return ArraySet(images, str(path), sha256)


def shown(images: ImageSet, index: int) -> str:
    """An image in a message."""
    return f"{images.source}{'/' if images.named else '#'}{images.names[index]}"
