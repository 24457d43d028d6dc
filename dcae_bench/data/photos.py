"""Embedded photographs: a committed manifest of photographs that ship in PyPI packages, and how to read them."""

import hashlib
import importlib.metadata
import io
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image, ImageOps
from pydantic import Field

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import read_bytes, sha256_json
from dcae_bench.base.typed import Strict

Split = Literal["train", "eval"]

DATASETS = ("photos-indoor", "photos-mixed")
"""The embedded data sets: their photographs come with the harness's dependencies."""


class Photo(Strict):
    """One photograph in an installed package."""

    path: str = Field(description="path inside the installed package")
    package: str = Field(description="name of the package on PyPI")
    sha256: str = Field(description="hash of the file")
    width: int = Field(description="pixels, after the EXIF orientation was applied")
    height: int = Field(description="pixels, after the EXIF orientation was applied")
    split: Split
    group: str = Field(description="scene; photographs of one scene are all in one split")
    credit: str | None = Field(default=None, description="photographer and licence, if the package names them")

    @property
    def name(self) -> str:
        """Name of the photograph in messages and packs: package and file."""
        return f"{self.package}/{Path(self.path).name}"


class Package(Strict):
    """A package that holds photographs."""

    version: str | None = Field(description="the pinned version; null: any version with the same files")
    licence: str


class PhotoManifest(Strict):
    """An embedded data set: its photographs and the packages that hold them."""

    name: str
    packages: dict[str, Package]
    photos: tuple[Photo, ...]

    @property
    def sha256(self) -> str:
        """Hash of everything that shapes the data: the photographs, their content and their splits."""
        return sha256_json(
            {"name": self.name, "photos": [photo.model_dump(exclude={"credit"}) for photo in self.photos]}
        )

    def split(self, split: Split) -> tuple[Photo, ...]:
        """Return the photographs of one split, in the manifest's order."""
        return tuple(photo for photo in self.photos if photo.split == split)


@cache
def load_manifest(name: str) -> PhotoManifest:
    """Load the manifest of one of :data:`DATASETS`. Raises :class:`DataError` for any other name."""
    if name not in DATASETS:
        raise DataError(f"data set {name!r} does not exist; choose one of {', '.join(DATASETS)}")
    content = yaml.safe_load(Path(__file__).with_name("photos.yaml").read_text())
    return PhotoManifest(name=name, **content[name])


def locate(photo: Photo) -> Path:
    """Path of a photograph in its installed package, found without an import. Raises :class:`DataError`."""
    try:
        distribution = importlib.metadata.distribution(photo.package)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"{photo.name}: package {photo.package} is not installed; {_remedy(photo)}") from error
    return Path(str(distribution.locate_file(photo.path)))


def read_photo(photo: Photo) -> np.ndarray:
    """Read a photograph, turned upright by its EXIF orientation, as uint8 RGB (height, width, 3).

    An alpha channel is dropped: the manifest's photographs are opaque. Raises :class:`DataError` for a file that is
    missing, that does not have the manifest's hash and size, or that cannot be decoded.
    """
    path = locate(photo)
    try:
        content = read_bytes(path)
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
