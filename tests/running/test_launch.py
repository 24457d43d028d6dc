"""Commands whose profile has several processes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL

import pytest
import torch

from dcae_bench.base.errors import ConfigError, ProcessError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import is_lost_process, main
from dcae_bench.profile.recipes import diffusion_recipe, evaluation_recipe, latents_recipe, training_recipe
from dcae_bench.running.launch import FAILURES, LAUNCHER, start_processes
from dcae_bench.running.nodes import MEETING
from tests import tiny_diffusion as tiny

WORKER = """#!/bin/sh
if [ "$WORLD_SIZE" != 2 ]; then exit 7; fi
{body}
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Stand-ins for the processes: a shell script takes the place of the interpreter."""

    def write(body: str) -> None:
        path = tmp_path / "worker"
        path.write_text(WORKER.format(body=body))
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return write


def profile(**changes):
    return tiny.profile({(key,): value for key, value in {"processes": 2, **changes}.items()})


def test_the_command_line_is_run_by_each_process(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "train", "--row", "a row"])
    worker(f'for word in "$@"; do echo "$word" >> {tmp_path}/words-$RANK; done')
    assert start_processes(profile())
    for rank in range(2):
        words = (tmp_path / f"words-{rank}").read_text().splitlines()
        assert words == ["-m", "dcae_bench", "train", "--row", "a row"]
    assert FAILURES not in os.environ


def test_one_process_and_started_ones_work_themselves(worker, monkeypatch):
    worker("exit 1")
    assert not start_processes(profile(processes=1))
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not start_processes(profile())


def test_a_scheduler_that_counts_one_process_started_none(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    worker(f"touch {tmp_path}/rank-$RANK")
    assert start_processes(profile())
    assert len(list(tmp_path.glob("rank-*"))) == 2


def test_an_error_of_all_processes_is_told_once_and_ends_those_that_wait(worker):
    worker(f'if [ $RANK = 1 ]; then echo "row x: wrong" > ${FAILURES}/1; exit 2; fi; sleep 600')
    with pytest.raises(ProcessError, match=r"^row x: wrong\n$"):
        start_processes(profile())


def test_a_killed_process_is_named(worker):
    worker("if [ $RANK = 1 ]; then kill -9 $$; fi; sleep 600")
    with pytest.raises(ProcessError, match=f"process 1 of 2 was ended by {SIGKILL.name}.*run the same command again"):
        start_processes(profile())


def test_a_killed_process_is_named_where_another_fails_of_it_at_once(worker, tmp_path):
    """Without its connection the other ends too, often before the first is missed."""
    gone = tmp_path / "gone"
    worker(
        f"if [ $RANK = 1 ]; then touch {gone}; kill -9 $$; fi; "
        f"while [ ! -e {gone} ]; do sleep 0.01; done; sleep 0.01; exit 1"
    )
    with pytest.raises(ProcessError, match=f"process 1 of 2 was ended by {SIGKILL.name}"):
        start_processes(profile())


def test_a_fault_of_the_program_keeps_its_exit_code(worker):
    worker("exit 1")
    with pytest.raises(SystemExit, match="1"):
        start_processes(profile())


def test_gpus_that_are_not_there(worker, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    worker("exit 1")
    assert not start_processes(profile(device="cuda"))  # what does not depend on the number of processes
    with pytest.raises(ConfigError, match="processes is 2, a GPU for each, and this machine has 1; set 'processes: 1'"):
        start_processes(profile(device="auto"), exactly=True)


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="batch_size 4 of phase 1 is not a multiple of 3 processes x accumulate 1"):
        profile(processes=3)
    with pytest.raises(ConfigError, match="multiple of 2 nodes x 4 processes x accumulate 1"):
        profile(processes=4, nodes=2)


def test_nodes_share_trainings_alone_and_count_as_their_processes_do(worker, monkeypatch):
    monkeypatch.delenv(MEETING, raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    worker("exit 0")
    two = profile(nodes=2, processes=1)
    assert two.world == 2 and diffusion_recipe(two, "uvit") == diffusion_recipe(profile(processes=2), "uvit")
    assert not start_processes(two)  # an evaluation runs in one process
    with pytest.raises(
        ConfigError, match=f"profile tiny: nodes is 2; run the same command on each.*{MEETING}=HOST:PORT"
    ):
        start_processes(two, exactly=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not start_processes(two, exactly=True)
    assert profile(nodes=2, processes=1, sharding="full").layout == {"nodes": "2", "sharding": "full"}


def test_a_process_that_only_lost_another_is_not_the_cause(worker):
    """Both fail at once where one is killed; alone, the loss is all there is to tell."""
    worker(f'if [ $RANK = 1 ]; then echo "lost" > ${FAILURES}/1.lost; exit 2; fi; sleep 0.5; kill -9 $$')
    with pytest.raises(ProcessError, match=f"process 0 of 2 was ended by {SIGKILL.name}|^lost"):
        start_processes(profile())
    worker(f'echo "lost" > ${FAILURES}/$RANK.lost; exit 2')
    with pytest.raises(ProcessError, match=r"^lost\s*$"):
        start_processes(profile())


def test_a_lost_process_is_told_by_its_error(monkeypatch):
    closed = RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:5"
    )
    assert not is_lost_process(closed), "one process has none to lose"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_lost_process(closed) and is_lost_process(torch.distributed.DistBackendError("remote process exited"))
    assert not is_lost_process(RuntimeError("shapes differ"))


def test_processes_are_part_of_the_recipe_of_weights_alone():
    one, two = profile(processes=1), profile()
    assert diffusion_recipe(one, "uvit") != diffusion_recipe(two, "uvit")
    assert training_recipe(one, "sd-vae", 1) != training_recipe(two, "sd-vae", 1)
    assert evaluation_recipe(one) == evaluation_recipe(two)
    assert latents_recipe(one, "sd-vae@retrained", "two") == latents_recipe(two, "sd-vae@retrained", "two")


def test_a_process_that_was_started_leaves_its_error_to_the_one_that_started_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dcae-bench", "plan", "--profile", "no-such-profile"])
    monkeypatch.setenv(FAILURES, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no-such-profile" in (tmp_path / "1").read_text()
    assert not capsys.readouterr().err


STARTS = """
import sys
from types import SimpleNamespace
from dcae_bench.running import launch
sys.argv = ["dcae-bench"]
sys.executable = {worker!r}
launch.start_processes(SimpleNamespace(processes=2, device="cpu"))
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_processes_end_when_the_command_that_started_them_is_killed(tmp_path):
    worker = tmp_path / "worker"
    worker.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from dcae_bench.running.launch import end_with_launcher\n"
        "end_with_launcher()\n"
        f"open({str(tmp_path)!r} + '/' + os.environ['RANK'] + '.pid', 'w').write(str(os.getpid()) + ' ')\n"
        "time.sleep(600)\n"
    )
    worker.chmod(0o755)
    code = STARTS.format(worker=str(worker))
    environment = {key: value for key, value in os.environ.items() if key != "WORLD_SIZE"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = subprocess.Popen([sys.executable, "-c", code], env=environment)
    files = [tmp_path / f"{rank}.pid" for rank in range(2)]
    try:
        assert wait_until(lambda: all(file.exists() and file.read_text().endswith(" ") for file in files))
    finally:
        command.kill()
        command.wait()
    pids = [int(file.read_text()) for file in files]
    assert wait_until(lambda: not any(map(is_alive, pids)), 10)


def test_a_process_whose_command_is_gone_already_ends_at_once():
    code = "from dcae_bench.running.launch import end_with_launcher; end_with_launcher(); print('lives')"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), LAUNCHER: "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -SIGKILL and not done.stdout


def test_a_process_of_this_command_lives_and_passes_nothing_on(monkeypatch):
    code = (
        "import os; from dcae_bench.running.launch import end_with_launcher, LAUNCHER; end_with_launcher();"
        "print(os.environ.get(LAUNCHER))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), LAUNCHER: str(os.getpid())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "None\n")
