"""Leftovers: hidden files and folders that killed commands left. Whoever works on one holds a lock on it."""

import fcntl
import os
import re
import shutil
import threading
import weakref
from pathlib import Path

PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")
"""Names of the temporary files of :func:`dcae_bench.base.files.atomic_write`."""
LOCK = "lock"
"""Name of the lock file in a folder of unfinished work."""
_swept: set[Path] = set()
_sweeping = threading.Lock()


def hold_part(descriptor: int) -> bool:
    """Lock a new temporary file until it is closed; return False if a sweep has removed the file meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks, on which nothing is ever swept either
        return True
    return os.fstat(descriptor).st_nlink > 0


def remove_parts(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writer was killed; once per process and folder."""
    with _sweeping:
        if folder in _swept:
            return
        _swept.add(folder)
    try:
        names = [name for name in os.listdir(folder) if PART.fullmatch(name)]
    except OSError:
        return
    for name in names:
        _remove_unheld(folder / name, folder / name)


class Hold:
    """A lock on a folder of unfinished work while this object lives: no other command takes it for a leftover."""

    def __init__(self, folder: Path):
        """Take the lock. If no other process has it, ``alone`` is set, and others wait until :meth:`share`.

        Raises :class:`OSError` when the lock file cannot be made.
        """
        self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, self._descriptor)
        self.alone = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.alone = False
            self.share()
        except OSError:  # a file system without locks
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{folder}: was removed by another command")

    def share(self) -> None:
        """Let other processes hold the folder too."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        except OSError:  # a file system without locks
            return


def remove_folders(place: Path, stem: str, *, keep: Path | None = None) -> None:
    """Remove the folders ``.<stem>-<12 hex digits>`` in ``place`` that no living command holds, except ``keep``."""
    name = re.compile(rf"\.{re.escape(stem)}-[0-9a-f]{{12}}")
    try:
        found = [place / entry for entry in os.listdir(place) if name.fullmatch(entry)]
    except OSError:
        return
    for folder in found:
        if folder != keep:
            locks = [*folder.rglob(LOCK)]
            _remove_unheld(folder, *locks)


def _remove_unheld(path: Path, *locks: Path) -> None:
    """Remove a file or folder if all ``locks`` can be taken; they are held until it is gone."""
    descriptors: list[int] = []
    try:
        for lock in locks:
            descriptors.append(os.open(lock, os.O_RDWR | os.O_CLOEXEC))
            fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # held by a living command, gone already, or not ours to remove
        pass
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
