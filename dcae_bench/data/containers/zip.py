"""Zip archives: their members, stored or deflated."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import open_regular
from dcae_bench.data.containers.member import Coding, Entry, Member, Other, clean_path, faults_named, is_image

HEADER = struct.Struct("<4s22xHH")
"""A member's own header: its mark, and the lengths of its name and of its extra field."""
ENCRYPTED = 1
"""Flag of a member that needs a password."""
METHODS = {9: "deflate64", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 93: "zstd", 95: "xz"}
"""Methods of compression that are refused by name."""
CODINGS: dict[int, Coding] = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}


def members(container: Path) -> Iterator[Entry]:
    """Yield the members of a zip archive in the order of its directory. Raises :class:`DataError`.

    Members that are compressed otherwise, or encrypted, are refused where they are images.
    """
    faults = (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError)
    with faults_named(container, "zip archive", *faults), open_regular(container) as file:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        infos.reverse()  # so that each can be freed after its turn
        while infos:
            info = infos.pop()
            if not info.is_dir():
                yield _member(container, file, info)


def _member(container: Path, file: IO[bytes], info: zipfile.ZipInfo) -> Entry:
    # Some programs on Windows write its own separator.
    name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
    path = clean_path(name, container)
    if not is_image(path):
        return Other(path)
    if info.flag_bits & ENCRYPTED:
        raise DataError(f"{container}: {path} is encrypted; pack it again without a password")
    coding = CODINGS.get(info.compress_type)
    if coding is None:
        method = METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise DataError(f"{container}: {path} is compressed by {method}; pack it again stored or deflated")
    file.seek(info.header_offset)
    mark, name_length, extra_length = HEADER.unpack(file.read(HEADER.size))
    if mark != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header of {path} at byte {info.header_offset:,}")
    offset = info.header_offset + HEADER.size + name_length + extra_length
    return Member(path, offset, info.compress_size, coding, crc=info.CRC)
