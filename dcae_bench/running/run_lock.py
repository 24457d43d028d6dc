"""Locks on a results folder: one workflow run at a time works there, and no job of a run that has ended.

Snakemake locks the files of a run, but its locks name no process: the locks of a killed run remain and stop the next
run. Here a run holds a lock that ends with it, and each of its jobs has one of its own, on whatever host it works. So
the next run knows whether Snakemake's locks are stale.
"""

import atexit
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT
from typing import Any

from dcae_bench.base.errors import ResultsError, UserError
from dcae_bench.base.terminal import printable
from dcae_bench.running.heartbeat import POLL_S, SILENT_S, Heart, Owner, Watch, flock, read, write
from dcae_bench.running.output_lock import sole_writer

VARIABLE = "DCAE_BENCH_RUN"
"""Environment variable that tells the jobs of a run the folder of the locks."""
RUN, JOBS = "dcae-bench-run", "dcae-bench-jobs"
BUSY = (
    "{path}: another workflow run is at work here ({owner}); wait until it ends, or end it, then run the same command "
    "again"
)
_held = ExitStack()
"""Locks that this process holds until its end."""
atexit.register(_held.close)


def join_before_execution(workflow: Any, folder: Path) -> None:
    """Let Snakemake's ``workflow`` join as a run when it executes jobs; dry runs and reports need no lock.

    Whether it executes is known only then, after the Snakefile is read. A refused run prints one line and exits with 2.
    """
    execute: Callable[..., object] = workflow.execute

    def guarded(executor_plugin: Any, **options: Any) -> object:
        settings = executor_plugin.common_settings
        if not (settings.dryrun_exec or settings.touch_exec):
            try:
                stale = join_run(folder)
            except UserError as error:
                print(printable(f"dcae-bench: error: {error}"), file=sys.stderr)
                sys.exit(2)
            if stale:
                said = "dcae-bench: a killed run had left its files locked; its locks are removed"
                print(said, file=sys.stderr, flush=True)
        return execute(executor_plugin=executor_plugin, **options)

    workflow.execute = guarded


def join_run(folder: Path) -> bool:
    """Register this process as the run in Snakemake's ``folder``; return whether stale locks were removed.

    Snakemake's locks in the folder then belong to a killed run, and this function removes them. Raises
    :class:`ResultsError` while another run is at work there, on any host, and while jobs of a killed run are, because
    they write the same files as this run. An owner on another host whose heartbeat is silent counts as dead.
    """
    folder = Path(folder).absolute()
    os.environ[VARIABLE] = str(folder)
    busy = BUSY.replace("{path}", str(folder.parent).replace("{", "{{").replace("}", "}}"))
    with ExitStack() as held:
        held.enter_context(sole_writer(folder / RUN, wait=False, refusal=busy, on_loss=_interrupt))
        _require_no_jobs(folder)
        try:
            stale = _remove_stale_locks(folder)
        except OSError:
            stale = False
        _held.push(held.pop_all())
    return stale


def join_jobs() -> None:
    """Register this process as a job of the run that started it, if there is one."""
    if (folder := os.environ.get(VARIABLE)) is None:
        return
    owner = Owner.this()
    path = Path(folder) / JOBS / f"{owner.token}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        flock(descriptor)
        write(path, owner)
    except OSError:  # nothing can be written there; Snakemake's own locks remain
        return
    heart = Heart(path, descriptor, owner)
    _held.callback(_leave, heart, path, descriptor)


def _leave(heart: Heart, path: Path, descriptor: int) -> None:
    heart.stop()
    path.unlink(missing_ok=True)
    os.close(descriptor)


def _interrupt(line: str) -> None:
    """Stop this run of Snakemake, whose lock another run has taken."""
    print(printable(f"dcae-bench: error: {line}"), file=sys.stderr, flush=True)
    os.kill(os.getpid(), SIGINT)


def _require_no_jobs(folder: Path) -> None:
    """Check that no job is at work here, and remove the locks of dead ones. Raises :class:`ResultsError`."""
    watches: dict[Path, Watch] = {}
    told = False
    while True:
        alive: list[str] = []
        unsure: list[str] = []
        for path in sorted((folder / JOBS).glob("*.lock")):
            watch = watches.setdefault(path, Watch())
            owner, dead = _look(path, watch)
            if dead:
                path.unlink(missing_ok=True)
            elif owner is not None:
                (alive if owner.here or watch.beats else unsure).append(str(owner))
        if alive:
            raise ResultsError(
                f"{folder.parent}: jobs of a killed run are still at work here ({', '.join(alive)}); wait until they "
                "end, or end them, then run the same command again"
            )
        if not unsure:
            return
        if not told:
            line = f"dcae-bench: {folder.parent}: looking for {SILENT_S:.0f} s whether these still live: "
            print(printable(line + ", ".join(unsure)), file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_S)


def _look(path: Path, watch: Watch) -> tuple[Owner | None, bool]:
    """The owner of a job's lock, None if it cannot be read, and whether it is dead."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None, False
    try:
        locked, owner = flock(descriptor), read(descriptor)
        if owner is None:  # killed, or at the point of writing it
            return None, locked is True and time.time() - os.fstat(descriptor).st_mtime > SILENT_S
        if owner.here and locked is False:
            return owner, False
        return owner, watch.is_dead(owner, locked)
    finally:
        os.close(descriptor)


def _remove_stale_locks(folder: Path) -> bool:
    """Remove Snakemake's locks of dead runs, and return whether there were any. Raises :class:`OSError`."""
    locks = folder / "locks"
    found = any(locks.glob("*.lock"))
    if found:
        shutil.rmtree(locks)
        locks.mkdir()
    return found
