"""The nodes of one training: where they meet, and what each learns of the others."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from dcae_bench.base.errors import ConfigError, ProcessError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.running import nodes
from dcae_bench.running.nodes import MEETING, Address, Meeting, find_meeting, interface_of


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in [MEETING, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", probe.getsockname()[1])


def all_at_once(*functions):
    """Call functions beside each other; give what each returned or raised."""
    found = [None] * len(functions)

    def call(number):
        try:
            found[number] = functions[number]()
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def meet(address, count=2):
    return all_at_once(*[lambda: Meeting(address, count)] * count)


def test_nodes_meet_and_a_further_one_is_refused(address):
    first, second = sorted(meet(address), key=lambda one: one.number)
    assert (first.number, second.number, first.hosts) == (1, 2, [socket.gethostname()] * 2)
    assert first.run_id == second.run_id
    assert (first.own, second.own) == ("127.0.0.1", "127.0.0.1") and interface_of(first.own) == "lo"
    with pytest.raises(ProcessError, match="2 nodes are there already, of another training; take another port"):
        Meeting(address, 2)


def test_nodes_with_different_commands_are_told_so(address, monkeypatch):
    commands = iter(["dcae-bench train --phase 1", "dcae-bench train --phase 2"])
    monkeypatch.setattr(nodes, "command_line", lambda: next(commands))
    for error in meet(address):
        assert isinstance(error, ConfigError) and "--phase 1` and" not in str(error)
        assert "runs `dcae-bench train --phase 2`" in str(error) and "same command on each node" in str(error)


def test_who_waits_alone_says_for_whom_and_ends(address, monkeypatch, capsys):
    monkeypatch.setattr(nodes, "TOLD_S", -1.0)  # at the first look, however late that is on a busy machine
    monkeypatch.setattr(nodes, "PATIENCE_S", 0.6)
    with pytest.raises(ProcessError, match="1 of 2 nodes came within 0 minutes; run the same command on each"):
        Meeting(address, 2)
    assert f"dcae-bench: {address}: waiting for 1 of 2 nodes\n" in capsys.readouterr().err


def test_a_failure_is_told_to_the_others_and_ends_their_work(address):
    first, second = meet(address)
    ended = threading.Event()

    def other():
        with second.attended(ended.set):
            assert ended.wait(30)
        second.leave()

    def failing():
        with first.attended(lambda: None):
            pass
        first.leave("row x: wrong")

    all_at_once(other, failing)
    assert second.reason is not None
    assert f"node {first.number} of 2 ({socket.gethostname()}) failed: row x: wrong; run the same" in second.reason
    assert first.reason is None


def test_processes_that_begin_after_another_node_failed_are_ended_too(address):
    """Without it they would wait for those of the other node."""
    first, second = meet(address)
    calls, again = [], threading.Event()

    def stop():
        calls.append(1)
        if len(calls) == 2:
            again.set()

    first.store.set(first._key("end"), "row x: wrong")
    with second.attended(stop):
        assert again.wait(30)


def test_a_silent_node_counts_as_dead_and_sooner_where_connections_are_lost(address, monkeypatch):
    monkeypatch.setattr(nodes, "SILENT_S", 60.0)
    monkeypatch.setattr(nodes, "CUT_OFF_S", 1.0)
    first, second = sorted(meet(address), key=lambda one: one.serves)
    ended = threading.Event()
    with first.attended(ended.set):
        time.sleep(0.7)
        assert first.reason is None
        assert f"node {second.number} of 2" in first.why() and "is silent" in first.why()
        assert ended.wait(30)


def test_addresses():
    assert Address.parse("node1:29500") == Address("node1", 29500)
    for text in ("node1", ":29500", "node1:", "node1:70000", "node1:x"):
        with pytest.raises(ConfigError, match=f"{MEETING}={text}: is no address; write HOST:PORT"):
            Address.parse(text)
    assert Address("localhost", 1).is_here and not Address("192.0.2.1", 1).is_here
    with pytest.raises(ConfigError, match=r"no\.such\.invalid cannot be found"):
        assert Address("no.such.invalid", 1).is_here


def test_nobody_says_where_to_meet(monkeypatch):
    with pytest.raises(
        ConfigError, match=f"profile tiny: nodes is 2; run the same command .* with {MEETING}=HOST:PORT"
    ):
        find_meeting("tiny", 2)
    monkeypatch.setenv(MEETING, "node1:29500")
    assert find_meeting("tiny", 2) == Address("node1", 29500)


def stand_in(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_tasks_of_a_job_of_slurm_meet_at_its_first_node(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(ConfigError, match="nodes is 2, and job 17 of SLURM has 1; ask for more"):
        find_meeting("tiny", 2)
    stand_in(tmp_path, "scontrol", '[ "$*" = "show hostnames b[1-2]" ] && echo b1 && echo b2')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in (
        ("JOB_NUM_NODES", 2),
        ("STEP_NUM_NODES", 2),
        ("STEP_NUM_TASKS", 2),
        ("STEP_NODELIST", "b[1-2]"),
    ):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    found = find_meeting("tiny", 2)
    assert found.host == "b1" and found.port in nodes.PORTS
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert find_meeting("tiny", 2) != found, "each step has a port of its own"


def test_a_job_that_runs_the_command_once_starts_it_on_each_node(tmp_path):
    stand_in(tmp_path, "srun", 'echo "$@"; echo "tasks $SLURM_NTASKS."')
    code = "import sys; sys.argv[1:] = ['train', '--row', 'a row']; from dcae_bench.running.nodes import find_meeting;"
    code += "find_meeting('tiny', 2)"
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS": "1"}
    environment = {**os.environ, **job, "PYTHONPATH": str(REPOSITORY), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    words = f"--cpus-per-task=4 {sys.executable} -m dcae_bench train --row a row"
    assert done.stdout == f"--nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=0 {words}\ntasks .\n"
