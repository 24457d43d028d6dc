"""Runs commands that SIGKILL ends at a chosen change on disk, each in a fork of a process with all imports done."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dcae_bench.base.files import REPOSITORY

# Answers each line {"arguments", "folder", "kill_at", "fork"} with [exit code, changes on disk]. A fork keeps only the
# calling thread; with one thread (see OMP_NUM_THREADS below) that loses nothing, even after torch was used.
SERVER = """
import json, os, signal, stat, sys, tempfile
import dcae_bench.generation.encode, dcae_bench.evaluation.samples_run, dcae_bench.generation.sample
import dcae_bench.metrics.precision_recall, dcae_bench.tables.generation.files, dcae_bench.training.diffusion_run
from dcae_bench.cli.main import main

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}

def arm(folder, kill_at, told):
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

def run(asked):
    os.chdir(asked["folder"])
    sys.argv = ["dcae-bench", *asked["arguments"]]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    asked = json.loads(line)
    if not asked["fork"]:
        print(json.dumps([run(asked), 0]), flush=True)
        continue
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            arm(asked["folder"] + "/", asked["kill_at"], told.fileno())
            os._exit(run(asked))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, int(os.pread(told.fileno(), 20, 0) or 0)]), flush=True)
"""


class Commands:
    """A server process that runs ``dcae-bench`` commands. Close it when done."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
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
