"""Crops: square parts of photographs. Each crop is a pure function of a seed and an index."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.keyed_random import keyed_generator
from dcae_bench.data.adm import dm_crop
from dcae_bench.data.packed import Photos
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.data.pixels import normalise

Crop = Literal["window", "center", "random"]
"""How a training crop is taken from its photograph.

``window``: a square of any size, resized to the crop's size. ``center``: the ADM centre crop. ``random``: a square of
the crop's size, not resized. A photograph smaller than the crop is an error for ``center`` and ``random``; ``window``
enlarges the photograph, because packs may hold smaller photographs.
"""


@dataclass(frozen=True)
class Window:
    """A square part of a photograph, in pixels."""

    photo: int
    top: int
    left: int
    side: int


def train_window(photos: PhotoSet, seed: int, index: int, resolution: int) -> Window:
    """Window of the training image ``index``, at any place and of any size from ``resolution`` upwards.

    The side is log-uniform between ``resolution`` and the photograph's shorter side, so that all scales count alike. A
    photograph smaller than ``resolution`` gives its largest square.
    """
    photo = train_photo(photos, seed, index)
    return _draw_window(photos, photo, resolution, keyed_generator(seed, "train window", index))


def describe_enlarged(sides: np.ndarray, resolution: int, crop: Crop) -> str | None:
    """Say how many photographs are enlarged to ``resolution``, given their shorter ``sides``; None if none is."""
    small = sides[sides < resolution]
    if crop != "window" or not len(small):
        return None
    return (
        f"{len(small)} of {len(sides)} photographs are enlarged to {resolution} px, the smallest from {small.min()} px"
    )


def train_photo(photos: PhotoSet, seed: int, index: int) -> int:
    """Index of the photograph behind the training image ``index``.

    An epoch uses each photograph once, and each epoch has its own order.
    """
    epoch, position = divmod(index, len(photos))
    return int(_epoch_order(len(photos), seed, epoch)[position])


def train_unscaled_window(photos: PhotoSet, seed: int, index: int, resolution: int) -> Window:
    """Window of the training image ``index``, at any place, with sides of exactly ``resolution`` pixels.

    The authors' code calls this crop "UpsampleCrop". Raises :class:`DataError` for a photograph that is too small.
    """
    photo = train_photo(photos, seed, index)
    height, width = _require_side(photos, photo, resolution)
    random = keyed_generator(seed, "train place", index)
    top, left = (int(random.integers(side - resolution + 1)) for side in (height, width))
    return Window(photo, top, left, resolution)


def train_crop(
    photos: PhotoSet, seed: int, index: int, resolution: int, crop: Crop = "window", flips: bool = False
) -> Tensor:
    """Return the training image ``index`` as uint8 (3, resolution, resolution); ``flips`` mirror half of the images.

    Raises :class:`DataError` for a photograph that is too small (see :data:`Crop`).
    """
    image = _train_crop(photos, seed, index, resolution, crop)
    return image.flip(2) if flips and keyed_generator(seed, "train flip", index).random() < 0.5 else image


def _train_crop(photos: PhotoSet, seed: int, index: int, resolution: int, crop: Crop) -> Tensor:
    if crop == "center":
        photo = train_photo(photos, seed, index)
        _require_side(photos, photo, resolution)
        return to_tensor(dm_crop(Image.fromarray(photos[photo]), resolution))
    draw = {"window": train_window, "random": train_unscaled_window}[crop]
    return cut(photos, draw(photos, seed, index, resolution), resolution)


def train_batch(
    photos: PhotoSet,
    seed: int,
    first_index: int,
    batch: int,
    resolution: int,
    crop: Crop = "window",
    flips: bool = False,
) -> Tensor:
    """Return ``batch`` training images from ``first_index`` on, as float32 (batch, 3, resolution, resolution)."""
    indices = range(first_index, first_index + batch)
    return normalise(torch.stack([train_crop(photos, seed, index, resolution, crop, flips) for index in indices]))


def eval_windows(photos: Photos, per_photo: int, seed: int, min_window: int) -> list[Window]:
    """List the evaluation windows: ``per_photo`` of each photograph, each at least ``min_window`` pixels wide.

    A photograph's first window is the largest square in its middle; the other windows are drawn at random. The draw
    depends on the seed and the photograph's name. Neither other photographs nor the resolution change the windows, so
    rows at every resolution show the same content. Raises :class:`DataError` for a photograph smaller than
    ``min_window``.
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
            windows.append(_draw_window(photos, photo, min_window, keyed_generator(seed, "eval window", name, number)))
    return windows


def eval_crops(photos: Photos, per_photo: int, seed: int, resolution: int, min_window: int | None = None) -> Tensor:
    """Cut the windows of :func:`eval_windows`, as uint8 (n, 3, resolution, resolution).

    ``min_window`` is the largest resolution that the evaluation compares, by default ``resolution``. Raises
    :class:`DataError` for a photograph smaller than ``min_window``.
    """
    min_window = resolution if min_window is None else min_window
    if min_window < resolution:
        raise ValueError(f"windows of {min_window} px would be enlarged to {resolution} px")
    return torch.stack([cut(photos, w, resolution) for w in eval_windows(photos, per_photo, seed, min_window)])


def cut(photos: PhotoSet, window: Window, resolution: int) -> Tensor:
    """Cut out a window and resize it, bicubically with antialiasing, to uint8 (3, resolution, resolution)."""
    rows = slice(window.top, window.top + window.side)
    columns = slice(window.left, window.left + window.side)
    pixels = photos[window.photo][rows, columns]
    if window.side == resolution:
        return to_tensor(pixels)
    # With a gap, Pillow first shrinks large windows by a cheap box filter; the difference is not visible.
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return to_tensor(image.resize((resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=2.0))


def to_tensor(pixels: np.ndarray | Image.Image) -> Tensor:
    """Turn uint8 pixels (height, width, 3) into a tensor (3, height, width)."""
    return torch.from_numpy(np.array(pixels).transpose(2, 0, 1).copy())


def _require_side(photos: PhotoSet, photo: int, side: int) -> tuple[int, int]:
    """Height and width of a photograph. Raises :class:`DataError` if one of them is below ``side`` pixels."""
    height, width = photos.size(photo)
    if min(height, width) < side:
        raise DataError(
            f"{photos.key(photo)}: is {width}x{height}, too small for a crop of {side} px; set the phase's min_side to "
            f"{side} to leave such photographs out"
        )
    return height, width


def _draw_window(photos: PhotoSet, photo: int, smallest: int, random: np.random.Generator) -> Window:
    height, width = photos.size(photo)
    short = min(height, width)
    low = min(smallest, short)
    side = min(short, max(low, round(low * (short / low) ** random.random())))
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return Window(photo, top, left, side)


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return keyed_generator(seed, "order", epoch).permutation(count)
