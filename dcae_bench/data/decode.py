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
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings of the names that are taken for images."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""Formats that Pillow may try. Some other formats start further programs; the rest hold no photographs."""
GREYSCALE = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes without colour."""
SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of 16-bit grey. `convert("RGB")` would clip their values at 255, so that almost all become white."""
EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"})
"""Pillow's modes of 8 bits or less, which `convert("RGB")` converts."""
UNSUPPORTED = {
    "I": "its pixels are 32-bit integers, and no header says which of them is white",
    "F": "its pixels are floating-point numbers, and no header says which of them is white",
    "LAB": "its colours are CIE L*a*b*, whose white point the file does not tell",
}
"""Why images of some modes are refused."""
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of a TIFF: bits of a grey value, and 0 where grey value 0 is white."""

Problem = Literal["unreadable", "not an image", "too large", "truncated", "corrupt", "unsupported"]


class ImageError(DataError):
    """A file that cannot be used as an image: ``problem`` is the kind of fault, ``detail`` describes the fault."""

    def __init__(self, path: Path | str, problem: Problem, detail: str):
        remedy = "save it with 8 bits" if problem == "unsupported" else "replace the file by its publisher's"
        super().__init__(f"{path}: {problem} ({detail}); {remedy}")
        self.problem, self.detail = problem, detail


def path_inside(root: Path, relative: str) -> Path:
    """Join ``root`` and ``relative``. Raises :class:`DataError` if the path, or a link in it, leads out of ``root``."""
    path = Path(root, relative)
    real, base = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, base]) != base:
        raise DataError(
            f"{path}: leads out of {root} to {real}; copy the files themselves into the folder, or let links be "
            "followed (--follow-links, or follow_links of the profile)"
        )
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


def open_image(content: bytes, path: Path | str) -> Image.Image:
    """Decode a whole image file, in the colour mode of the file. Raises :class:`ImageError`.

    The image's size and mode are read from the header and checked before any pixel is decoded; :func:`to_rgb` converts
    every mode that passes. Of several frames, only the first is decoded.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ImageError(path, "too large", f"{image.width}x{image.height}, more than {MAX_PIXELS:,} pixels")
        if image.mode not in EIGHT_BITS and not _has_16_bits(image):
            detail = UNSUPPORTED.get(image.mode, f"Pillow's mode {image.mode}, of which no conversion is known")
            raise ImageError(path, "unsupported", detail)
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
    """Convert an image of :func:`open_image` to RGB as the authors' loaders do, ignoring the EXIF orientation.

    That is ``convert("RGB")``: grey, CMYK and palette images are converted, an alpha channel is dropped, and no
    background is blended in. Grey of 9 to 16 bits keeps its 8 highest bits, as Pillow keeps those of 16-bit RGB.
    """
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)  # alpha is dropped, of which Pillow would warn
    if _has_16_bits(image):
        image = Image.fromarray(_eight_bits(image))
    elif image.mode == "La":  # Pillow converts grey with premultiplied alpha to no other mode
        image = image.convert("LA")
    return image.convert("RGB")


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an image is grey of 9 to 16 bits. Pillow opens such PGM files as 32-bit integers from 0 to 65535."""
    return image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """The highest 8 bits of 16-bit grey, uint8 (height, width)."""
    values, bits = np.asarray(image).astype(np.int64), 16
    if tags := getattr(image, "tag_v2", None):
        bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
        if tags.get(PHOTOMETRIC) == 0:  # Pillow inverts such grey of 8 bits, not of 16
            values = 2**bits - 1 - values
    return np.clip(values >> (bits - 8), 0, 255).astype(np.uint8)


def read_rgb(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read a file as uint8 RGB (height, width, 3). Raises :class:`DataError` as :func:`decode_rgb` does."""
    return decode_rgb(read_file(path), path, sha256)


def decode_rgb(content: bytes, name: Path | str, sha256: str | None = None) -> np.ndarray:
    """Decode the content of an image file as uint8 RGB (height, width, 3).

    Raises :class:`DataError` for an image that cannot be decoded, or whose SHA-256 is not ``sha256``, where
    one is given.
    """
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"{name}: sha256 is {found}, the manifest says {sha256}; restore it or prepare the data again")
    return np.asarray(to_rgb(open_image(content, name)))
