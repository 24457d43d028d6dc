"""Locks of killed runs, told from those of runs that are alive."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from platform import node

import pytest

from dcae_bench.base.files import REPOSITORY

ALIVE = """
import sys
from pathlib import Path
from dcae_bench.running import run_lock
print({"run": lambda: run_lock.join_run(Path(sys.argv[2])), "job": run_lock.join_jobs}[sys.argv[1]](), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    """Snakemake's folder with a lock in it."""
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/table.md\n")
    return tmp_path / ".snakemake"


@contextmanager
def process(kind, folder):
    """A run or a job that lives until the block ends; yields the process and what joining returned or said."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DCAE_BENCH_RUN": str(folder)}
    started = subprocess.Popen(
        [sys.executable, "-c", ALIVE, kind, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = [started.stdout.readline()]
        if lines[0].startswith("Traceback"):
            lines += started.stdout.readlines()
        yield started, lines[-1].strip()
    finally:
        started.kill()
        started.communicate()


def locks(folder):
    return [path.name for path in (folder / "locks").iterdir()]


def test_locks_of_a_dead_run_are_removed_and_those_of_a_live_one_stay(folder):
    with process("run", folder) as (first, said):
        assert said == "True" and not locks(folder)
        (folder / "locks" / "0.output.lock").write_text("results/table.md\n")
        with process("run", folder) as (_, said):
            assert said == "False" and locks(folder) == ["0.output.lock"]
        first.send_signal(signal.SIGKILL)
        first.wait()
    with process("run", folder) as (_, said):
        assert said == "True" and not locks(folder)
    with process("run", folder) as (_, said):
        assert said == "False", "there is nothing to remove"


def test_jobs_that_outlive_their_run_are_named(folder):
    with process("job", folder) as (job, _):
        with process("run", folder) as (_, said):
            assert "ResultsError" in said and f"(process {job.pid} on " in said and "end them" in said
            assert locks(folder) == ["0.output.lock"]
        job.send_signal(signal.SIGKILL)
        job.wait()
    with process("job", folder) as (second, _), process("run", folder) as (_, said):
        assert f"({second.pid}" not in said and f"process {second.pid} on" in said and str(job.pid) not in said
    with process("run", folder) as (_, said):
        assert said == "True" and not locks(folder)


def test_jobs_of_a_live_run_stop_no_other_run(folder):
    with process("run", folder), process("job", folder), process("run", folder) as (_, said):
        assert said == "False"


def test_a_command_of_no_run_holds_nothing(tmp_path, monkeypatch):
    from dcae_bench.running import run_lock

    monkeypatch.delenv(run_lock.VARIABLE, raising=False)
    monkeypatch.setattr(run_lock, "_held", held := [])
    run_lock.join_jobs()
    assert not held


def test_where_files_cannot_be_locked_nothing_is_removed(folder, monkeypatch):
    from dcae_bench.running import run_lock

    def unsupported(descriptor, kind):
        raise OSError(95, os.strerror(95))

    monkeypatch.setenv(run_lock.VARIABLE, "")
    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert run_lock.join_run(folder) is False and locks(folder) == ["0.output.lock"]
    run_lock.join_jobs()


def test_a_live_job_is_named_behind_thousands_of_dead_ones(folder):
    dead = f"99999999 {node()}\n"
    (folder / "dcae-bench-jobs.lock").write_text(dead * 10_000)
    with process("job", folder) as (job, _), process("run", folder) as (_, said):
        assert "ResultsError" in said and f"(process {job.pid} on " in said


def test_a_run_that_cannot_remove_stale_locks_does_not_keep_the_next_one_waiting(folder, monkeypatch):
    from dcae_bench.running import run_lock

    def refused(path):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setenv(run_lock.VARIABLE, "")
    monkeypatch.setattr(run_lock.shutil, "rmtree", refused)
    assert run_lock.join_run(folder) is False and locks(folder) == ["0.output.lock"]
    with open(folder / run_lock.RUNS) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
