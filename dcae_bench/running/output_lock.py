"""Locks on outputs: one command at a time writes an output, or the state of an unfinished one.

A lock is a hidden file beside the output. The kernel's lock (``flock``) on it ends with its process, even if the
process is killed. The file names its owner, with a heartbeat (:mod:`dcae_bench.running.heartbeat`): other hosts may
share the folder without sharing the kernel's locks, and some file systems have none.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dcae_bench.base.claims import give_back, hold
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cannot_write
from dcae_bench.base.terminal import printable
from dcae_bench.running.heartbeat import (
    POLL_S,
    TRUST_S,
    Heart,
    Owner,
    Watch,
    clock,
    flock,
    is_current,
    read,
    read_at,
    write,
)
from dcae_bench.running.processes import Worker

SETTLE_S = 1.0
"""Without the kernel's locks the last of several writers owns the lock; each waits this long to see who that is."""
WRITING = "{path}: {owner} is writing it; wait until it ends, or end it, then run the same command again"
"""Why a command that does not wait is refused."""


def lock_of(path: Path) -> Path:
    """The lock file of an output, beside it."""
    return Path(path).parent / f".{Path(path).name}.lock"


@contextmanager
def sole_writer(
    path: Path, *, wait: bool = True, refusal: str = WRITING, on_loss: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock of the output ``path``, a file or a folder. A folder that cannot be written needs no lock.

    While another command holds it, the call waits and names that command once on standard error; without ``wait`` it
    raises :class:`ResultsError` with the text ``refusal``, as it does where the lock file cannot be made. If this
    process loses the lock, because it stood still so long that others took it for dead, its next write raises
    :class:`ResultsError`, and ``on_loss`` gets the line.
    """
    lock = lock_of(path)
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        taken = _acquire(lock, Path(path), wait, refusal)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise cannot_write(Path(path), error) from error
        taken = None  # nobody can write the output either; whoever tries has an error of their own
    if taken is None:
        yield
        return
    descriptor, owner = taken
    heart = Heart(lock, descriptor, owner, on_loss)
    failed = True
    try:
        yield
        failed = False
    finally:
        heart.stop()
        # Unlinked while it is held: who waits for this file sees that it is gone, and makes a new one.
        if heart.owns():
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
        if not process.first:
            held.callback(give_back, _Follower(lock_of(path)))
        yield


class _Follower:
    """A claim of the other processes of a command: that the first one still has the lock."""

    def __init__(self, lock: Path):
        self._lock, self._owner, self._sure = lock, read_at(lock), clock()
        self._lost: str | None = None
        hold(self)

    def require(self) -> None:
        """Raise :class:`ResultsError` if another command has the lock."""
        if self._lost is None and clock() - self._sure > TRUST_S:
            self._look()
        if self._lost is not None:
            raise ResultsError(self._lost)

    def _look(self) -> None:
        since = clock()
        try:
            found = read_at(self._lock)
        except OSError:  # a file server that does not answer tells nothing
            return
        if self._owner is None or found is None or found.token == self._owner.token:
            self._sure = since
        else:
            self._lost = f"{self._lock}: this command lost its lock to {found}; it writes no more, run it again"


def _acquire(lock: Path, path: Path, wait: bool, refusal: str) -> tuple[int, Owner]:
    """Take the lock and write this process into it; return its open file and what it says."""
    watch, told = Watch(), False
    while True:
        descriptor = _open(lock)
        try:
            locked = flock(descriptor)
            owner = read(descriptor)
            if locked is not False:
                if not is_current(lock, descriptor):
                    continue
                free = owner is None or watch.is_dead(owner, locked)
                if free and (mine := _take(lock, descriptor, locked)) is not None:
                    taken, descriptor = descriptor, -1
                    return taken, mine
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if not wait and (locked is False or watch.beats):
            raise ResultsError(refusal.format(path=path, owner=owner or "another command"))
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


def _take(lock: Path, descriptor: int, locked: bool | None) -> Owner | None:
    """Write this process into the lock file; return what it says, or None if another process owns the lock."""
    owner = Owner.this()
    try:
        os.ftruncate(descriptor, 0)
        write(lock, owner)
    except OSError:  # on a full disk the kernel's lock holds without a name, and the work says what it lacks
        if not locked:
            raise
    if locked:
        return owner
    time.sleep(SETTLE_S)
    last = read_at(lock)
    return owner if is_current(lock, descriptor) and last is not None and last.token == owner.token else None
