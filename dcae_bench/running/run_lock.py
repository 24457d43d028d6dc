"""Locks on a results folder, which tell whether workflow runs and their jobs are still at work there.

Snakemake locks the files of a run, but its locks name no process: the locks of a killed run remain and stop the next
run. The kernel's locks (``flock``) always end with the process that holds them, so they tell whether Snakemake's locks
are stale.
"""

import fcntl
import os
import shutil
from pathlib import Path
from platform import node

from dcae_bench.base.errors import ResultsError

VARIABLE = "DCAE_BENCH_RUN"
"""Environment variable that tells the jobs of a run the folder of the locks."""
RUNS, JOBS = "dcae-bench-runs.lock", "dcae-bench-jobs.lock"
_held: list[int] = []
"""File descriptors of the locks that this process holds until its end."""


def join_run(folder: Path) -> bool:
    """Register this process as a run in Snakemake's ``folder``; return whether stale locks were removed.

    If no other run is alive, Snakemake's locks in the folder belong to a killed run, and this function removes them.
    It removes nothing on a file system that cannot lock files. Raises :class:`ResultsError` while jobs of a killed run
    are still at work, because they write the same files as this run.
    """
    folder = Path(folder).absolute()
    os.environ[VARIABLE] = str(folder)
    descriptor = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(folder / RUNS)
        alone = _lock(descriptor, fcntl.LOCK_EX)
        stale = alone and _remove_stale_locks(folder)
        # The shared lock tells other runs that this run is alive.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        if descriptor is not None:  # otherwise this process would hold its lock to its end
            os.close(descriptor)
        return False
    _held.append(descriptor)
    return stale


def join_jobs() -> None:
    """Register this process as a job of the run that started it, if there is one."""
    if (folder := os.environ.get(VARIABLE)) is None:
        return
    try:
        descriptor = _open(Path(folder) / JOBS)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.write(descriptor, f"{os.getpid()} {node()}\n".encode())
    except OSError:  # no kernel lock, but Snakemake's own locks remain
        return
    _held.append(descriptor)


def _remove_stale_locks(folder: Path) -> bool:
    """Remove Snakemake's locks of dead runs, and return whether there were any. Raises :class:`ResultsError`."""
    jobs = _open(folder / JOBS)
    try:
        if not _lock(jobs, fcntl.LOCK_EX):
            jobs_listed = [line.partition(" ") for line in (folder / JOBS).read_text().splitlines()]
            working = [
                f"process {pid} on {host}" for pid, _, host in jobs_listed if host != node() or is_alive(int(pid))
            ]
            raise ResultsError(
                f"{folder.parent}: jobs of a killed run are still at work here ({', '.join(working)}); wait until they "
                "end, or end them, then run the same command again"
            )
        os.ftruncate(jobs, 0)
    finally:
        os.close(jobs)
    locks = folder / "locks"
    found = any(locks.glob("*.lock"))
    if found:
        shutil.rmtree(locks)
        locks.mkdir()
    return found


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _lock(descriptor: int, kind: int) -> bool:
    """Take a lock; return False if another process holds a conflicting one."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
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
