"""Locks on outputs: one command at a time writes an output, or the state of an unfinished one.

A lock is a hidden file beside the output. The kernel's lock (``flock``) on it ends with its process, even if the
process is killed. The file names its owner, with a heartbeat: other hosts may share the folder without sharing the
kernel's locks, and some file systems have none. There, an owner whose heartbeat stands still counts as dead.
"""

import errno
import fcntl
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from platform import node

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cannot_write
from dcae_bench.base.terminal import printable
from dcae_bench.records.provenance import command_line
from dcae_bench.running.processes import Worker
from dcae_bench.running.run_lock import is_alive

BEAT_S = 5.0
SILENT_S = 30.0
"""Seconds without a heartbeat after which an owner counts as dead, where the kernel's lock does not tell."""
SETTLE_S = 1.0
"""Without the kernel's locks the last of several writers owns the lock; each waits this long to see who that is."""
POLL_S = 0.2
MAX_BYTES = 4000


@dataclass(frozen=True)
class Owner:
    """The command that holds a lock, as the lock file names it."""

    pid: int
    host: str
    started: str
    beat: str
    token: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started} ({self.command})"


def lock_of(path: Path) -> Path:
    """The lock file of an output, beside it."""
    return Path(path).parent / f".{Path(path).name}.lock"


@contextmanager
def sole_writer(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the output ``path``, a file or a folder. A folder that cannot be written needs no lock.

    While another command holds it, the call waits and names that command once on standard error; without ``wait`` it
    raises :class:`ResultsError`, as it does where the lock file cannot be made.
    """
    lock = lock_of(path)
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        descriptor = _acquire(lock, Path(path), wait)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise cannot_write(Path(path), error) from error
        descriptor = None  # nobody can write the output either; whoever tries has an error of their own
    if descriptor is None:
        yield
        return
    end = threading.Event()
    heart = threading.Thread(target=_beat, args=(descriptor, end), name="heartbeat", daemon=True)
    heart.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        end.set()
        heart.join()
        # Unlinked while it is held: who waits for this file sees that it is gone, and makes a new one.
        if _is_current(lock, descriptor):
            lock.unlink(missing_ok=True)
        os.close(descriptor)
        if failed:
            _remove_empty(made)


@contextmanager
def sole_writers(path: Path, process: Worker) -> Iterator[None]:
    """Hold the lock of the output ``path`` for all processes of one command. The first process takes it."""
    with ExitStack() as held:
        if process.first:
            held.enter_context(sole_writer(path))
        process.wait()
        yield


def _acquire(lock: Path, path: Path, wait: bool) -> int:
    """Take the lock and write this process into it; return its open file."""
    watch, told = _Watch(), False
    while True:
        descriptor = _open(lock)
        try:
            locked = _flock(descriptor)
            owner = _read(descriptor)
            if locked is not False:
                if not _is_current(lock, descriptor):
                    continue
                if (owner is None or watch.is_dead(owner, locked)) and _take(lock, descriptor, locked):
                    taken, descriptor = descriptor, -1
                    return taken
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if not wait and (locked is False or watch.beats):
            raise ResultsError(
                f"{path}: {owner or 'another command'} is writing it; wait until it ends, or end it, then run the same "
                "command again"
            )
        if not told:
            line = printable(f"dcae-bench: {path}: waiting for {owner or 'another command'}")
            print(line, file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_S)


def _open(lock: Path) -> int:
    """Open the lock file, and make it and its folder where they are missing."""
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # a command that failed has just removed the folder
            if not lock.parent.is_dir():
                continue
            raise


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


class _Watch:
    """Watches the heartbeat of a lock's owner. The clocks of two hosts may differ, so only its changes count."""

    def __init__(self) -> None:
        self._seen: tuple[str, str] | None = None
        self._since = 0.0
        self.beats = False
        """Whether a heartbeat was seen."""

    def is_dead(self, owner: Owner, locked: bool | None) -> bool:
        """Whether the owner is dead. ``locked`` tells whether this process has the kernel's lock on the file."""
        if owner.host == node() and (locked or not is_alive(owner.pid)):
            return True
        seen = owner.token, owner.beat
        if seen != self._seen:
            self.beats = self._seen is not None
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since >= SILENT_S


def _take(lock: Path, descriptor: int, locked: bool | None) -> bool:
    """Write this process into the lock file; return whether it owns the lock."""
    owner = Owner(os.getpid(), node(), _now(), _now(), secrets.token_hex(8), command_line()[: MAX_BYTES // 8])
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _content(owner), 0)
    except OSError:  # on a full disk the kernel's lock holds without a name, and the work says what it lacks
        if not locked:
            raise
    if locked:
        return True
    time.sleep(SETTLE_S)
    last = _read(descriptor)
    return _is_current(lock, descriptor) and last is not None and last.token == owner.token


def _beat(descriptor: int, end: threading.Event) -> None:
    """Renew the heartbeat until ``end``."""
    mine = _read(descriptor)
    while mine is not None and not end.wait(BEAT_S):
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, _content(replace(mine, beat=_now())))  # of equal length
        except OSError:  # for example a full disk; the kernel's lock remains
            continue


def _content(owner: Owner) -> bytes:
    return json.dumps(vars(owner)).encode() + b"\n"


def _read(descriptor: int) -> Owner | None:
    """Owner in the lock file; None where it was never written, or not to its end."""
    try:
        return Owner(**json.loads(os.pread(descriptor, MAX_BYTES, 0)))
    except (ValueError, TypeError):
        return None


def _flock(descriptor: int) -> bool | None:
    """Take the kernel's lock; False if another process holds it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_current(lock: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at the lock's path."""
    try:
        there, here = os.stat(lock, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
