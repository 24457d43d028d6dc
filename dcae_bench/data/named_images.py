"""Named images: those of a folder, a zip archive, a tar archive or Parquet files, read in place and sorted by name."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dcae_bench.data.containers.kinds import place_of
from dcae_bench.data.decode import open_image, to_rgb
from dcae_bench.data.layout import Listed
from dcae_bench.data.listing import every_image


class NamedImages:
    """Every image below ``root`` by index, in the order of the parts of their names; labels where there are any.

    ``root`` is a folder of images or of containers, or one container. The images of a container bear the names that
    unpacking in place would give them. Threads may share the object.
    """

    def __init__(self, root: Path):
        """List the images. Raises :class:`DataError` where there are none, and for a damaged container."""
        found = every_image(root)
        self.root, self._listed = found.root, list(found)

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[Listed]:
        return iter(self._listed)

    @property
    def names(self) -> list[str]:
        """Names of the images: paths with forward slashes, endings included."""
        return [image.path for image in self._listed]

    def describe(self, index: int) -> str:
        """Place of an image for messages: its file, or its container and its name in it."""
        image = self._listed[index]
        return place_of(self.root, image.path, image.location).name

    def content(self, index: int) -> bytes:
        """Content of an image file. Raises :class:`DataError`, which names the image."""
        image = self._listed[index]
        return place_of(self.root, image.path, image.location, image.crc).read()

    def __getitem__(self, index: int) -> np.ndarray:
        """Return an image as uint8 RGB (height, width, 3). Raises :class:`DataError`, which names the image."""
        return np.asarray(to_rgb(open_image(self.content(index), self.describe(index))))
