"""The queue of commands that wait for devices, and the lock files of a machine."""

import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcae_bench.base.errors import MeasurementError

SUSPENDED_S = 10.0
"""Seconds after which a process that waits or takes devices, and does nothing, is taken for suspended."""
PAUSE_S = 0.002


def folder() -> Path:
    """Folder of the machine's leases: ``$DCAE_BENCH_LEASES``, else ``dcae-bench-leases`` among temporary files.

    All users of a machine share the folder. Containers that share a GPU must share the folder too.
    """
    return Path(os.environ.get("DCAE_BENCH_LEASES") or Path(tempfile.gettempdir()) / "dcae-bench-leases")


class Ticket:
    """The place of a waiting command in the queue: a file with a number, locked while the command lives."""

    def __init__(self, among: list[str]):
        """Wait for some of the devices ``among``."""
        self._among = among

    def __enter__(self) -> "Ticket":
        with alone():
            while True:
                number = max((number for number, _ in _tickets()), default=0) + 1
                self._path = _queue() / f"{number:012d}"
                try:
                    self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                    break
                except FileExistsError:
                    continue
                except OSError as error:
                    raise _cannot_open_lock(self._path, error) from error
            os.fchmod(self._descriptor, 0o666)
            os.pwrite(self._descriptor, json.dumps(self._among).encode(), 0)
            try_lock(self._descriptor)
        self._number = number
        return self

    def __exit__(self, *_error: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def wanted_before(self) -> set[str]:
        """Devices that commands with smaller tickets wait for. Removes the tickets of commands that ended."""
        os.utime(self._descriptor)
        present = os.fstat(self._descriptor).st_mtime
        found: set[str] = set()
        for number, path in _tickets():
            if number >= self._number or found.issuperset(self._among):
                break
            found |= _waited_for(path, present)
        return found


def _waited_for(path: Path, present: float) -> set[str]:
    """Devices of a ticket; none if its command has ended or is suspended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        if try_lock(descriptor, fcntl.LOCK_SH):
            path.unlink(missing_ok=True)
            return set()
        suspended = present - os.fstat(descriptor).st_mtime > SUSPENDED_S
        return set() if suspended else set(json.loads(os.pread(descriptor, 1 << 20, 0)))
    except (OSError, ValueError):  # another user's ticket, which only that user can remove
        return set()
    finally:
        os.close(descriptor)


def _queue() -> Path:
    return folder() / "queue"


def _tickets() -> list[tuple[int, Path]]:
    """Numbers and files of all tickets, in order."""
    return sorted((int(path.name), path) for path in _queue().iterdir() if path.name.isdigit())


@contextmanager
def alone() -> Iterator[None]:
    """Keep every other process from taking devices for this moment.

    A process that was suspended in its moment is not waited for longer than :data:`SUSPENDED_S`: the locks of the
    devices keep them apart without this one too, only the order of arrival may suffer.
    """
    _make(_queue())
    descriptor = open_lock(folder() / "queue.lock")
    end = time.monotonic() + SUSPENDED_S
    try:
        while not try_lock(descriptor) and time.monotonic() < end:
            time.sleep(PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _make(place: Path) -> None:
    """Make a folder, for every user of the machine, if it is missing."""
    try:
        for each in (place.parent, place):
            if not each.is_dir():
                each.mkdir(parents=True, exist_ok=True)
                each.chmod(0o1777)
    except OSError as error:
        raise _cannot_open_lock(place, error) from error


def open_lock(path: Path) -> int:
    """Open a lock file; create it, for every user of the machine, if it is missing."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # First without O_CREAT, which Linux refuses on another user's file in a folder like /tmp.
            return os.open(path, flags)
        except FileNotFoundError:
            descriptor = os.open(path, flags | os.O_CREAT, 0o666)
            os.fchmod(descriptor, 0o666)
            return descriptor
    except OSError as error:
        raise _cannot_open_lock(path, error) from error


def _cannot_open_lock(path: Path, error: OSError) -> MeasurementError:
    return MeasurementError(
        f"{path}: lease cannot be opened ({error.strerror}); set DCAE_BENCH_LEASES to a folder all users can write"
    )


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock on an open file, whole or shared; False if another process has one that stands against it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise
    return True
