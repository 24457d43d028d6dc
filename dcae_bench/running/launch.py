"""Launching one command in several processes, each with its own GPU, on this machine or as one node of several."""

import ctypes
import logging
import os
import sys
import tempfile
import threading
import time
import uuid
from contextlib import nullcontext, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import TYPE_CHECKING, NoReturn

from dcae_bench.base.errors import ConfigError, ProcessError
from dcae_bench.base.terminal import printable
from dcae_bench.profile.profile import Profile
from dcae_bench.running.gpus import take_gpus
from dcae_bench.running.nodes import Meeting, find_meeting, interface_of
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
LOST = ".lost"
"""The same for a process that failed only because another did."""
PID = ".pid"
"""The same for the number of a process, which ends with its node."""


def start_processes(profile: Profile, *, exactly: bool = False) -> bool:
    """Run this command line in as many processes as the profile wants; return whether there were several.

    First takes a free GPU for each process (:func:`take_gpus`). With several processes, the call returns after all of
    them have ended, and the caller has nothing left to do. With fewer GPUs than processes, there is one process per
    GPU. If the result depends on the number of processes, the caller sets ``exactly``, and missing GPUs are an error;
    then the profile's ``nodes`` share the work, of which this command is one. A process that ``torchrun`` started does
    not start others.

    Raises :class:`ConfigError` for missing GPUs and for nodes that cannot meet, :class:`MeasurementError` where the
    lease of GPUs cannot be had, and :class:`ProcessError` for a process that failed.
    """
    nodes = profile.nodes if exactly else 1
    # WORLD_SIZE above 1 comes from torchrun. Job schedulers set it to 1 for a job of one command.
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # Before the GPUs are taken, because srun may take this command's place.
    address = find_meeting(profile.name, nodes) if nodes > 1 and not started else None
    if profile.processes * nodes > 1:
        # Torch's native code, which reads this when torch is imported, warns at length of every process that is lost.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    take_gpus(profile, profile.processes, exactly=exactly)
    if started or profile.processes * nodes == 1:
        return False
    count = profile.processes if profile.device == "cpu" else _count_on_gpus(profile, exactly)
    if address is not None:
        _start_node(count, Meeting(address, nodes))
    elif count > 1:
        _start(count)
    return nodes > 1 or count > 1


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
    if folder := os.environ.get(FAILURES):
        Path(folder, f"{os.environ['RANK']}{PID}").write_text(str(os.getpid()))
    if not watched:
        threading.Thread(target=_watch_launcher, args=(launcher,), name="launcher", daemon=True).start()


def report_error(error: str, *, lost: bool = False) -> None:
    """Print an error for the user, or write it for the process that started this one, which prints it once.

    Line breaks become spaces. A control character, as a name from outside may hold, is printed as its code. An error is
    ``lost`` if it only says that another process is gone.
    """
    _report(error, LOST if lost else "")


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


def _start_node(count: int, meeting: Meeting) -> None:
    """Run this command line in ``count`` processes of this node, together with those of the others."""
    error: str | None = "its command was ended"
    try:
        _start(count, meeting)
        error = None
    except ProcessError as failed:
        error = str(failed)
        raise
    except Stopped:
        error = None  # the others have stopped too, at the same step
        raise
    except SystemExit as ended:
        error = f"it ended with exit code {ended.code}"
        raise
    finally:
        meeting.leave(error)


def _start(count: int, meeting: Meeting | None = None) -> None:
    """Run this command line in ``count`` processes and wait until they end."""
    # The library logs each failure at length. The one-line error below is enough.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {FAILURES: folder, LAUNCHER: str(os.getpid())}
        # Gloo can use the loopback interface on one machine, whatever the host's name resolves to.
        interface = "lo" if meeting is None else interface_of(meeting.own)
        if interface is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        alone = {"min_nodes": 1, "max_nodes": 1, "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
        started = LaunchConfig(
            nproc_per_node=count,
            rdzv_backend="c10d",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **({**alone, "run_id": uuid.uuid4().hex} if meeting is None else meeting.launch),
        )
        received: list[Signals] = []

        def end_processes(number: Signals) -> None:
            received.append(number)
            raise SignalException(f"received {number.name}", SIGTERM)

        # The library's own handlers would end the processes at a second signal, while they write a checkpoint.
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""
        try:
            with nullcontext() if meeting is None else meeting.attended(lambda: _kill(Path(folder))):
                try:
                    with acting(end_processes):
                        elastic_launch(started, sys.executable)("-m", "dcae_bench", *sys.argv[1:])
                except SignalException as ended:
                    raise _stopped(Path(folder), received[0].name if received else "a signal") from ended
                except ChildFailedError as failed:
                    _explain(failed, Path(folder), count, meeting)
                except RendezvousError as failed:
                    if meeting is None:
                        raise
                    raise ProcessError(meeting.why()) from failed  # the node that serves the meeting is gone
        finally:
            del os.environ[FAILURES], os.environ[LAUNCHER], os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]


def _stopped(folder: Path, by: str) -> Stopped:
    """What the processes say of the signal that stopped them; the first of them speaks."""
    said = sorted(folder.glob(f"*{STOPPED}"), key=lambda path: int(path.stem))
    return Stopped(said[0].read_text() if said else f"stopped by {by}; run the same command again to go on")


def _explain(failed: "ChildFailedError", folder: Path, count: int, meeting: Meeting | None) -> NoReturn:
    """Raise the error of the process that failed first, or say how it ended."""
    if meeting is not None and meeting.reason is not None:  # another node failed before
        raise ProcessError(meeting.reason) from failed
    rank, failure = _root_failure(failed)
    if failure.exitcode == EXIT_CODE:
        raise _stopped(folder, f"a signal to process {rank}") from failed
    told = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    if errors := [path for path in told if not path.suffix]:
        raise ProcessError(errors[0].read_text()) from failed
    lost = [path for path in told if path.suffix == LOST]
    if failure.exitcode > 0:
        if not lost:  # a bug; the process has printed its traceback
            sys.exit(failure.exitcode)
        raise ProcessError(lost[0].read_text() if meeting is None else meeting.why()) from failed
    world = count * (meeting.nodes if meeting is not None else 1)
    raise ProcessError(
        f"process {rank} of {world} was ended by {Signals(-failure.exitcode).name}, as where memory runs out; run the "
        "same command again to go on"
    ) from failed


def _kill(folder: Path) -> None:
    """End the processes of this node at once: without another node's they could only wait."""
    for path in folder.glob(f"*{PID}"):
        with suppress(OSError, ValueError):
            os.kill(int(path.read_text()), SIGKILL)
            path.unlink()  # the number may soon be another process's


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
