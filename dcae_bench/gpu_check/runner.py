"""The runner: checks one after another in a process of their own, each with a limit; none stops the others."""

import importlib.metadata
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dcae_bench.gpu_check.outcome import Check, Outcome, Skip, Status
from dcae_bench.running.lease import join_lease

PRELOADED = ["dcae_bench.gpu_check.catalogue"]
"""Modules that the server of processes imports once; a new process then starts in a fraction of a second."""
START_S = 60.0
"""Longest start of a process. It does not count as time of a check."""
LOG_CHARACTERS = 4000
"""End of what a failed check printed, for the summary."""
Reply = tuple[Status, str]


def run_checks(
    checks: Sequence[Check],
    device: str,
    *,
    budget_s: float,
    say: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Run the checks on ``device`` (cuda or cpu) and return their outcomes, in order.

    A check that fails or takes too long ends its process, because the state of a GPU's context is then unknown; the
    next check has a new one. Checks that begin after ``budget_s`` seconds are skipped.
    """
    begin, outcomes = time.monotonic(), []
    with _Processes(device) as processes:
        for check in checks:
            left = budget_s - (time.monotonic() - begin)
            started = time.monotonic()
            status, said = _reason_to_skip(check, device, left) or processes.run(check, min(check.limit_s, left))
            outcomes.append(
                Outcome(
                    name=check.name,
                    status=status,
                    seconds=round(time.monotonic() - started, 2),
                    said=said,
                    printed=processes.printed() if status == "failed" else None,
                )
            )
            say(outcomes[-1])
    return outcomes


def _reason_to_skip(check: Check, device: str, left_s: float) -> Reply | None:
    if check.gpu_only and device != "cuda":
        return "skipped", "only a CUDA device can do it"
    for name in check.needs:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return "skipped", f"package {name} is not installed"
    return ("skipped", "not begun: the time is over") if left_s <= 0 else None


class _Processes:
    """The process that runs checks; replaced after a failure, and for a check that needs one alone."""

    def __init__(self, device: str):
        self._device = device
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._process: Any = None
        self._pipe: Connection | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="dcae-bench-gpu-check-"))
        self._log = self._folder / "log"

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def printed(self) -> str:
        """The end of what the last check printed, with its traceback."""
        with suppress(FileNotFoundError):
            return self._log.read_text(errors="replace")[-LOG_CHARACTERS:]
        return ""

    def run(self, check: Check, limit_s: float) -> Reply:
        """Run a check for at most ``limit_s`` seconds."""
        if check.alone:
            self._end()
        try:
            pipe = self._started()
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            pipe.send((check, str(folder)))
            reply: Reply = pipe.recv() if pipe.poll(limit_s) else ("failed", f"took longer than {limit_s:.1f} s")
        except (EOFError, OSError) as error:
            reply = "failed", self._death() or f"its process is gone ({type(error).__name__})"
        if check.alone or reply[0] == "failed":
            self._end()
        return reply

    def _started(self) -> Connection:
        if self._pipe is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_serve, args=(theirs, self._device, self._log), name="gpu-check"
            )
            self._process.start()
            theirs.close()
            if not self._pipe.poll(START_S):
                raise TimeoutError("the process did not start")
            self._pipe.recv()
        return self._pipe

    def _death(self) -> str | None:
        self._process.join(5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return None if code is None else f"its process ended with exit code {code}"
        return f"its process was ended by {signal.Signals(-code).name}"

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, device: str, log: Path) -> None:
    """Run the checks that come through ``pipe``, until it is closed. What they print goes to ``log``."""
    join_lease()
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            check, folder = pipe.recv()
            with open(log, "w") as file:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            reply = attempt(check, device, Path(folder))
            pipe.send(reply)


def attempt(check: Check, device: str, folder: Path) -> Reply:
    """Run a check in this process. An exception is an outcome; its traceback goes to standard error."""
    try:
        return "ok", check.run(device, folder)
    except Skip as reason:
        return "skipped", str(reason)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dcae_bench"):
            return "failed", f"{error}"
        return "skipped", f"package {error.name} is not installed"
    except Exception as error:  # whatever is wrong, the other checks go on
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "failed", f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
