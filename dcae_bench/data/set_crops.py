"""Images of a set as they are measured: squares of one side, or whole images of any shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL
from PIL import Image
from torch import Tensor

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.data import adm
from dcae_bench.data.crops import to_tensor
from dcae_bench.data.image_sets import ImageSet, size_text
from dcae_bench.specs.protocols import NATIVE


@dataclass(frozen=True)
class Size:
    """How the images of a set become squares of one side.

    Without a ``resolution`` they are taken as they are, else by the ADM centre crop; ``upscale`` enlarges smaller ones.
    """

    resolution: int | None = None
    upscale: bool = False

    @property
    def described(self) -> str:
        """The setting that records hold."""
        return "none" if self.resolution is None else f"{adm.VERSION}, {self.resolution} px"

    def side(self, images: ImageSet, chosen: Sequence[int], least: int = 1) -> int:
        """Side in pixels of the squares that the chosen images become.

        Raises :class:`DataError`, which names an image, for images that are no squares of one size, for an image that
        would be enlarged, and for sides below ``least``.
        """
        sizes = images.sizes[list(chosen)]
        side = int(sizes[0].min()) if self.resolution is None else self.resolution
        if self.resolution is None:
            others = np.flatnonzero((sizes != side).any(axis=1))
            if len(others):
                raise DataError(
                    f"{images.describe(chosen[others[0]])}: is {size_text(sizes[others[0]])}, not {side}x{side}, as "
                    f"{len(others):,} of {len(sizes):,} images; take --resolution {int(sizes.min())}, which cuts a "
                    "square of this side out of the middle of each, or with --originals a profile of protocol "
                    f"{NATIVE}, which measures whole images"
                )
        small = np.flatnonzero(sizes.min(axis=1) < side)
        if len(small) and not self.upscale:
            raise DataError(
                f"{images.describe(chosen[small[0]])}: is {size_text(sizes[small[0]])} and would be enlarged to {side} "
                f"px, as {len(small):,} of {len(sizes):,} images; take --upscale if that is meant, or a lower "
                "--resolution"
            )
        require_side(images, chosen, np.array([[side, side]]), least)
        return side


class SetCrops:
    """Chosen images of a set as they are measured (:class:`dcae_bench.data.images.Crops`)."""

    split: Literal["train", "eval"] = "eval"

    def __init__(self, images: ImageSet, chosen: Sequence[int], resolution: int | None):
        """Crop the images ``chosen`` as ADM does; those of ``resolution`` x ``resolution`` px stay as they are.

        Without a ``resolution`` all images stay whole; then images of one size must follow each other, and
        ``resolution`` becomes the largest shorter side. The sizes are checked before.
        """
        self.images, self.chosen = images, chosen
        self.name, self.manifest_sha256 = images.source, images.sha256
        found = images.sizes[list(chosen)]
        self.sizes: list[tuple[int, int]] | None = None
        """Height and width of whole images in px; None for squares."""
        every = list(chosen) == list(range(len(images)))
        parts: dict[str, object] = {"images": images.sha256, "chosen": None if every else list(chosen)}
        if resolution is None:
            self.sizes = [(int(height), int(width)) for height, width in found]
            self.resolution, self.cropped = int(found.min(axis=1).max()), 0
        else:
            self.resolution, self.cropped = resolution, int((found != resolution).any(axis=1).sum())
        if self.cropped:
            parts |= {"crop": adm.VERSION, "resolution": resolution, "pillow": PIL.__version__}
        self.sha256 = sha256_json(parts)

    def __len__(self) -> int:
        return len(self.chosen)

    def key(self, index: int) -> str:
        """Name of an image below its source."""
        return self.images.names[self.chosen[index]]

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.images.read(self.chosen[index])
        if self.sizes is not None:
            return to_tensor(pixels)
        return to_tensor(adm.dm_crop(Image.fromarray(pixels), self.resolution, upscale=True))


def require_side(images: ImageSet, chosen: Sequence[int], sizes: np.ndarray, least: int) -> None:
    """Check the sizes (n, 2) that images are measured at. Raises :class:`DataError` for a side below ``least``."""
    small = np.flatnonzero(sizes.min(axis=1) < least)
    if len(small):
        raise DataError(
            f"{images.describe(chosen[small[0]])}: is measured at {size_text(sizes[small[0]])} px; the networks of the "
            f"metrics need {least} px or more"
        )
