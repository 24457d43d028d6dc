"""Commands that die by SIGKILL at a chosen change on disk, each in a fork of a process that has imported everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dcae_bench.files import REPOSITORY

# Answers each line {"arguments", "folder", "kill_at", "fork"} with [exit code, changes on disk]. With one thread (see
# OMP_NUM_THREADS below) a fork loses none, even after torch was used.
SERVER = """
import json, os, signal, sys, tempfile
import dcae_bench.evaluation.encode, dcae_bench.evaluation.generation_run, dcae_bench.evaluation.sampling
import dcae_bench.metrics.precision_recall, dcae_bench.tables.diffusion_files, dcae_bench.training.diffusion_run
from dcae_bench.cli import main

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
        change(lambda: os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2))
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
    """Runs ``dcae-bench``; close it when done."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, arguments: list, kill_at: int = 0, fork: bool = True) -> tuple[int, int]:
        """Exit code of a command in ``folder``, and changes on disk that it made or died of.

        ``kill_at``: the change, counted from 1, at which it is killed; a write is then half done. Without ``fork`` it
        runs in the server itself, which saves later ones what is done once per process; changes are not counted.
        """
        asked = {"folder": str(folder), "arguments": [str(one) for one in arguments], "kill_at": kill_at, "fork": fork}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        status, changes = json.loads(self._process.stdout.readline())
        return status, changes

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
