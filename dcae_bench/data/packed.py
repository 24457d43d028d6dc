"""Packed photographs: the photographs of one split in one memory-mapped file."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcae_bench.data.photos import Manifest, Split, read_photo
from dcae_bench.errors import DataError
from dcae_bench.files import sha256_file, write_bytes, write_text


class PackedPhoto(BaseModel):
    """Where a photograph lies in the pack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    offset: int = Field(ge=0, description="of its first byte among the pack's pixels")
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Index(BaseModel):
    """What stands beside a pack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    name: str = Field(description="data set")
    split: Split
    short_side: int = Field(description="largest short side in pixels; larger photographs were reduced to it")
    sha256: str = Field(description="of the .npy file")
    manifest_sha256: str
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

    def __getitem__(self, index):
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

    def __init__(self, pixels: np.ndarray, index: Index):
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
        self.manifest_sha256 = index.manifest_sha256

    @classmethod
    def of(cls, data: Path, dataset: str, split: Split) -> Self:
        """Open the pack of a split that was prepared into ``data``.

        Raises :class:`DataError` also where it holds another data set or split.
        """
        path = data / dataset / f"{split}.npy"
        photos = cls.open(path)
        if (photos.name, photos.split) != (dataset, split):
            raise DataError(
                f"{path}: holds {photos.name} {photos.split} photographs, not {dataset} {split}; prepare {dataset} "
                "into this folder"
            )
        return photos

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the pack at ``path`` (.npy, its index beside it). Raises :class:`DataError` when it is damaged."""
        path = Path(path)
        remedy = "delete it and prepare the data again"
        try:
            index = Index.model_validate_json(index_path(path).read_bytes())
            found = sha256_file(path)
            if found != index.sha256:
                raise DataError(f"{path}: sha256 is {found}, its index says {index.sha256}; {remedy}")
            return cls(np.load(path, mmap_mode="r", allow_pickle=False), index)
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read ({error.strerror}); {remedy}") from error
        except ValidationError as error:
            raise DataError(f"{index_path(path)}: is not an index ({error.errors()[0]['msg']}); {remedy}") from error
        except ValueError as error:
            raise DataError(f"{path}: does not fit its index ({error}); {remedy}") from error


def index_path(path: Path) -> Path:
    """Path of the index that belongs to a pack."""
    return Path(path).with_suffix(".json")


def pack(manifest: Manifest, split: Split, short_side: int, path: Path) -> Index:
    """Read the photographs of a split, reduce them to ``short_side`` pixels, and write pack and index atomically.

    Raises :class:`DataError` for a photograph that cannot be used and ResultsError when ``path`` cannot be written.
    """
    if Path(path).suffix != ".npy":
        raise ValueError(f"{path}: a pack is a .npy file")
    photos, arrays, offset = [], [], 0
    for photo in manifest.split(split):
        pixels = reduce(read_photo(photo), short_side)
        height, width, _ = pixels.shape
        photos.append(PackedPhoto(name=photo.name, offset=offset, height=height, width=width))
        arrays.append(pixels.reshape(-1))
        offset += pixels.size
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate(arrays))
    write_bytes(path, buffer.getbuffer())
    index = Index(
        name=manifest.name,
        split=split,
        short_side=short_side,
        sha256=sha256_file(path),
        manifest_sha256=manifest.sha256,
        photos=tuple(photos),
    )
    # The index goes last: until it does, an old one does not fit the new pack, and opening says so.
    write_text(index_path(path), index.model_dump_json(indent=2) + "\n")
    return index


def reduce(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Reduce a photograph (h, w, 3) so that its short side is at most ``short_side``; smaller ones stay as they are.

    As the paper's evaluation does before cropping: box-filter halvings, then bicubic for the rest.
    """
    image = Image.fromarray(pixels)
    while min(image.size) >= 2 * short_side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = short_side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(image)
