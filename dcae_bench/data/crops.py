"""Crops: square parts of photographs, each a pure function of a seed and an index."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcae_bench.data.adm import dm_crop
from dcae_bench.data.packed import Photos
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.errors import DataError
from dcae_bench.keyed_random import keyed

Crop = Literal["window", "center", "random"]
"""How training crops are taken: a window of any size, reduced; the ADM centre crop; or a square of the photograph as it
is. The last two refuse a photograph that is smaller than the crop; the first enlarges it, as a pack may be smaller."""


@dataclass(frozen=True)
class Window:
    """A square part of a photograph, in pixels."""

    photo: int
    top: int
    left: int
    side: int


def train_window(photos: PhotoSet, seed: int, index: int, resolution: int) -> Window:
    """Window of the training image ``index``: any place, any size that need not be enlarged.

    The side is log-uniform between ``resolution`` and the short side, so that all scales count alike. There is no flip:
    the authors use none.
    """
    photo = train_photo(photos, seed, index)
    return _draw(photos, photo, resolution, keyed(seed, "train window", index))


def train_photo(photos: PhotoSet, seed: int, index: int) -> int:
    """Photograph of the training image ``index``: each is used once in a pass, in the pass's own order."""
    epoch, position = divmod(index, len(photos))
    return int(_order(len(photos), seed, epoch)[position])


def train_place(photos: PhotoSet, seed: int, index: int, resolution: int) -> Window:
    """Any square of ``resolution`` pixels of the photograph as it is ("UpsampleCrop" of the authors' code).

    Raises :class:`DataError` for a photograph that is too small.
    """
    photo = train_photo(photos, seed, index)
    height, width = _require_side(photos, photo, resolution)
    random = keyed(seed, "train place", index)
    top, left = (int(random.integers(side - resolution + 1)) for side in (height, width))
    return Window(photo, top, left, resolution)


def train_crop(photos: PhotoSet, seed: int, index: int, resolution: int, crop: Crop = "window") -> Tensor:
    """Training image ``index`` as uint8 (3, resolution, resolution). Raises :class:`DataError` (see :data:`Crop`)."""
    if crop == "center":
        photo = train_photo(photos, seed, index)
        _require_side(photos, photo, resolution)
        return to_tensor(dm_crop(Image.fromarray(photos[photo]), resolution))
    draw = {"window": train_window, "random": train_place}[crop]
    return cut(photos, draw(photos, seed, index, resolution), resolution)


def train_batch(
    photos: PhotoSet, seed: int, first_index: int, batch: int, resolution: int, crop: Crop = "window"
) -> Tensor:
    """Training images ``first_index`` to ``first_index + batch`` as float32 (batch, 3, resolution, resolution)."""
    indices = range(first_index, first_index + batch)
    return normalise(torch.stack([train_crop(photos, seed, index, resolution, crop) for index in indices]))


def eval_windows(photos: Photos, per_photo: int, seed: int, min_window: int) -> list[Window]:
    """List the evaluation windows: ``per_photo`` of each photograph, at least ``min_window`` pixels wide.

    The first is the largest square in the middle; the others are drawn. A photograph's windows depend on its name and
    not on what else is measured, nor on the resolution, so that rows at every resolution show the same content.
    Raises :class:`DataError` for a photograph smaller than ``min_window``.
    """
    windows = []
    for photo, (pixels, name) in enumerate(zip(photos, photos.names, strict=True)):
        height, width, _ = pixels.shape
        side = min(height, width)
        if side < min_window:
            raise DataError(
                f"{name}: is {width}x{height}, too small for windows of {min_window} px; lower the largest resolution"
            )
        windows.append(Window(photo, (height - side) // 2, (width - side) // 2, side))
        for number in range(1, per_photo):
            windows.append(_draw(photos, photo, min_window, keyed(seed, "eval window", name, number)))
    return windows


def eval_crops(photos: Photos, per_photo: int, seed: int, resolution: int, min_window: int | None = None) -> Tensor:
    """Evaluation images of :func:`eval_windows` as uint8 (n, 3, resolution, resolution).

    ``min_window`` is the largest resolution that is compared, by default this one. Raises :class:`DataError` for a
    photograph smaller than that.
    """
    min_window = resolution if min_window is None else min_window
    if min_window < resolution:
        raise ValueError(f"windows of {min_window} px would be enlarged to {resolution} px")
    return torch.stack([cut(photos, w, resolution) for w in eval_windows(photos, per_photo, seed, min_window)])


def cut(photos: PhotoSet, window: Window, resolution: int) -> Tensor:
    """Cut a window out and resize it, bicubic with antialias, to uint8 (3, resolution, resolution)."""
    rows = slice(window.top, window.top + window.side)
    columns = slice(window.left, window.left + window.side)
    pixels = photos[window.photo][rows, columns]
    if window.side != resolution:
        # The gap lets PIL take most of a strong reduction by a cheap box filter, with no visible difference.
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = image.resize((resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return to_tensor(pixels)


def to_tensor(pixels: np.ndarray | Image.Image) -> Tensor:
    """Pixels (height, width, 3) as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(pixels).transpose(2, 0, 1).copy())


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _require_side(photos: PhotoSet, photo: int, side: int) -> tuple[int, int]:
    """Height and width of a photograph that is not to be enlarged. Raises :class:`DataError`."""
    height, width = photos.size(photo)
    if min(height, width) < side:
        raise DataError(
            f"{photos.key(photo)}: is {width}x{height}, too small for a crop of {side} px; set the phase's min_side to "
            f"{side} to leave such photographs out"
        )
    return height, width


def _draw(photos: PhotoSet, photo: int, smallest: int, random: np.random.Generator) -> Window:
    height, width = photos.size(photo)
    short = min(height, width)
    low = min(smallest, short)
    side = min(short, max(low, round(low * (short / low) ** random.random())))
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return Window(photo, top, left, side)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return keyed(seed, "order", epoch).permutation(count)
