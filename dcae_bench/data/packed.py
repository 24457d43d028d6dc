"""Packs: the photographs of one split, reduced and stored in one memory-mapped file."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
from PIL import Image
from pydantic import Field

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_file, write_bytes
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.reading import map_array
from dcae_bench.base.sealed import read_sealed, write_sealed
from dcae_bench.base.typed import Strict
from dcae_bench.data.photos import DATASETS, PhotoManifest, Split, load_manifest, read_photo
from dcae_bench.records.fingerprint import fingerprint


class PackedPhoto(Strict):
    """Place of one photograph in the pack."""

    name: str
    offset: int = Field(ge=0, description="offset of the photograph's first byte in the pack's pixels")
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class PackIndex(Strict):
    """Index of a pack, stored beside the pack as ``<split>.json``."""

    version: Literal[1] = 1
    name: str = Field(description="name of the data set")
    split: Split
    short_side: int = Field(description="largest shorter side in pixels; larger photographs were reduced to this side")
    sha256: str = Field(description="hash of the .npy file")
    manifest_sha256: str
    code_sha256: str | None = Field(default=None, description="fingerprint of the code that packed; null: not stated")
    photos: tuple[PackedPhoto, ...]


class Photos(Sequence[np.ndarray]):
    """Photographs in memory, uint8 RGB (height, width, 3) each, with their names."""

    def __init__(self, arrays: Iterable[np.ndarray], names: Iterable[str]):
        self._arrays = list(arrays)
        self.names = tuple(names)
        if len(self._arrays) != len(self.names):
            raise ValueError(f"{len(self._arrays)} photographs have {len(self.names)} names")

    def __len__(self) -> int:
        return len(self._arrays)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        return self._arrays[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a photograph in pixels."""
        height, width, _ = self._arrays[index].shape
        return height, width

    def key(self, index: int) -> str:
        """Name of a photograph."""
        return self.names[index]


class PackedPhotos(Photos):
    """A pack on disk, opened read-only; its photographs are views of the mapped file."""

    def __init__(self, pixels: np.ndarray, index: PackIndex):
        """Use :meth:`open`."""
        shapes = [(photo.height, photo.width, 3) for photo in index.photos]
        arrays = [
            pixels[photo.offset : photo.offset + np.prod(shape)].reshape(shape)
            for photo, shape in zip(index.photos, shapes, strict=True)
        ]
        super().__init__(arrays, (photo.name for photo in index.photos))
        self.name = index.name
        self.split = index.split
        self.short_side = index.short_side
        self.sha256 = index.sha256
        self.code_sha256 = index.code_sha256
        self.manifest_sha256 = index.manifest_sha256

    @classmethod
    def open_split(cls, data: Path, dataset: str, split: Split, short_side: int) -> Self:
        """Open the pack of a split in the folder ``data`` of prepared data.

        ``short_side`` is the largest shorter side that the profile asks for, in pixels. Raises :class:`DataError` as
        :meth:`open` does, and also for a pack of another data set or split, and for one that preparing the data set
        now would not make.
        """
        path = data / dataset / f"{split}.npy"
        photos = cls.open(path)
        if (photos.name, photos.split) != (dataset, split):
            raise DataError(
                f"{path}: holds {photos.name} {photos.split} photographs, not {dataset} {split}; prepare {dataset} "
                "into this folder"
            )
        for what, found, needed in (
            ("its photographs have a shorter side of", photos.short_side, short_side),
            *_made(dataset, photos),
        ):
            if found != needed:
                raise DataError(
                    f"{path}: {what} {_short(found)}, the profile needs {_short(needed)}; prepare {dataset} again "
                    "(dcae-bench prepare)"
                )
        return photos

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the pack at ``path`` (.npy, with its index beside it) and check its hash.

        Raises :class:`DataError` when the pack or its index is missing or damaged.
        """
        path = Path(path)
        remedy = "delete it and prepare the data again"
        try:
            index = read_sealed(index_path(path), PackIndex)
        except OSError as error:
            raise DataError(
                f"{error.filename or index_path(path)}: cannot be read ({error.strerror}); {remedy}"
            ) from error
        except ValueError as error:
            raise DataError(f"{index_path(path)}: is not an index ({error}); {remedy}") from error
        try:
            found = known_sha256(path)
            if found != index.sha256:
                raise DataError(f"{path}: sha256 is {found}, its index says {index.sha256}; {remedy}")
            return cls(map_array(path), index)
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read ({error.strerror}); {remedy}") from error
        except ValueError as error:
            raise DataError(f"{path}: does not fit its index ({error}); {remedy}") from error


def _made(dataset: str, photos: PackedPhotos) -> list[tuple[str, object, object]]:
    """Of what and by which code an embedded data set is packed: name, value of the pack, value that is right now."""
    if dataset not in DATASETS:
        return []
    return [
        ("it holds photographs of manifest", photos.manifest_sha256, load_manifest(dataset).sha256),
        ("it was packed by code", photos.code_sha256, fingerprint(__name__)),
    ]


def _short(value: object) -> str:
    """Shorten a hash to 12 digits; leave other values as they are."""
    return value[:12] if isinstance(value, str) else str(value)


def index_path(path: Path) -> Path:
    """Path of a pack's index."""
    return Path(path).with_suffix(".json")


def write_index(index: PackIndex, path: Path) -> None:
    """Write the index of the pack at ``path``. Raises :class:`ResultsError`."""
    write_sealed(index_path(path), index)


def pack(manifest: PhotoManifest, split: Split, short_side: int, path: Path) -> PackIndex:
    """Read the photographs of a split, reduce them to ``short_side`` pixels, and write the pack and its index.

    Each of the two files is written atomically. Raises :class:`DataError` for a photograph that cannot be used, and
    :class:`ResultsError` when ``path`` cannot be written.
    """
    if Path(path).suffix != ".npy":
        raise ValueError(f"{path}: a pack is a .npy file")
    photos, arrays, offset = [], [], 0
    for photo in manifest.split(split):
        pixels = shrink(read_photo(photo), short_side)
        height, width, _ = pixels.shape
        photos.append(PackedPhoto(name=photo.name, offset=offset, height=height, width=width))
        arrays.append(pixels.reshape(-1))
        offset += pixels.size
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate(arrays))
    write_bytes(path, buffer.getvalue())
    index = PackIndex(
        name=manifest.name,
        split=split,
        short_side=short_side,
        sha256=sha256_file(path),
        manifest_sha256=manifest.sha256,
        code_sha256=fingerprint(__name__),
        photos=tuple(photos),
    )
    # The index is written last. Until then an old index does not fit the new pack, and opening the pack says so.
    write_index(index, path)
    return index


def shrink(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Reduce a photograph (h, w, 3) so that its shorter side is at most ``short_side`` pixels; never enlarge it.

    The method is that of the paper's evaluation before cropping: halvings by a box filter, then bicubic resizing.
    """
    image = Image.fromarray(pixels)
    while min(image.size) >= 2 * short_side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = short_side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(image)
