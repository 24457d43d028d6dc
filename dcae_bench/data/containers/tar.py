"""Tar archives, those of WebDataset among them: their members, found by one pass over the headers."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import open_regular
from dcae_bench.data.containers.member import (
    MAX_LABEL_BYTES,
    Entry,
    Member,
    Other,
    SideLabel,
    clean_path,
    faults_named,
    is_image,
    key_of,
)

BLOCK = 512
COMPRESSED = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd"}
"""Marks that compressed files begin with."""
REST = 1 << 20
"""Bytes that are looked at together after the end of an archive."""


def members(container: Path) -> Iterator[Entry]:
    """Yield the members of an uncompressed tar archive in their order, and those of tar archives in it.

    Memory does not grow with their number. Raises :class:`DataError` for a damaged or compressed archive.
    """
    with faults_named(container, "tar archive", tarfile.TarError), open_regular(container) as file:
        start = file.read(6)
        for program, mark in COMPRESSED.items():
            if start.startswith(mark):
                raise DataError(
                    f"{container}: is compressed by {program}, so that no member can be read in place; decompress it"
                )
        yield from _members(container, file, 0, file.seek(0, 2), "")


def _members(container: Path, file: IO[bytes], start: int, end: int, folder: str) -> Iterator[Entry]:
    """Members of the archive in the bytes from ``start`` to ``end`` of a file."""
    file.seek(start)
    with tarfile.open(fileobj=_Part(file, start, end), mode="r:") as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile would keep every header
            if info.isdir():
                continue
            path = folder + clean_path(info.name, container)
            offset = start + info.offset_data
            if not info.isreg():
                if is_image(path):
                    raise DataError(f"{container}: {path} is a link or no file; pack the files themselves")
                yield Other(path)
                continue
            if info.issparse():
                raise DataError(f"{container}: {path} is stored with holes (sparse); pack it again without them")
            if offset + info.size > end:
                raise tarfile.ReadError(f"{path} ends {offset + info.size - end:,} bytes after the archive")
            if is_image(path):
                yield Member(path, offset, info.size, "stored")
            elif path.endswith(".cls") and info.size <= MAX_LABEL_BYTES:
                yield SideLabel(key_of(path), _text(container, path, file, offset, info.size))
            elif path.endswith(".tar"):
                inner = "".join(path.rpartition("/")[:2])
                yield from _members(container, file, offset, offset + info.size, inner)
            else:
                yield Other(path)
        _check_end(file, start + archive.offset, end)


def _check_end(file: IO[bytes], position: int, end: int) -> None:
    """Check that zeros follow: tarfile takes a damaged header for the end, and ends before a second archive.

    An archive that was cut between two members, or never finished, has no zeros at its end.
    """
    if position + BLOCK > end:
        raise tarfile.ReadError("no mark at its end, so that members may be missing")
    file.seek(position)
    while position < end:
        rest = file.read(min(REST, end - position))
        if not rest:
            break
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"a damaged header at byte {position:,}, or several archives one after another")
        position += len(rest)


def _text(container: Path, path: str, file: IO[bytes], offset: int, length: int) -> str:
    file.seek(offset)
    try:
        label = file.read(length).decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{container}: {path} is no text; write the class into it") from error
    if not label:
        raise DataError(f"{container}: {path} is empty; write the class into it")
    return label


class _Part:
    """A part of a file as a file of its own, for :mod:`tarfile`."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        self._file, self._start, self._length, self._position = file, start, end - start, 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._position)
        self._file.seek(self._start + self._position)
        content = self._file.read(left if size < 0 else min(size, left))
        self._position += len(content)
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._length)[whence] + position
        return self._position

    def tell(self) -> int:
        return self._position
