"""Who is at work in a results folder: runs of the workflow and the jobs that they started.

Snakemake locks the files of a run, but its locks name no process: those of a killed run stay and stop the next one. The
kernel's locks (``flock``) end with their holders, however these end, so they tell whether Snakemake's are stale.
"""

import fcntl
import os
import shutil
from pathlib import Path
from platform import node

from dcae_bench.errors import ResultsError

VARIABLE = "DCAE_BENCH_RUN"
"""Names the folder of the locks to the jobs of a run."""
RUNS, JOBS = "dcae-bench-runs.lock", "dcae-bench-jobs.lock"
_held: list[int] = []
"""Descriptors whose locks this process holds until its end."""


def join_run(folder: Path) -> bool:
    """Count this process among the runs in Snakemake's ``folder``, and its jobs among theirs.

    If it is the only run, locks of Snakemake that are there belong to a killed one and are removed; returns whether
    there were any. Raises :class:`ResultsError` while jobs of a killed run are still at work: they write the files that
    this run would. Where files cannot be locked, nothing is removed.
    """
    folder = Path(folder).absolute()
    os.environ[VARIABLE] = str(folder)
    descriptor = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(folder / RUNS)
        alone = _lock(descriptor, fcntl.LOCK_EX)
        stale = alone and _end_of_the_dead(folder)
        # From now on another run does not find itself alone.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        if descriptor is not None:  # the next run would wait for its lock as long as this one lives
            os.close(descriptor)
        return False
    _held.append(descriptor)
    return stale


def join_jobs() -> None:
    """Count this process among the jobs of the run that started it, if one did."""
    if (folder := os.environ.get(VARIABLE)) is None:
        return
    try:
        descriptor = _open(Path(folder) / JOBS)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.write(descriptor, f"{os.getpid()} {node()}\n".encode())
    except OSError:  # Snakemake's own locks are left
        return
    _held.append(descriptor)


def _end_of_the_dead(folder: Path) -> bool:
    """Remove what dead runs left locked; whether there was anything."""
    jobs = _open(folder / JOBS)
    try:
        if not _lock(jobs, fcntl.LOCK_EX):
            told = [line.partition(" ") for line in (folder / JOBS).read_text().splitlines()]
            working = [f"process {pid} on {host}" for pid, _, host in told if host != node() or _is_alive(int(pid))]
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
    """Take a lock unless another process is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
