"""Bounded decoding of image files that somebody else made: sizes, formats and places are limited before any pixel."""

import hashlib
import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dcae_bench.errors import DataError

MAX_BYTES = 2**28
"""Largest file that is read."""
MAX_PIXELS = 2**28 // 3
"""Largest image that is decoded: 256 MiB as RGB, and the size from which Pillow itself warns."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""What Pillow may take a file for. Others would start further programs, or hold no photograph."""
GREYSCALE = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes without colour."""

Problem = Literal["unreadable", "not an image", "too large", "truncated", "corrupt"]


class ImageError(DataError):
    """A file that cannot be used as an image; ``problem`` says in a word why, ``detail`` in a phrase."""

    def __init__(self, path: Path, problem: Problem, detail: str):
        super().__init__(f"{path}: {problem} ({detail}); replace the file by its publisher's")
        self.problem, self.detail = problem, detail


def inside(root: Path, relative: str) -> Path:
    """Path of a file below ``root``. Raises :class:`DataError` where it or a link on its way leads out of the root."""
    path = Path(root, relative)
    real, base = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, base]) != base:
        raise DataError(f"{path}: leads out of {root} to {real}; copy the files themselves into the folder")
    return path


def read_file(path: Path) -> bytes:
    """Content of a file of at most :data:`MAX_BYTES`. Raises :class:`ImageError`."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(path, "unreadable", error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise ImageError(path, "too large", f"more than {MAX_BYTES >> 20} MiB")
    return content


def open_image(content: bytes, path: Path) -> Image.Image:
    """Decode a whole file, in the mode it is stored in. Raises :class:`ImageError`.

    Nothing is decoded before the header's size was checked. Several frames count as their first.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ImageError(path, "too large", f"{image.width}x{image.height}, more than {MAX_PIXELS:,} pixels")
        image.load()
    except Image.DecompressionBombError as error:  # Pillow's own limit, at twice the size
        raise ImageError(path, "too large", f"more than {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(path, "not an image", f"none of {', '.join(FORMATS)}") from error
    except ImageError:
        raise
    except Exception as error:  # what Pillow's readers raise on damaged files is not documented, and is of many kinds
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(path, "truncated" if "truncated" in detail.lower() else "corrupt", detail) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as the authors' loaders see it: ``convert("RGB")``, and not turned by its EXIF orientation.

    Grey, CMYK and palette images are converted, an alpha channel is dropped without a background.
    """
    return image if image.mode == "RGB" else image.convert("RGB")


def read_rgb(path: Path, sha256: str | None = None) -> np.ndarray:
    """Pixels of a file as uint8 RGB (height, width, 3), if its SHA-256 is ``sha256``. Raises :class:`DataError`."""
    content = read_file(path)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"{path}: sha256 is {found}, the manifest says {sha256}; restore it or prepare the data again")
    return np.asarray(to_rgb(open_image(content, path)))
