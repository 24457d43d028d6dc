"""Kinds of containers, and the reading of one image from any of them."""

import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import open_regular
from dcae_bench.data.containers import parquet, tar, zip
from dcae_bench.data.containers.member import Entry, Location
from dcae_bench.data.decode import MAX_BYTES, ImageError, read_file

KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".tar": tar.members,
    ".zip": zip.members,
    ".parquet": parquet.members,
}
"""What lists the members of a container, by the ending of its name."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of archives that cannot be read in place."""
OPEN_FILES = 32
"""Parquet files that stay open in a process."""


def is_container(path: str | Path) -> bool:
    """Whether a file's name is that of a container."""
    return Path(path).suffix.lower() in KINDS


def members(container: Path) -> Iterator[Entry]:
    """Yield the members of a container in the order in which they lie there. Raises :class:`DataError`."""
    listed = KINDS.get(container.suffix.lower())
    if listed is None:
        raise DataError(f"{container}: is no container of images; name a folder or a file in {', '.join(KINDS)}")
    return listed(container)


class Place(NamedTuple):
    """Where an image lies on this machine: a file, or a part of a container. ``name`` is its name in messages.

    ``crc`` is the checksum of the content, where its container keeps one.
    """

    file: Path
    name: str
    location: Location | None = None
    crc: int | None = None

    def read(self) -> bytes:
        """Content of the image, at most :data:`~dcae_bench.data.decode.MAX_BYTES`. Raises :class:`ImageError`."""
        if self.location is None:
            return read_file(self.file)
        row = self.location.coding == "row"
        content = _row(self, self.location.offset) if row else _stretch(self, self.location)
        if len(content) > MAX_BYTES:
            raise ImageError(self.name, "too large", f"more than {MAX_BYTES >> 20} MiB")
        if self.crc is not None and zlib.crc32(content) != self.crc:
            raise ImageError(self.name, "corrupt", "its checksum is not that of the archive")
        return content


def place_of(root: Path, path: str, location: Location | None, crc: int | None = None) -> Place:
    """Place of the image ``path`` of a data set below ``root``."""
    if location is None:
        return Place(root / path, str(root / path))
    container = root / location.container if location.container else root
    return Place(container, f"{container}: {path}", location, crc)


def _stretch(place: Place, location: Location) -> bytes:
    try:
        with open_regular(place.file) as file:
            file.seek(location.offset)
            content = file.read(min(location.length, MAX_BYTES + 1))
    except OSError as error:
        raise ImageError(place.name, "unreadable", error.strerror or str(error)) from error
    if len(content) < min(location.length, MAX_BYTES + 1):
        raise ImageError(place.name, "truncated", f"{place.file} ends before it")
    if location.coding == "stored":
        return content
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise ImageError(place.name, "corrupt", str(error)) from error


def _row(place: Place, row: int) -> bytes:
    try:
        return _rows(place.file, *_state(place)).read(row)
    except ImageError:
        raise
    except DataError as error:
        raise ImageError(place.name, "unreadable", str(error)) from error


def _state(place: Place) -> tuple[int, int]:
    try:
        stat = place.file.stat()
    except OSError as error:
        raise ImageError(place.name, "unreadable", error.strerror or str(error)) from error
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=OPEN_FILES)
def _rows(file: Path, size: int, mtime_ns: int) -> parquet.Rows:
    # A file that changed is opened anew.
    return parquet.Rows(file)
