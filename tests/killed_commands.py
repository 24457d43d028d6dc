"""Runs commands that SIGKILL ends at a chosen change on disk, each in a fork of a process with all imports done."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from dcae_bench.base.files import REPOSITORY

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
"""Audit events that change the disk, besides files opened for writing, fsync and pwrite."""


def preload() -> None:
    """Import what the commands import late."""
    import dcae_bench.evaluation.reconstruction_run
    import dcae_bench.evaluation.samples_run
    import dcae_bench.generation.encode
    import dcae_bench.generation.sample
    import dcae_bench.metrics.precision_recall
    import dcae_bench.tables.generation.files
    import dcae_bench.tables.reconstruction.files
    import dcae_bench.training.diffusion_run
    import dcae_bench.training.run  # noqa: F401


def arm(folder: str, kill_at: int, told: int) -> None:
    """Kill this process at a change in ``folder``, counted from 1; keep the count of changes in the file ``told``.

    If the change is a write, half of it is done.
    """
    seen, fsync, pwrite = 0, os.fsync, os.pwrite

    def change(die=lambda: None):
        nonlocal seen
        seen += 1
        pwrite(told, str(seen).encode(), 0)
        if seen == kill_at:
            die()
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, arguments):
        if event == "open":
            path, writes = arguments[0], arguments[2] & (os.O_WRONLY | os.O_RDWR)
        elif event in CHANGES:
            path, writes = arguments[0], True
        else:
            return
        if writes and isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(folder):
            change()

    def deadly_fsync(descriptor):
        found = os.fstat(descriptor)
        change(lambda: stat.S_ISREG(found.st_mode) and os.ftruncate(descriptor, found.st_size // 2))
        fsync(descriptor)

    def deadly_pwrite(descriptor, content, offset):
        change(lambda: pwrite(descriptor, content[: len(content) // 2], offset))
        return pwrite(descriptor, content, offset)

    os.fsync, os.pwrite = deadly_fsync, deadly_pwrite
    sys.addaudithook(audit)


def run_command(folder: str, arguments: list[str]) -> int:
    """Run ``dcae-bench`` in this process and return its exit code."""
    from dcae_bench.cli.main import main

    os.chdir(folder)
    sys.argv = ["dcae-bench", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Answer each line {"arguments", "folder", "kill_at", "fork"} with [exit code, changes on disk].

    A fork keeps only the calling thread; with one thread (OMP_NUM_THREADS) that loses nothing, even after torch was
    used.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what the commands themselves print
    preload()
    for line in sys.stdin:
        asked = json.loads(line)
        if not asked["fork"]:
            print(json.dumps([run_command(asked["folder"], asked["arguments"]), 0]), file=answers, flush=True)
            continue
        with tempfile.TemporaryFile() as told:
            child = os.fork()
            if child == 0:
                arm(asked["folder"] + "/", asked["kill_at"], told.fileno())
                os._exit(run_command(asked["folder"], asked["arguments"]))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps([status, int(os.pread(told.fileno(), 20, 0) or 0)]), file=answers, flush=True)


class Commands:
    """A server process that runs ``dcae-bench`` commands. Close it when done."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed_commands"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, arguments: list, kill_at: int = 0, fork: bool = True) -> tuple[int, int]:
        """Run a command in ``folder``; return its exit code and the number of its changes on disk.

        ``kill_at`` is the change, counted from 1, at which the command is killed; if the change is a write, half of it
        is done. Without ``fork`` the command runs in the server itself, so that later commands find the work done that
        happens once per process; changes are then not counted.
        """
        asked = {"folder": str(folder), "arguments": [str(one) for one in arguments], "kill_at": kill_at, "fork": fork}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        status, changes = json.loads(self._process.stdout.readline())
        return status, changes

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    serve()
