"""The clock of work that resumes: its seconds survive when the process is killed."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cannot_write
from dcae_bench.records.provenance import Stopwatch

INTERVAL_S = 0.5
ABANDONED_S = 3600.0
PREFIX = ".seconds"


@contextmanager
def kept_clock(state: Path, *, keep: bool = True) -> Iterator[Stopwatch]:
    """Measure the seconds of the work whose unfinished state is the folder ``state``, killed runs included.

    The seconds lie in a hidden file beside ``state``, written every half second. They count only while ``state`` is
    there: the block deletes ``state`` when the work is finished, and the file follows. With several processes only the
    first has ``keep``. Raises :class:`ResultsError` where the file cannot be written.
    """
    if not keep:
        yield Stopwatch()
        return
    _forget_abandoned(state.parent)
    file = state.with_name(f"{PREFIX}{state.name}")
    clock, end = Stopwatch(_read(file) if state.is_dir() else 0.0), threading.Event()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(file, error) from error
    writer = threading.Thread(target=_write_until, args=(end, clock, descriptor), name="seconds", daemon=True)
    writer.start()
    try:
        yield clock
    finally:
        end.set()
        writer.join()
        os.close(descriptor)
        if not state.is_dir():
            file.unlink(missing_ok=True)


def forget_clocks(folder: Path, stem: str) -> None:
    """Remove the seconds of finished work, whose states are folders ``.<stem>-...``; a kill at its end left them.

    Call this only where no other command works on the same output.
    """
    for file in folder.glob(f"{PREFIX}.{stem}-*"):
        if not file.with_name(file.name.removeprefix(PREFIX)).is_dir():
            file.unlink(missing_ok=True)


def _forget_abandoned(folder: Path) -> None:
    """Remove files without their state, as a kill at the end of the work leaves them."""
    for file in folder.glob(f"{PREFIX}.*"):
        gone = not file.with_name(file.name.removeprefix(PREFIX)).is_dir()
        try:
            # The file of work that has just begun may be there before its state.
            if gone and time.time() - file.stat().st_mtime > ABANDONED_S:
                file.unlink()
        except FileNotFoundError:
            continue


def _read(file: Path) -> float:
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0


def _write_until(end: threading.Event, clock: Stopwatch, descriptor: int) -> None:
    """Write the seconds at every interval and at the end, in place."""
    while True:
        ended = end.wait(INTERVAL_S)
        try:
            require_claims()
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(
                descriptor, f"{clock.seconds:019.3f}\n".encode()
            )  # of equal length, so a kill leaves a whole number
        except ResultsError:
            return  # another command works here now, if this one was suspended; it says so where it writes
        except OSError:
            pass  # a full disk stops the work itself, with an error that says so
        if ended:
            return
