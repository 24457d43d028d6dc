"""Arrays of ``.npz`` and ``.npy`` files that are larger than memory: mapped in place, never read as a whole."""

import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dcae_bench.base.files import open_regular, write_with
from dcae_bench.base.reading import map_array

LOCAL_HEADER = struct.Struct("<26xHH")
"""End of a zip member's own header: the lengths of its name and of its extra field, which the data follow."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
COPIED = 1 << 24
"""Bytes of a compressed member that are unpacked at a time."""


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a ``.npz`` file. Raises OSError, and ValueError for a file that is no such archive."""
    with _open(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def map_member(path: Path, name: str, unpacked: Path) -> np.ndarray:
    """Map an array of a ``.npz`` file, read-only. Pickled objects are refused.

    A member that is stored as it is, as by ``np.savez``, is mapped in its archive. A compressed one is first unpacked
    to the file ``unpacked`` (``.npy``), part by part, unless that file is there. Raises OSError and ValueError, and
    :class:`ResultsError` where ``unpacked`` cannot be written.
    """
    with _open(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored and unpacked.exists():
            return map_array(unpacked)
        try:
            with archive.open(member) as source:  # reads it to the end, which checks its checksum
                if not stored:
                    write_with(unpacked, lambda file: shutil.copyfileobj(source, file, COPIED))
                while source.read(COPIED):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"its array {name} cannot be read: {error}") from error
    return _map_stored(path, member) if stored else map_array(unpacked)


def _open(path: Path) -> zipfile.ZipFile:
    open_regular(path).close()
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise ValueError(f"is not a .npz archive: {error}") from error


def _map_stored(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    with open_regular(path) as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise ValueError(f"its array {member.filename} is damaged")
        file.seek(sum(LOCAL_HEADER.unpack(header)), 1)
        start = file.tell()
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"its array {member.filename} has version {version} of NumPy's format")
        shape, fortran, dtype = HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"its array {member.filename} holds pickled objects")
        offset = file.tell()
    count = int(np.prod(shape, dtype=object))
    if offset - start + count * dtype.itemsize != member.file_size:
        raise ValueError(f"its array {member.filename} is damaged: its size is not that of its shape {shape}")
    if not count:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
