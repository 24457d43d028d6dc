"""Launching one command in several processes of this machine, each with its own GPU."""

import ctypes
import logging
import os
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import TYPE_CHECKING

from dcae_bench.base.errors import ConfigError, ProcessError
from dcae_bench.base.terminal import printable
from dcae_bench.profile.profile import Profile
from dcae_bench.running.gpus import take_gpus
from dcae_bench.running.stop import EXIT_CODE, Stopped, acting

if TYPE_CHECKING:  # importing torch takes seconds, which a command in one process need not spend
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

FAILURES = "DCAE_BENCH_FAILURES"
"""Environment variable with the folder where each started process writes its error message to a file."""

LAUNCHER = "DCAE_BENCH_LAUNCHER"
"""Environment variable with the process id of the command that started this process."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h
WATCH_S = 0.5
STOPPED = ".stopped"
"""End of the name of the file in which a process that a signal stopped says so."""


def start_processes(profile: Profile, *, exactly: bool = False) -> bool:
    """Run this command line in as many processes as the profile wants; return whether there were several.

    First takes a free GPU for each process (:func:`take_gpus`). With several processes, the call returns after all of
    them have ended, and the caller has nothing left to do. With fewer GPUs than processes, there is one process per
    GPU. If the result depends on the number of processes, the caller sets ``exactly``, and missing GPUs are an error. A
    process that ``torchrun`` started does not start others.

    Raises :class:`ConfigError` for missing GPUs, :class:`MeasurementError` where their lease cannot be had, and
    :class:`ProcessError` for a process that failed.
    """
    take_gpus(profile, profile.processes, exactly=exactly)
    # WORLD_SIZE above 1 comes from torchrun. Job schedulers set it to 1 for a job of one command.
    if profile.processes == 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return False
    count = profile.processes if profile.device == "cpu" else _count_on_gpus(profile, exactly)
    if count > 1:
        _start(count)
    return count > 1


def end_with_launcher() -> None:
    """Let the kernel kill this process when the command that started it ends, even if that command was killed.

    Otherwise the processes of a killed command would go on, and write the same files as its next run.
    """
    launcher = int(os.environ.pop(LAUNCHER, "0"))  # what this process starts has another
    if not launcher:
        return
    try:
        watched = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(SIGKILL), 0, 0, 0) == 0
    except (AttributeError, OSError):  # no Linux
        watched = False
    if os.getppid() != launcher:  # it ended before
        os.kill(os.getpid(), SIGKILL)
    if not watched:
        threading.Thread(target=_watch_launcher, args=(launcher,), name="launcher", daemon=True).start()


def report_error(error: str) -> None:
    """Print an error for the user, or write it for the process that started this one, which prints it once.

    Line breaks become spaces. A control character, as a name from outside may hold, is printed as its code.
    """
    _report(error, "")


def report_stop(line: str) -> None:
    """Say that a signal stopped the command, as :func:`report_error` says an error."""
    _report(line, STOPPED)


def _report(error: str, suffix: str) -> None:
    error = printable(" ".join(error.split()))
    if folder := os.environ.get(FAILURES):
        Path(folder, os.environ["RANK"] + suffix).write_text(error)
    else:
        print(f"dcae-bench: error: {error}", file=sys.stderr)


def _watch_launcher(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(WATCH_S)
    os.kill(os.getpid(), SIGKILL)


def _count_on_gpus(profile: Profile, exactly: bool) -> int:
    """Number of processes on this machine's GPUs; without a GPU, a profile for any device keeps its number."""
    import torch

    if not torch.cuda.is_available():  # a profile with device 'cuda' fails later, with its own error
        return profile.processes if profile.device == "auto" else 1
    there = torch.cuda.device_count()
    if there >= profile.processes or not exactly:
        return min(there, profile.processes)
    raise ConfigError(
        f"profile {profile.name}: processes is {profile.processes}, a GPU for each, and this machine has {there}; set "
        f"'processes: {there}' in a profile of your own, with more 'accumulate' where memory runs out"
    )


def _start(count: int) -> None:
    """Run this command line in ``count`` processes and wait until they end."""
    # The library logs each failure at length. The one-line error below is enough.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory() as folder:
        # All processes are on this machine: gloo can use the loopback interface, whatever the host's name resolves to.
        os.environ |= {FAILURES: folder, LAUNCHER: str(os.getpid())}
        os.environ |= {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
        started = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        received: list[Signals] = []

        def end_processes(number: Signals) -> None:
            received.append(number)
            raise SignalException(f"received {number.name}", SIGTERM)

        # The library's own handlers would end the processes at a second signal, while they write a checkpoint.
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""
        try:
            with acting(end_processes):
                elastic_launch(started, sys.executable)("-m", "dcae_bench", *sys.argv[1:])
        except SignalException as ended:
            raise _stopped(Path(folder), received[0].name if received else "a signal") from ended
        except ChildFailedError as failed:
            rank, failure = _root_failure(failed)
            if failure.exitcode == EXIT_CODE:
                raise _stopped(Path(folder), f"a signal to process {rank}") from failed
            files = [path for path in Path(folder).iterdir() if path.is_file() and not path.name.endswith(STOPPED)]
            errors = sorted(files, key=lambda path: path.stat().st_mtime_ns)
            if errors:
                raise ProcessError(errors[0].read_text()) from failed
            if failure.exitcode > 0:  # a bug; the process has printed its traceback
                sys.exit(failure.exitcode)
            raise ProcessError(
                f"process {rank} of {count} was ended by {Signals(-failure.exitcode).name}, as where memory runs out; "
                "run the same command again to go on"
            ) from failed
        finally:
            del os.environ[FAILURES], os.environ[LAUNCHER], os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]


def _stopped(folder: Path, by: str) -> Stopped:
    """What the processes say of the signal that stopped them; the first of them speaks."""
    said = sorted(folder.glob(f"*{STOPPED}"), key=lambda path: int(path.stem))
    return Stopped(said[0].read_text() if said else f"stopped by {by}; run the same command again to go on")


def _root_failure(failed: "ChildFailedError") -> tuple[int, "ProcessFailure"]:
    """Rank and failure of the process that caused the others to fail.

    This is the first process to fail. Among processes that fail within 5 seconds, it is one that a signal of the system
    killed: the others fail only because they lose their connection to it. The launcher itself ends the processes that
    still run by SIGTERM (and by SIGKILL half a minute later), so SIGTERM is no sign of the cause.
    """
    first = failed.get_first_failure()
    for rank, failure in failed.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -SIGTERM and failure.timestamp <= first[1].timestamp + 5:
            return rank, failure
    return first
