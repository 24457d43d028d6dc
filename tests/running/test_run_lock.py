"""Locks of killed runs, told from those of runs that are alive, on this host and on others."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from platform import node
from types import SimpleNamespace

import pytest

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.running import heartbeat, run_lock
from dcae_bench.running.run_lock import join_before_execution, join_jobs, join_run

ALIVE = """
import sys
from pathlib import Path
from dcae_bench.running import run_lock
print({"run": lambda: run_lock.join_run(Path(sys.argv[2])), "job": run_lock.join_jobs}[sys.argv[1]](), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Snakemake's folder with a lock in it; this process holds its own locks until the test ends."""
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/table.md\n")
    monkeypatch.delenv(run_lock.VARIABLE, raising=False)
    monkeypatch.setenv(run_lock.VARIABLE, "")
    monkeypatch.delenv(run_lock.VARIABLE)
    with ExitStack() as held:
        monkeypatch.setattr(run_lock, "_held", held)
        yield tmp_path / ".snakemake"


@contextmanager
def process(kind, folder):
    """A run or a job of another process, which lives until the block ends; yields the process."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DCAE_BENCH_RUN": str(folder)}
    started = subprocess.Popen(
        [sys.executable, "-c", ALIVE, kind, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout.readline() in ("True\n", "False\n", "None\n")
        yield started
    finally:
        started.kill()
        started.communicate()


def locks(folder):
    return [path.name for path in (folder / "locks").iterdir()]


def write_job(folder, name="a", beat="1", host="elsewhere", machine="another boot", pid=7):
    path = folder / "dcae-bench-jobs" / f"{name}.lock"
    path.parent.mkdir(exist_ok=True)
    owner = heartbeat.Owner(pid, host, "s", beat, name, "dcae-bench train", machine)
    path.write_text(json.dumps(vars(owner)))
    return path


def test_a_second_run_is_refused_in_one_line_until_the_first_is_dead(folder):
    with process("run", folder) as first:
        assert not locks(folder)
        (folder / "locks" / "0.output.lock").write_text("results/table.md\n")
        with pytest.raises(ResultsError) as refused:
            join_run(folder)
        message = str(refused.value)
        assert message.startswith(f"{folder.parent}: another workflow run is at work here (process {first.pid} on ")
        assert "\n" not in message and locks(folder) == ["0.output.lock"]
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert join_run(folder) and not locks(folder)
    run_lock._held.close()
    assert join_run(folder) is False, "there is nothing to remove"


def test_the_lock_of_a_run_on_another_host_is_taken_once_its_heart_is_silent(folder, monkeypatch, capsys):
    lock = folder / ".dcae-bench-run.lock"
    owner = vars(heartbeat.Owner(7, "elsewhere", "s", "1", "t", "snakemake", "another boot"))
    lock.write_text(json.dumps(owner))
    beating = threading.Timer(0.3, lambda: lock.write_text(json.dumps({**owner, "beat": "2"})))
    beating.start()
    with pytest.raises(ResultsError, match=r"another workflow run is at work here \(process 7 on elsewhere"):
        join_run(folder)
    beating.join()
    monkeypatch.setattr(heartbeat, "SILENT_S", 0.5)
    assert join_run(folder)
    assert "waiting for process 7 on elsewhere" in capsys.readouterr().err


def test_jobs_that_outlive_their_run_are_named(folder):
    write_job(folder, "dead", host=node(), machine=heartbeat.machine(), pid=2**22 + 1)
    with process("job", folder) as job:
        with pytest.raises(ResultsError, match=rf"jobs of a killed run .* \(process {job.pid} on .*\); .*end them"):
            join_run(folder)
        assert locks(folder) == ["0.output.lock"]
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert join_run(folder) and not list((folder / "dcae-bench-jobs").iterdir())


def test_jobs_of_other_hosts_count_as_dead_once_their_hearts_are_silent(folder, monkeypatch, capsys):
    """A host that was switched off leaves its jobs' locks for ever."""
    dead = [write_job(folder, name) for name in "ab"]
    write_job(folder, "c")
    beating = threading.Timer(0.3, write_job, (folder, "c", "2"))
    beating.start()
    with pytest.raises(
        ResultsError, match=r"still at work here \(process 7 on elsewhere since s \(dcae-bench train\)\)"
    ):
        join_run(folder)
    beating.join()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "whether these still live: process 7 on elsewhere" in said
    monkeypatch.setattr(heartbeat, "SILENT_S", 0.6)
    assert join_run(folder) and not any(path.exists() for path in dead)


def test_a_suspended_job_that_was_taken_for_dead_writes_no_more(folder, monkeypatch):
    monkeypatch.setenv(run_lock.VARIABLE, str(folder))
    join_jobs()
    require_claims()
    (lock,) = (folder / "dcae-bench-jobs").iterdir()
    lock.unlink()  # by the next run
    clock = heartbeat.clock
    monkeypatch.setattr(heartbeat, "clock", lambda: clock() + 60)
    with pytest.raises(ResultsError, match="others took this command for dead, after it had stood still"):
        require_claims()
    run_lock._held.close()
    require_claims()


def test_a_suspended_run_whose_lock_was_taken_interrupts_itself(folder, monkeypatch, capsys):
    join_run(folder)
    lock = folder / ".dcae-bench-run.lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "token": "other"}))
    clock = heartbeat.clock
    monkeypatch.setattr(heartbeat, "clock", lambda: clock() + 60)
    sent = []
    monkeypatch.setattr(run_lock.os, "kill", lambda pid, number: sent.append((pid, number)))
    for _ in range(2):
        with pytest.raises(ResultsError, match="lost its lock"):
            require_claims()
    assert sent == [(os.getpid(), signal.SIGINT)], "which Snakemake takes as Ctrl-C"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("dcae-bench: error: ") and "lost its lock" in said


def test_a_command_of_no_run_holds_nothing(folder):
    join_jobs()
    require_claims()
    assert not (folder / "dcae-bench-jobs").exists()


def test_where_files_cannot_be_locked_heartbeats_tell(folder, monkeypatch):
    def unsupported(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    monkeypatch.setattr("dcae_bench.running.output_lock.SETTLE_S", 0.05)
    assert join_run(folder) and not locks(folder)
    with pytest.raises(ResultsError, match="jobs of a killed run"):
        join_jobs()
        run_lock._require_no_jobs(folder)


def test_a_run_that_cannot_remove_stale_locks_does_not_keep_the_next_one_waiting(folder, monkeypatch):
    def refused(path):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(run_lock.shutil, "rmtree", refused)
    assert join_run(folder) is False and locks(folder) == ["0.output.lock"]
    run_lock._held.close()
    assert not (folder / ".dcae-bench-run.lock").exists()


@pytest.mark.parametrize(("dry", "touch"), [(True, False), (False, True), (False, False)])
def test_only_a_run_that_executes_jobs_is_refused(folder, capsys, dry, touch):
    def execute(executor_plugin, updated_files):
        return updated_files

    workflow = SimpleNamespace(execute=execute)
    plugin = SimpleNamespace(common_settings=SimpleNamespace(dryrun_exec=dry, touch_exec=touch))
    join_before_execution(workflow, folder)
    join_run(folder)
    if dry or touch:
        assert workflow.execute(executor_plugin=plugin, updated_files=["a"]) == ["a"]
        return
    with pytest.raises(SystemExit, match="2"):
        workflow.execute(executor_plugin=plugin, updated_files=["a"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"(process {os.getpid()} on " in said
