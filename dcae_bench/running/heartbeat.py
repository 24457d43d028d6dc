"""Heartbeats in lock files: who holds a lock on another host, whether it lives, and whether this process lost its own.

The kernel's locks end with their process, but hosts that share a folder need not share them. There, an owner counts as
dead after :data:`SILENT_S` seconds in which its heartbeat was watched and stood still. Clocks of hosts are never
compared: a watcher counts its own seconds. An owner that stood still itself, as in a suspended machine, looks whether
it still owns the lock before it goes on writing.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from platform import node

from dcae_bench.base.claims import give_back, hold
from dcae_bench.base.errors import ResultsError
from dcae_bench.records.provenance import command_line

BEAT_S = 5.0
SILENT_S = 30.0
"""Seconds of a silent heartbeat after which an owner counts as dead, where the kernel's lock does not tell."""
TRUST_S = SILENT_S / 2
"""Seconds since its last heartbeat in which an owner need not look whether the lock is still its own."""
POLL_S = 0.2
MAX_BYTES = 4000


@cache
def machine() -> str:
    """Identity of the running kernel and of this process's process ids: hosts and containers may share a name."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return node()


@dataclass(frozen=True)
class Owner:
    """The command that holds a lock, as the lock file names it."""

    pid: int
    host: str
    started: str
    beat: str
    token: str
    command: str
    machine: str = ""

    @classmethod
    def this(cls) -> "Owner":
        """The owner that this process is."""
        command = command_line()[: MAX_BYTES // 8]
        return cls(os.getpid(), node(), now(), now(), secrets.token_hex(8), command, machine())

    @property
    def here(self) -> bool:
        """Whether the owner runs under this kernel, so that its locks and process id mean something here."""
        return self.machine == machine()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started} ({self.command})"


class Watch:
    """Watches the heartbeat of a lock's owner."""

    def __init__(self) -> None:
        self._seen: tuple[str, str] | None = None
        self._silent_s, self._last = 0.0, 0.0
        self.beats = False
        """Whether a heartbeat was seen."""

    def is_dead(self, owner: Owner, locked: bool | None) -> bool:
        """Whether the owner is dead. ``locked`` tells whether this process has the kernel's lock on the file."""
        if owner.here and (locked or not is_alive(owner.pid)):
            return True
        seen, present = (owner.token, owner.beat), time.monotonic()
        if seen != self._seen:
            self.beats = self._seen is not None
            self._seen, self._silent_s = seen, 0.0
        else:
            # A pause of this process, or of a file server, is no silence of the owner.
            self._silent_s += min(present - self._last, 5 * POLL_S)
        self._last = present
        return self._silent_s >= SILENT_S


class Heart:
    """Beats in an own lock file until :meth:`stop`. A claim: before each write, it makes sure of the lock."""

    def __init__(self, path: Path, descriptor: int, owner: Owner, on_loss: Callable[[str], None] | None = None):
        """Beat in the open file ``descriptor`` at ``path``, which names ``owner``.

        ``on_loss`` gets the error's line when the lock turns out to be lost, once, in any thread.
        """
        self._path, self._descriptor, self._owner, self._on_loss = path, descriptor, owner, on_loss
        self._sure = clock()
        self._lost: str | None = None
        self._named = read(descriptor) is not None  # not where the disk is full
        self._beating, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        hold(self)
        self._thread.start()

    def require(self) -> None:
        """Raise :class:`ResultsError` if another command has the lock."""
        if self._lost is None and clock() - self._sure > TRUST_S:
            self.beat()
        if self._lost is not None:
            raise ResultsError(self._lost)

    def owns(self) -> bool:
        """Whether the lock is still this owner's, as far as can be seen."""
        try:
            found = read_at(self._path)
        except OSError:
            return False
        return is_current(self._path, self._descriptor) and (found is None or found.token == self._owner.token)

    def beat(self) -> None:
        """Renew the heartbeat, if the lock is still this owner's."""
        with self._beating:
            if self._lost is not None:
                return
            since = clock()
            try:
                found, current = read_at(self._path), is_current(self._path, self._descriptor)
            except OSError:  # a file server that does not answer tells nothing
                return
            if not current or (found is not None and found.token != self._owner.token):
                self._lose(found, since - self._sure)
                return
            if found is None and self._named:  # someone is about to write a name over this one
                return
            self._owner = replace(self._owner, beat=now())  # of equal length
            with suppress(OSError):  # on a full disk the kernel's lock remains
                write(self._path, self._owner)
                self._named = True
            self._sure = since

    def stop(self) -> None:
        """End the heartbeat and the claim."""
        give_back(self)
        self._end.set()
        self._thread.join()

    def _beat_on(self) -> None:
        while not self._end.wait(BEAT_S):
            self.beat()

    def _lose(self, other: Owner | None, stood_still_s: float) -> None:
        whom = f"to {other}" if other is not None else "because others took this command for dead"
        self._lost = (
            f"{self._path}: this command lost its lock {whom}, after it had stood still for {stood_still_s:.0f} s; it "
            "writes no more, run it again"
        )
        if self._on_loss is not None:
            self._on_loss(self._lost)


def clock() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def now() -> str:
    """The time, for people; one second is one heartbeat's length of text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write(path: Path, owner: Owner) -> None:
    """Write an owner into the lock file at ``path``. Raises :class:`OSError`.

    The file is opened and closed for it, which makes a network file system pass it on, so that other hosts see it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, json.dumps(vars(owner)).encode() + b"\n", 0)
    finally:
        os.close(descriptor)


def read(descriptor: int) -> Owner | None:
    """Owner in an open lock file; None where it was never written, or not to its end."""
    try:
        return Owner(**json.loads(os.pread(descriptor, MAX_BYTES, 0)))
    except (ValueError, TypeError):
        return None


def read_at(path: Path) -> Owner | None:
    """Owner in the lock file at ``path``; None without one. Raises :class:`OSError` where it cannot be read.

    The file is opened anew, which makes a network file system ask its server.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return read(descriptor)
    finally:
        os.close(descriptor)


def is_current(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        there, here = os.stat(path, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def flock(descriptor: int) -> bool | None:
    """Take the kernel's lock; False if another process holds it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process lives and belongs to another user
        pass
    return True
