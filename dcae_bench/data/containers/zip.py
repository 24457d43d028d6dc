"""Zip archives: their members, stored or deflated, listed in bounded memory.

:mod:`zipfile` keeps an object of 700 bytes for each member, a gigabyte for ImageNet; this listing keeps none.
"""

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, BadZipFile

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import open_regular
from dcae_bench.data.containers.member import Coding, Entry, Member, Other, clean_path, faults_named, is_image

# The records of the format (APPNOTE 6.3.10), each with its mark. Fields that nothing needs are skipped.
END = struct.Struct("<4s6xHLLH")
"""Section 4.3.16: number of members, size and offset of the directory, length of the comment."""
END_64_PLACE = struct.Struct("<4s16x")
"""Section 4.3.15."""
END_64 = struct.Struct("<4s28xQQQ")
"""Section 4.3.14: number of members, size and offset of the directory."""
ENTRY = struct.Struct("<4sxB2xHH4xLLLHHH4xLL")
"""Section 4.3.12: system, flags, method, checksum, both sizes, lengths of name, extra field and comment, attributes and
offset."""
HEADER = struct.Struct("<4s22xHH")
"""Section 4.3.7, a member's own header: lengths of its name and of its extra field."""
EXTRA = struct.Struct("<HH")
UNKNOWN = 0xFFFFFFFF
"""What stands where a number of 64 bits is in the extra field."""
ENCRYPTED, UTF_8 = 1, 0x800
UNIX = 3
LARGEST_COMMENT = 0xFFFF
CODINGS: dict[int, Coding] = {ZIP_STORED: "stored", ZIP_DEFLATED: "deflate"}
METHODS = {9: "deflate64", ZIP_BZIP2: "bzip2", ZIP_LZMA: "LZMA", 93: "zstd", 95: "xz"}
"""Methods of compression that are refused by name."""


class _Directory(NamedTuple):
    """Place of an archive's directory. ``before``: bytes in front of the archive, as in a program."""

    start: int
    end: int
    entries: int
    before: int


def members(container: Path) -> Iterator[Entry]:
    """Yield the members of a zip archive in the order of its directory.

    Raises :class:`DataError` for a damaged archive, and for images that are encrypted, links, or not stored or
    deflated.
    """
    with (
        faults_named(container, "zip archive", BadZipFile, struct.error, UnicodeDecodeError),
        open_regular(container) as file,
    ):
        directory = _find_directory(file)
        file.seek(directory.start)
        for _ in range(directory.entries):
            if (entry := _read_entry(container, file, directory.before)) is not None:
                yield entry
        if file.tell() != directory.end:
            raise BadZipFile("its directory holds more than it says")


def _find_directory(file: IO[bytes]) -> _Directory:
    size = file.seek(0, 2)
    start = max(0, size - END.size - LARGEST_COMMENT)
    file.seek(start)
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + END.size:
        raise BadZipFile("it has no directory at its end")
    end = start + found
    _, count, length, offset, _ = END.unpack_from(tail, found)
    place = end - END_64_PLACE.size
    if place >= END_64.size and _mark_at(file, place) == b"PK\6\7":
        end = place - END_64.size
        file.seek(end)
        mark, count, length, offset = END_64.unpack(file.read(END_64.size))
        if mark != b"PK\6\6":
            raise BadZipFile("its directory is not where it says")
    before = end - length - offset
    if before < 0:
        raise BadZipFile("its directory is not where it says")
    return _Directory(offset + before, end, count, before)


def _mark_at(file: IO[bytes], offset: int) -> bytes:
    file.seek(offset)
    return file.read(4)


def _read_entry(container: Path, file: IO[bytes], before: int) -> Entry | None:
    """The next member of the directory; None for a folder."""
    fields = ENTRY.unpack(file.read(ENTRY.size))
    mark, system, flags, method, crc, length, size, name_length, extra_length, comment_length, attributes, offset = (
        fields
    )
    if mark != b"PK\1\2":
        raise BadZipFile("its directory is damaged")
    raw, extra = file.read(name_length), file.read(extra_length)
    file.seek(comment_length, 1)
    name = raw.decode("utf-8" if flags & UTF_8 else "cp437")
    # Some programs on Windows write its own separator.
    name = name if "/" in name else name.replace("\\", "/")
    if name.endswith("/"):
        return None
    path = clean_path(name, container)
    if not is_image(path):
        return Other(path)
    if flags & ENCRYPTED:
        raise DataError(f"{container}: {path} is encrypted; pack it again without a password")
    if system == UNIX and stat.S_ISLNK(attributes >> 16):
        raise DataError(f"{container}: {path} is a link; pack the files themselves")
    coding = CODINGS.get(method)
    if coding is None:
        named = METHODS.get(method, f"method {method}")
        raise DataError(f"{container}: {path} is compressed by {named}; pack it again stored or deflated")
    if UNKNOWN in (size, length, offset):
        _, length, offset = _large(extra, size, length, offset)
    # The position in the directory stays.
    mark, name_length, extra_length = HEADER.unpack(os.pread(file.fileno(), HEADER.size, offset + before))
    if mark != b"PK\3\4":
        raise BadZipFile(f"no header of {path} at byte {offset + before:,}")
    start = offset + before + HEADER.size + name_length + extra_length
    return Member(path, start, length, coding, crc=crc)


def _large(extra: bytes, *numbers: int) -> list[int]:
    """Numbers of a member, those of 64 bits taken from its extra field (section 4.5.3)."""
    place = 0
    while place + EXTRA.size <= len(extra):
        kind, length = EXTRA.unpack_from(extra, place)
        place += EXTRA.size
        if kind == 1:
            found = iter(struct.unpack_from(f"<{length // 8}Q", extra, place))
            return [next(found, number) if number == UNKNOWN else number for number in numbers]
        place += length
    return list(numbers)
