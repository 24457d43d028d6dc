"""Locks on outputs: who waits, who is refused, and when a dead owner's lock is taken."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from platform import node

import numpy as np
import pytest

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import REPOSITORY, write_text
from dcae_bench.base.row_files import Layout, RowFiles
from dcae_bench.running import heartbeat, output_lock
from dcae_bench.running.output_lock import sole_writer, sole_writers
from dcae_bench.training.log import TrainingLog

HOLDER = """
import sys
from pathlib import Path
from dcae_bench.running.output_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "folder" / "model.safetensors"


@pytest.fixture
def holder(output):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def lock_of(output):
    return output.parent / ".model.safetensors.lock"


def write_owner(output, beat="2026-01-01T00:00:00Z", host="elsewhere", pid=7):
    lock_of(output).parent.mkdir(exist_ok=True)
    owner = {"pid": pid, "host": host, "started": "s", "beat": beat, "token": "t", "command": "dcae-bench train"}
    owner["machine"] = heartbeat.machine() if host == node() else "another boot"
    lock_of(output).write_text(json.dumps(owner))


def test_the_second_command_is_refused_in_one_line_or_waits(output, holder, monkeypatch, capsys):
    with pytest.raises(ResultsError) as refused, sole_writer(output, wait=False):
        pass
    message = str(refused.value)
    assert message.startswith(f"{output}: process {holder.pid} on {node()} since 20") and "\n" not in message
    assert message.endswith("is writing it; wait until it ends, or end it, then run the same command again")
    looks, sleep = [], time.sleep

    def look_again(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            holder.stdin.close()
        sleep(seconds)

    monkeypatch.setattr(output_lock.time, "sleep", look_again)
    with sole_writer(output):
        assert len(looks) >= 3
        assert json.loads(lock_of(output).read_text())["pid"] == os.getpid()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{output}: waiting for process {holder.pid} on {node()}" in said
    assert not list(output.parent.iterdir()), "nothing is left"


def test_a_killed_owner_holds_nothing(output, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_of(output).exists()
    with sole_writer(output, wait=False):
        pass
    assert not lock_of(output).exists()


def test_many_at_once_take_turns(output):
    take_turns(output, 8, 16)


def take_turns(output, workers, turns):
    inside, most = [], []

    def work(_):
        with sole_writer(output):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(turns)))
    assert most == [1] * turns


def test_an_owner_on_another_host_counts_as_dead_once_its_heart_is_silent(output, monkeypatch, capsys):
    write_owner(output)
    begin = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat, "SILENT_S", 0.5)
        with sole_writer(output, wait=False):
            assert time.monotonic() - begin >= 0.5
    assert "waiting for process 7 on elsewhere since s (dcae-bench train)" in capsys.readouterr().err

    write_owner(output)
    beating = threading.Timer(0.3, write_owner, (output, "2026-01-01T00:00:05Z"))
    beating.start()
    with pytest.raises(ResultsError, match="process 7 on elsewhere"), sole_writer(output, wait=False):
        pass
    beating.join()


def test_the_heart_beats_while_the_work_lasts(output, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    times = iter(f"2026-01-01T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(heartbeat, "now", lambda: next(times))
    with sole_writer(output):
        first = json.loads(lock_of(output).read_text())
        end = time.monotonic() + 30
        while (later := json.loads(lock_of(output).read_text())) == first and time.monotonic() < end:
            time.sleep(0.05)
    assert later["beat"] > first["beat"] and {**later, "beat": None} == {**first, "beat": None}


def test_a_file_system_without_locks_has_the_heartbeat(output, monkeypatch):
    def no_locks(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr(output_lock, "SETTLE_S", 0.4)  # longer than a busy machine keeps a thread from writing its name
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.2)
    take_turns(output, 3, 3)
    write_owner(output, host=node(), pid=2**22 + 1)  # no such process
    with sole_writer(output, wait=False):
        pass


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_a_folder_that_nobody_can_write_needs_no_lock(output, monkeypatch, reason):
    def refused(*arguments):
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr("os.open", refused)
        with sole_writer(output):
            pass
    with monkeypatch.context() as patch, pytest.raises(ResultsError, match=r"model\.safetensors: cannot be written"):
        patch.setattr("os.open", lambda *arguments: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with sole_writer(output):
            pass


def test_two_hosts_of_one_name_are_told_apart(output, monkeypatch):
    """As machines that are all called localhost; the owner lives, and this host's kernel knows nothing of its lock."""
    write_owner(output, host="elsewhere")
    content = json.loads(lock_of(output).read_text())
    lock_of(output).write_text(json.dumps({**content, "host": node()}))
    beating = threading.Timer(0.3, lambda: lock_of(output).write_text(json.dumps({**content, "beat": "later"})))
    beating.start()
    with pytest.raises(ResultsError, match="is writing it"), sole_writer(output, wait=False):
        pass
    beating.join()


def test_a_pause_of_the_watcher_is_no_silence_of_the_owner(monkeypatch):
    """As where a file server, or the whole machine, stood still."""
    times = iter([100.0, 100.2, 500.0, 500.2])
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(times))
    owner = heartbeat.Owner(7, "elsewhere", "s", "b", "t", "dcae-bench train", "another boot")
    watch = heartbeat.Watch()
    assert not any(watch.is_dead(owner, True) for _ in range(4))


@pytest.fixture
def stands_still(monkeypatch):
    """Lets this process be suspended: its heart is still, and its clock goes on."""
    clock, stood = heartbeat.clock, [0]
    monkeypatch.setattr(heartbeat, "BEAT_S", 1000)
    for module in (heartbeat, output_lock):
        monkeypatch.setattr(module, "clock", lambda: clock() + sum(stood))
    return lambda: stood.append(60)


def take_over(output):
    """Take the lock as another host does that has none of this kernel's locks."""
    owner = heartbeat.Owner(7, "elsewhere", "s", "b", "other", "dcae-bench train", "another boot")
    descriptor = os.open(lock_of(output), os.O_RDWR | os.O_TRUNC)
    os.write(descriptor, json.dumps(vars(owner)).encode())
    os.close(descriptor)


LOST = r"lost its lock to process 7 on elsewhere .* stood still for [0-9]+ s; it writes no more, run it again"


def test_a_suspended_owner_that_lost_its_lock_writes_no_more(output, stands_still):
    with pytest.raises(ResultsError, match=LOST), sole_writer(output):
        write_text(output, "before")
        stands_still()
        write_text(output, "still its own")  # nobody took it
        stands_still()
        take_over(output)
        write_text(output, "beside the next owner")
    assert output.read_text() == "still its own"
    assert json.loads(lock_of(output).read_text())["token"] == "other", "the next owner keeps its lock"


def test_rows_and_the_log_of_a_training_are_not_written_without_the_lock(output, stands_still, tmp_path):
    files = RowFiles(tmp_path / "rows", 4, "identity", {"a": Layout(8)})
    files.create_or_resume()
    log = TrainingLog(tmp_path / "log.jsonl", 0, every=4)
    with sole_writer(output):
        stands_still()
        take_over(output)
        with pytest.raises(ResultsError, match="lost its lock"):
            files.write(range(1), {"a": np.ones(1)})
        with pytest.raises(ResultsError, match="lost its lock"):
            log.add(4, {"loss": 1.0})
    assert not np.fromfile(tmp_path / "rows" / "a").any() and not (tmp_path / "log.jsonl").read_bytes()
    files.write(range(1), {"a": np.ones(1)})  # the lock that was lost is this process's no longer


def test_the_other_processes_of_a_command_notice_too(output, stands_still):
    class Second:
        first = False

        def wait(self):
            write_owner(output)

    with sole_writers(output, Second()):
        stands_still()
        write_text(output, "first")
        stands_still()
        take_over(output)
        with pytest.raises(ResultsError, match="lost its lock to process 7"):
            write_text(output, "second")
        with pytest.raises(ResultsError, match="lost its lock to process 7"):
            write_text(output, "soon after")
    assert output.read_text() == "first"


def test_a_file_server_that_does_not_answer_takes_no_lock_from_the_other_processes(output, stands_still, monkeypatch):
    class Second:
        first = False

        def wait(self):
            write_owner(output)

    def silent(_path):
        raise OSError(errno.EIO, "Input/output error")

    with sole_writers(output, Second()):
        stands_still()
        with monkeypatch.context() as patch:
            patch.setattr(output_lock, "read_at", silent)
            require_claims()
        take_over(output)
        with pytest.raises(ResultsError, match="lost its lock to process 7"):  # it looks again at once
            require_claims()


def test_a_full_disk_leaves_a_lock_without_a_name_that_is_not_lost(output, stands_still, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        lock = sole_writer(output)
        lock.__enter__()
        stands_still()
        require_claims()
    stands_still()
    require_claims()
    assert json.loads(lock_of(output).read_text())["pid"] == os.getpid()
    lock.__exit__(None, None, None)
    assert not lock_of(output).exists()
