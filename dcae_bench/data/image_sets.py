"""Image sets: images that the user already has, in a folder, containers or an array, by index in the order of names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.npz import array_names, map_member
from dcae_bench.base.reading import map_array
from dcae_bench.base.terminal import Console
from dcae_bench.data.containers.kinds import COMPRESSED, KINDS
from dcae_bench.data.decode import ImageError
from dcae_bench.data.external import image_folder, is_there
from dcae_bench.data.layout import ANY, describe_folder, find_pattern, list_containers
from dcae_bench.data.listing import MissingShardError, NothingFoundError
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

    def describe(self, index: int) -> str:
        """An image in a message: its file, its container and name, or its array and number."""
        ...

    def read(self, index: int) -> np.ndarray:
        """Pixels, uint8 RGB (height, width, 3). Raises :class:`DataError` for an image that is not what it was."""
        ...


def size_text(size: np.ndarray) -> str:
    """Height and width as a message has them, width first."""
    return f"{size[1]}x{size[0]}"


class FileSet:
    """The images of a manifest, files or parts of containers, in the order of their paths, part by part."""

    named = True

    def __init__(self, manifest: FileManifest, source: str):
        self._manifest, self.source, self.sha256 = manifest, source, manifest.info.tree_sha256
        self.names = [row.path for row in manifest]

    def __len__(self) -> int:
        return len(self._manifest)

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, (n, 2)."""
        return self._manifest.sizes

    def describe(self, index: int) -> str:
        """An image in a message."""
        return self._manifest.describe(index)

    def read(self, index: int) -> np.ndarray:
        """Pixels of an image, whose hash is checked."""
        try:
            return self._manifest.read(index)
        except ImageError:
            raise
        except DataError as error:  # whose remedy is for prepared data
            raise DataError(
                f"{self.describe(index)}: is not what it was when the command began; let nothing change the images, "
                "and run the same command again"
            ) from error


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

    def describe(self, index: int) -> str:
        """An image in a message."""
        return f"{self.source}#{self.names[index]}"

    def read(self, index: int) -> np.ndarray:
        """Pixels of an image of the array."""
        return np.array(self._images[index])


def require_source(source: Path, *, follow_links: bool = False) -> None:
    """Check, before any work, that a source is there and may hold images. Raises :class:`DataError`."""
    kinds = ", ".join((*KINDS, *ARRAYS))
    if not (is_array(source) or is_there(source)):
        what = "is no folder of images, nor one of" if source.exists() else "is not there; name a folder of images or"
        remedy = "decompress it first" if source.name.lower().endswith(COMPRESSED) else "name such a source"
        raise DataError(f"{source}: {what} {kinds}{f'; {remedy}' if source.exists() else ''}")
    if not source.is_dir() or find_pattern(source, (ANY,), follow_links=follow_links) is not None:
        return
    if not list_containers(source, follow_links=follow_links):
        raise DataError(
            f"{source}: holds no images and no {', '.join(KINDS)}, but {describe_folder(source)}; name the folder that "
            "does"
        )


def is_array(source: Path) -> bool:
    """Whether a source is a file that holds all images in one array."""
    return source.suffix.lower() in ARRAYS and source.is_file()


def open_image_set(
    source: Path, scratch: Path, *, follow_links: bool = False, workers: int = 1, console: Console | None = None
) -> ImageSet:
    """Open every image of a folder, of a container or a pattern of containers, or of a ``.npz`` or ``.npy`` file.

    Every image of the first three is read once and listed in a manifest in the folder ``scratch``, which must stay
    until the images are read; readings are kept in the user's cache. ``follow_links`` follows links out of the source.
    Raises :class:`DataError` for a source that holds no images, or some that cannot be used, and :class:`ResultsError`.
    """
    if not is_array(source):
        every = image_folder(str(source), ("eval",))  # with one split, the names of containers say nothing of splits
        try:
            prepare_files(every, "eval", source, scratch, follow_links=follow_links, workers=workers, console=console)
        # The remedies of these errors name options of `prepare`.
        except MissingShardError as error:
            raise DataError(
                f"{error.state}; get it, or name those that you mean by a pattern ({error.pattern})"
            ) from error
        except NothingFoundError as error:
            raise DataError(
                f"{source}: holds no images; name a folder of images or a container ({', '.join(KINDS)})"
            ) from error
    return reopen_image_set(source, scratch)


def reopen_image_set(source: Path, scratch: Path) -> ImageSet:
    """Open a source that another process has opened with the same ``scratch``. Raises :class:`DataError`."""
    if is_array(source):
        return open_array(source, scratch)
    return FileSet(FileManifest(scratch / "eval.parquet"), str(source))


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
        raise DataError(
            f"{path}: holds no images that can be read ({error}); get the file again, or save {SHAPE} as {IMAGES}"
        ) from error
    return ArraySet(images, str(path), sha256)
