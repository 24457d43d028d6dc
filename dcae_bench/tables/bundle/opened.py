"""Opening bundles of strangers: folders and zips, without links, ways out of the folder, or files without end."""

import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.files import write_with
from dcae_bench.measurement.evidence import SUMS

LARGEST_FILE = 64 << 20
LARGEST = 512 << 20
"""Bytes of one file and of a whole bundle; a zip is counted unpacked."""
MOST_FILES = 20_000
LONGEST_NAME = 400
ENDINGS = (".json", ".md", ".csv", ".png", ".txt")
"""Endings of what a bundle may hold: data and images of pixels, and nothing that a program or a browser runs."""
_CHUNK = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a bundle, which a zip is unpacked to for as long as the block runs.

    Raises :class:`ResultsError` for anything but a folder or a zip, and for one that is not safe to read.
    """
    path = Path(path)
    if path.is_dir():
        require_safe(path)
        yield path
        return
    if not path.is_file():
        raise ResultsError(f"{path}: is no folder and no file; name a bundle")
    with tempfile.TemporaryDirectory(prefix="dcae-bench-bundle-") as scratch:
        folder = Path(scratch) / "bundle"
        _unpack(path, folder)
        try:
            yield folder
        except UserError as error:  # the user knows the zip, not where it was unpacked
            raise type(error)(str(error).replace(str(folder), str(path))) from error


def require_safe(folder: Path) -> None:
    """Check names, kinds and sizes of the files below a folder. Raises :class:`ResultsError`."""
    sizes: dict[str, int] = {}
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent) / name
            shown, found = path.relative_to(folder).as_posix(), path.lstat()
            if stat.S_ISLNK(found.st_mode):
                raise _unsafe(folder, shown, "is a link")
            if name in folders:
                continue
            if not stat.S_ISREG(found.st_mode):
                raise _unsafe(folder, shown, "is no regular file")
            sizes[shown] = found.st_size
    _require_bounds(folder, sizes)


def require_kinds(folder: Path) -> None:
    """Check that a bundle holds only files of the kinds that it may hold. Raises :class:`ResultsError`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in ENDINGS and path != folder / SUMS:
            kinds = ", ".join(ENDINGS)
            raise _unsafe(folder, path.relative_to(folder).as_posix(), f"is of a kind that no bundle holds ({kinds})")


def pack(folder: Path, path: Path) -> None:
    """Write the files of a folder as a zip, atomically; equal folders give equal bytes. Raises ResultsError."""

    def save(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in sorted(each for each in folder.rglob("*") if each.is_file()):
                entry = zipfile.ZipInfo(one.relative_to(folder).as_posix())
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, one.read_bytes())

    write_with(path, save)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            names = [entry.filename for entry in entries]
            for entry in archive.infolist():
                _require_entry(path, entry)
            if len(set(names)) != len(names):
                raise _unsafe(path, next(name for name in names if names.count(name) > 1), "is there twice")
            _require_bounds(path, {entry.filename: entry.file_size for entry in entries})
            folder.mkdir()
            for entry in entries:
                _copy(archive, entry, folder / entry.filename)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{path}: is no zip that can be read ({reason}); ask for the bundle again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResultsError(f"{path}: cannot be unpacked ({reason}); ask for the bundle again") from error


def _require_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(path, name, "is a link or a device")
    if entry.flag_bits & 1:
        raise _unsafe(path, name, "is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unsafe(path, name, "is compressed in another way than by deflate")
    _require_name(path, name.removesuffix("/"))


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one file, of no more bytes than it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as source, open(path, "xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise ValueError(f"{entry.filename} is larger than it says")
            file.write(chunk)


def _require_bounds(path: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        _require_name(path, name)
        if size > LARGEST_FILE:
            raise _unsafe(path, name, f"has {size} bytes, more than {LARGEST_FILE}")
    if len(sizes) > MOST_FILES:
        raise ResultsError(f"{path}: holds {len(sizes)} files, more than {MOST_FILES}; pass a smaller bundle")
    if (total := sum(sizes.values())) > LARGEST:
        raise ResultsError(f"{path}: holds {total} bytes, more than {LARGEST}; pass a smaller bundle")


def _require_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        raise _unsafe(path, name, "lies outside of the bundle")
    if len(name.encode(errors="surrogateescape")) > LONGEST_NAME or not name.isprintable():
        raise _unsafe(path, name, "has a name that is too long or cannot be printed")


def _unsafe(path: Path, name: str, text: str) -> ResultsError:
    return ResultsError(f"{path}: its file {name[:100]!r} {text}, so it is not read; ask for another bundle")


def _raise(error: OSError) -> None:
    raise ResultsError(f"{error.filename}: cannot be read ({error.strerror}); make it readable") from error
