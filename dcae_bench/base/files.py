"""Files: atomic writes, hashes and the user's cache directory."""

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.leftovers import hold_part, remove_parts

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent
"""Root of the git checkout. If a wheel installed the package: the folder of all installed packages."""
# In a checkout the package holds links to these two folders; in a wheel it holds copies of them.
BASELINES = (PACKAGE / "baselines").resolve()
CONFIG = (PACKAGE / "config").resolve()


TEMPORARY_BYTES = 23
"""Length in bytes that a temporary name has beyond the name of its file."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` when the block ends without an error.

    The data are on disk (fsync) before the rename, and the rename is on disk when the block has ended. So a killed
    process, a full disk or a machine that crashes leaves either the old file or the new one, never a part of it.
    Temporary files of killed processes are removed from the folder. Raises :class:`ResultsError` when the folder cannot
    be written.
    """
    path = Path(path)
    temporary = None
    try:
        make_folder(path.parent)
        remove_parts(path.parent)
        temporary, descriptor = _open_part(path)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            require_claims()
            temporary.replace(path)  # before the file is closed, which ends its lock
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _open_part(path: Path) -> tuple[Path, int]:
    """Create and lock a temporary file beside ``path``; returns its path and descriptor."""
    while True:
        part = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
        # 0o666 is reduced by the user's umask. Reading the umask would change it for a moment in all threads.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if hold_part(descriptor):
            return part, descriptor
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, so that it is still there after a crash. Raises :class:`OSError`."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def sync_file(path: Path) -> None:
    """Wait until a file's data are on disk. Raises :class:`OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where its file system can. Raises :class:`OSError`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_with(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` atomically with what ``save`` writes into the binary file that it is given."""
    with atomic_write(path) as file:
        watched = _Watched(file)
        try:
            save(cast(BinaryIO, watched))
        except Exception as error:
            # A library may hide the system's error behind one of its own, as torch.save does on a full disk.
            if watched.failure is not None and watched.failure is not error:
                raise watched.failure from error
            raise


class _Watched(io.BufferedIOBase):
    """A file to write that remembers the first error of the system."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave the file open: whoever opened it closes it."""


def write_at(path: Path, offset: int, rows: np.ndarray) -> None:
    """Write an array's bytes into an existing file, from byte ``offset`` on.

    A full disk makes this write fail with an error; it would kill a process that writes through a memory mapping.
    Raises :class:`ResultsError`.
    """
    require_claims()
    try:
        with open(path, "r+b", buffering=0) as file:
            content = np.ascontiguousarray(rows).data.cast("B")
            while content:
                written = os.pwrite(file.fileno(), content, offset)
                content, offset = content[written:], offset + written
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """Build the error that tells the user of a failed write."""
    return ResultsError(
        f"{path}: cannot be written ({error.strerror or error}); free some space or make the folder writable"
    )


def require_writable_folder(folder: Path) -> Path:
    """Check, before any work, that files can be written below ``folder``; return the folder or its nearest parent.

    Raises :class:`ResultsError`.
    """
    folder = Path(folder).absolute()
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:  # a name that is too long
        raise cannot_write(folder, error) from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ResultsError(f"{existing}: cannot be written; make it a writable folder or work in another one")
    return existing


def require_writable_file(path: Path) -> None:
    """Check, before any work, that a file can be written to ``path``. Raises :class:`ResultsError`."""
    path = Path(path)
    existing = require_writable_folder(path.absolute().parent)
    if len(os.fsencode(path.name)) > os.pathconf(existing, "PC_NAME_MAX") - TEMPORARY_BYTES:
        raise ResultsError(f"{path}: cannot be written, because its name is too long; name a shorter one")
    if path.exists() and not path.is_file():  # a rename would replace a device
        raise ResultsError(f"{path}: cannot be written, because it is no file; name another one")


def require_free_space(folder: Path, free_mib: int) -> None:
    """Check that ``folder`` is writable and that its disk has ``free_mib`` MiB left; called before any work.

    Raises :class:`ResultsError`.
    """
    existing = require_writable_folder(folder)
    free = shutil.disk_usage(existing).free >> 20
    if free < free_mib:
        raise ResultsError(f"{existing}: only {free} MiB are free on its disk, {free_mib} are needed; free some space")


KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
"""Names of what a path may be instead of a regular file."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Reading a named pipe or a device may wait or go on for ever. Raises :class:`OSError`, whose ``strerror`` says what
    the path is instead.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits for a writer. For a regular file the flag changes nothing.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` itself refuses a folder
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, f"is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file", path)


def require_regular_file(path: Path) -> None:
    """Check a file before a library opens it by its path. Raises :class:`OSError` as :func:`open_regular` does."""
    open_regular(path).close()


def read_bytes(path: Path) -> bytes:
    """Content of a regular file. Raises :class:`OSError` as :func:`open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Content of a regular file in UTF-8; every end of a line becomes a line feed.

    Raises :class:`OSError` as :func:`open_regular` does, and :class:`UnicodeDecodeError`.
    """
    return read_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file. Raises :class:`OSError` as :func:`open_regular` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cache_dir() -> Path:
    """The user's cache directory: ``$DCAE_BENCH_CACHE``, else ``dcae-bench`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("DCAE_BENCH_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dcae-bench"
