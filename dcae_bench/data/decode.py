"""Bounded decoding of image files that somebody else made: path, size and format are checked before any pixel."""

import hashlib
import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import open_regular

MAX_BYTES = 2**28
"""Largest file that is read, in bytes."""
MAX_PIXELS = 2**28 // 3
"""Largest image that is decoded: 256 MiB as RGB. Pillow itself warns from this size on."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""Formats that Pillow may try. Some other formats start further programs; the rest hold no photographs."""
GREYSCALE = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes without colour."""

Problem = Literal["unreadable", "not an image", "too large", "truncated", "corrupt"]


class ImageError(DataError):
    """A file that cannot be used as an image: ``problem`` is the kind of fault, ``detail`` describes the fault."""

    def __init__(self, path: Path, problem: Problem, detail: str):
        super().__init__(f"{path}: {problem} ({detail}); replace the file by its publisher's")
        self.problem, self.detail = problem, detail


def path_inside(root: Path, relative: str) -> Path:
    """Join ``root`` and ``relative``. Raises :class:`DataError` if the path, or a link in it, leads out of ``root``."""
    path = Path(root, relative)
    real, base = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, base]) != base:
        raise DataError(f"{path}: leads out of {root} to {real}; copy the files themselves into the folder")
    return path


def read_file(path: Path) -> bytes:
    """Read a file of at most :data:`MAX_BYTES`. Raises :class:`ImageError`."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(path, "unreadable", error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise ImageError(path, "too large", f"more than {MAX_BYTES >> 20} MiB")
    return content


def open_image(content: bytes, path: Path) -> Image.Image:
    """Decode a whole image file, in the colour mode of the file. Raises :class:`ImageError`.

    The image's size is read from the header and checked before any pixel is decoded. Of several frames, only the first
    is decoded.
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
    except Exception as error:  # on damaged files Pillow's readers raise many kinds of errors, none of them documented
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(path, "truncated" if "truncated" in detail.lower() else "corrupt", detail) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as the authors' loaders do: by ``convert("RGB")``, ignoring the EXIF orientation.

    Grey, CMYK and palette images are converted. An alpha channel is dropped; no background is blended in.
    """
    return image if image.mode == "RGB" else image.convert("RGB")


def read_rgb(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read a file as uint8 RGB (height, width, 3).

    Raises :class:`DataError` for a file that cannot be decoded, or whose SHA-256 is not ``sha256`` where one is given.
    """
    content = read_file(path)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"{path}: sha256 is {found}, the manifest says {sha256}; restore it or prepare the data again")
    return np.asarray(to_rgb(open_image(content, path)))
