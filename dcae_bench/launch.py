"""One command in several processes of this machine, a GPU for each."""

import logging
import os
import sys
import tempfile
import uuid
from pathlib import Path
from signal import SIGTERM, Signals
from typing import TYPE_CHECKING

from dcae_bench.config import Profile
from dcae_bench.errors import ConfigError, ProcessError

if TYPE_CHECKING:  # torch takes seconds, which a command in one process spends elsewhere
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

FAILURES = "DCAE_BENCH_FAILURES"
"""Names the folder where the processes that were started here leave their users' errors, one file each."""


def work_is_here(profile: Profile, *, exactly: bool = False) -> bool:
    """Whether this process is to do what the command line asks for.

    Where the profile has several processes, they are started with the same command line, and the answer is no once all
    of them have ended. A machine with fewer GPUs than processes uses those that it has, unless the result depends on
    the number, which is then met ``exactly``. Processes that ``torchrun`` started are taken as they are.

    Raises :class:`ConfigError` for GPUs that are not there, and the error of a process that failed.
    """
    # Job schedulers set it to 1, too, for a job of one command.
    if profile.processes == 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return True
    count = profile.processes if profile.device == "cpu" else _on_gpus(profile, exactly)
    if count > 1:
        _start(count)
    return count == 1


def report(error: str) -> None:
    """Tell the user of an error, or the process that started this one, which tells it once."""
    if folder := os.environ.get(FAILURES):
        Path(folder, os.environ["RANK"]).write_text(error)
    else:
        print(f"dcae-bench: error: {error}", file=sys.stderr)


def _on_gpus(profile: Profile, exactly: bool) -> int:
    import torch

    if not torch.cuda.is_available():  # where the profile insists on a GPU, the work itself says so
        return profile.processes if profile.device == "auto" else 1
    there = torch.cuda.device_count()
    if there >= profile.processes or not exactly:
        return min(there, profile.processes)
    raise ConfigError(
        f"profile {profile.name}: processes is {profile.processes}, a GPU for each, and this machine has {there}; set "
        f"'processes: {there}' in a profile of your own, with more 'accumulate' where memory runs out"
    )


def _start(count: int) -> None:
    """Run this command line in ``count`` processes to their end."""
    # The library tells of each failure at length; one line is enough.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory() as folder:
        # All on this machine, so that the loopback interface serves, whatever the host's name resolves to.
        os.environ |= {FAILURES: folder, "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
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
        try:
            elastic_launch(started, sys.executable)("-m", "dcae_bench", *sys.argv[1:])
        except SignalException as stopped:
            sys.exit(128 + stopped.sigval)
        except ChildFailedError as failed:
            rank, failure = _cause(failed)
            told = sorted(
                (path for path in Path(folder).iterdir() if path.is_file()), key=lambda p: p.stat().st_mtime_ns
            )
            if told:
                raise ProcessError(told[0].read_text()) from failed
            if failure.exitcode > 0:  # a fault of the program, whose traceback stands above
                sys.exit(failure.exitcode)
            raise ProcessError(
                f"process {rank} of {count} was ended by {Signals(-failure.exitcode).name}, as where memory runs out; "
                "run the same command again to go on"
            ) from failed
        finally:
            del os.environ[FAILURES]


def _cause(failed: "ChildFailedError") -> tuple[int, "ProcessFailure"]:
    """The process that failed first, and how; of those that failed together, one that the system ended.

    The others lose their connection to it, which is no cause. The launcher ends what still runs by SIGTERM, and by
    SIGKILL half a minute later.
    """
    first = failed.get_first_failure()
    for rank, failure in failed.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -SIGTERM and failure.timestamp <= first[1].timestamp + 5:
            return rank, failure
    return first
