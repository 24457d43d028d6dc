"""Whole images for evaluation (protocol native-v1): reduced and trimmed, but neither squares nor of one size."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
import PIL
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.data.crops import to_tensor
from dcae_bench.data.manifest import FileManifest
from dcae_bench.data.packed import PackedPhotos, shrink
from dcae_bench.specs.protocols import LPIPS_MIN_RESOLUTION

VERSION = "native-crop/1"
"""Version of the rule. Hashes of images include it, because another rule gives other pixels."""

Size = tuple[int, int]
"""Height and width in px."""


def native_size(height: int, width: int, limit: int, multiple: int) -> Size:
    """Size of an image after :func:`native_crop`: both sides are multiples of ``multiple``, 0 for a smaller side."""
    while min(height, width) >= 2 * limit:
        height, width = height // 2, width // 2
    scale = limit / min(height, width)
    if scale < 1:
        height, width = round(height * scale), round(width * scale)
    return height - height % multiple, width - width % multiple


def native_crop(pixels: np.ndarray, limit: int, multiple: int) -> np.ndarray:
    """Reduce an image (h, w, 3) to a shorter side of at most ``limit`` px and trim it to multiples of ``multiple``.

    The reduction is that of the ADM crop: halvings by a box filter, then bicubic; smaller images are not enlarged. What
    is trimmed is cut off evenly on both sides, an odd pixel more on the right or at the bottom. Nothing is padded.
    """
    pixels = shrink(pixels, limit)
    height, width, _ = pixels.shape
    h, w = height - height % multiple, width - width % multiple
    top, left = (height - h) // 2, (width - w) // 2
    return pixels[top : top + h, left : left + w]


class NativeCrops:
    """Whole images of a data set, sorted by size, so that consecutive ones can be batched together.

    Images of one size stand in the data set's order.
    """

    split: Literal["train", "eval"]

    def __init__(self, images: PackedPhotos | FileManifest, limit: int, multiple: int):
        """``limit`` is the largest shorter side in px, of which both sides become multiples of ``multiple``.

        Raises :class:`DataError` for an image that is too small.
        """
        self._images, self._limit, self._multiple = images, limit, multiple
        if isinstance(images, FileManifest):
            if images.info.split == "test":
                raise ValueError(f"{images.path}: no evaluation set is made of a test split")
            self.name, self.split = images.info.name, images.info.split
            self.manifest_sha256, source = images.info.tree_sha256, images.info.tree_sha256
            before = [(int(height), int(width)) for height, width in images.sizes]
        else:
            self.name, self.split = images.name, images.split
            self.manifest_sha256, source = images.manifest_sha256, images.sha256
            before = [images.size(index) for index in range(len(images))]
        self.resolution = limit
        self.sha256 = sha256_json(
            {
                "crop": VERSION,
                "images": source,
                "limit": limit,
                "multiple": multiple,
                "pillow": PIL.__version__,
            }
        )
        sizes = [native_size(height, width, limit, multiple) for height, width in before]
        self._require_large(before, sizes)
        self._order = sorted(range(len(sizes)), key=lambda place: (sizes[place], place))
        self.sizes = [sizes[place] for place in self._order]
        """Height and width of every image in px."""

    def _require_large(self, before: Sequence[Size], sizes: Sequence[Size]) -> None:
        smallest = max(self._multiple, LPIPS_MIN_RESOLUTION)
        small = [place for place, size in enumerate(sizes) if min(size) < smallest]
        if small:
            height, width = before[small[0]]
            h, w = sizes[small[0]]
            raise DataError(
                f"{self._name(small[0])}: is {width}x{height}, of which {w}x{h} remain as multiples of "
                f"{self._multiple} px; {len(small):,} of {len(sizes):,} images of {self.name} are smaller than "
                f"{smallest} px a side; leave them out, or lower 'multiple' of the evaluation"
            )

    def _name(self, place: int) -> str:
        return self._images[place].path if isinstance(self._images, FileManifest) else self._images.key(place)

    def __len__(self) -> int:
        return len(self._order)

    def key(self, index: int) -> str:
        """Path of the file below the data set's root, or name of the photograph."""
        return self._name(self._order[range(len(self))[index]])

    def __getitem__(self, index: int) -> Tensor:
        """Return an image as uint8 (3, height, width). Raises :class:`DataError`, which names the file."""
        place = self._order[range(len(self))[index]]
        images = self._images
        pixels = images.read(place) if isinstance(images, FileManifest) else images[place]
        return to_tensor(native_crop(pixels, self._limit, self._multiple))

    @property
    def settings(self) -> dict[str, str]:
        """The rule and the sizes, as the settings of a record hold them."""
        kinds = sorted(set(self.sizes), key=lambda size: (size[0] * size[1], size))
        shown = " to ".join(dict.fromkeys(f"{width}x{height}" for height, width in (kinds[0], kinds[-1])))
        return {
            "crop": f"whole images, shorter side at most {self._limit} px, sides multiples of {self._multiple} px",
            "sizes": f"{len(kinds)}: {shown}",
        }


def sizes_of(crops: object) -> list[Size] | None:
    """Height and width of every image of a set; None where all are squares of one side."""
    return getattr(crops, "sizes", None)


def batches_by_size(crops: object, count: int, size: int) -> list[range]:
    """Indices of the ``count`` images of a set in consecutive batches of at most ``size`` images of one size."""
    sizes = sizes_of(crops)
    runs = [count] if sizes is None else [len(list(same)) for _, same in groupby(sizes)]
    batches, start = [], 0
    for run in runs:
        batches += [range(at, min(at + size, start + run)) for at in range(start, start + run, size)]
        start += run
    return batches
