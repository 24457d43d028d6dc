"""Photographs: the committed manifest of those that ship in PyPI packages, and how to read them."""

import hashlib
import importlib.metadata
import io
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from dcae_bench.errors import DataError
from dcae_bench.files import sha256_json

Split = Literal["train", "eval"]

DATASETS = ("photos-indoor", "photos-mixed")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Photo(_Frozen):
    """One photograph in an installed package."""

    path: str = Field(description="inside the package's installation")
    package: str = Field(description="name on PyPI")
    sha256: str = Field(description="of the file")
    width: int = Field(description="in pixels, upright")
    height: int = Field(description="in pixels, upright")
    split: Split
    group: str = Field(description="scene; photographs of one scene are never split")
    credit: str | None = Field(default=None, description="photographer and licence where the package names them")

    @property
    def name(self) -> str:
        """Name in messages and packs: package and file."""
        return f"{self.package}/{Path(self.path).name}"


class Package(_Frozen):
    """A package that photographs come from."""

    version: str | None = Field(description="the pinned version; null where any with the same files will do")
    licence: str


class Manifest(_Frozen):
    """A data set of photographs."""

    name: str
    packages: dict[str, Package]
    photos: tuple[Photo, ...]

    @property
    def sha256(self) -> str:
        """Hash of all that shapes the data: which photographs, their content, and how they are split."""
        return sha256_json(
            {"name": self.name, "photos": [photo.model_dump(exclude={"credit"}) for photo in self.photos]}
        )

    def split(self, split: Split) -> tuple[Photo, ...]:
        """Photographs of one split, in the manifest's order."""
        return tuple(photo for photo in self.photos if photo.split == split)


@cache
def load_manifest(name: str) -> Manifest:
    """Load the manifest of one of :data:`DATASETS`. Raises :class:`DataError` for any other name."""
    if name not in DATASETS:
        raise DataError(f"data set {name!r} does not exist; choose one of {', '.join(DATASETS)}")
    content = yaml.safe_load(Path(__file__).with_name("photos.yaml").read_text())
    return Manifest(name=name, **content[name])


def locate(photo: Photo) -> Path:
    """Path of a photograph in its installed package, which is not imported. Raises :class:`DataError`."""
    try:
        distribution = importlib.metadata.distribution(photo.package)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"{photo.name}: package {photo.package} is not installed; {_remedy(photo)}") from error
    return Path(str(distribution.locate_file(photo.path)))


def read_photo(photo: Photo) -> np.ndarray:
    """Read a photograph, upright, as uint8 RGB (height, width, 3).

    An alpha channel is dropped: those of the manifest are opaque. Raises :class:`DataError` when the file is missing,
    is not the one that the manifest names, or cannot be decoded.
    """
    path = locate(photo)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_remedy(photo)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != photo.sha256:
        raise DataError(f"{path}: sha256 is {found}, expected {photo.sha256}; {_remedy(photo)}")
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}); {_remedy(photo)}") from error
    if pixels.shape != (photo.height, photo.width, 3):
        raise DataError(
            f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, expected {photo.width}x{photo.height}; {_remedy(photo)}"
        )
    return pixels


def _remedy(photo: Photo) -> str:
    for name in DATASETS:
        package = load_manifest(name).packages.get(photo.package)
        if package is not None and package.version is not None:
            return f"run: pip install --force-reinstall --no-deps {photo.package}=={package.version}"
    return f"run: pip install --force-reinstall --no-deps {photo.package}"
