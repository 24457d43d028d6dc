"""Signals that stop a command: at once, at its next good moment, and its processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1

import pytest

from dcae_bench.base.errors import ProcessError
from dcae_bench.base.files import REPOSITORY
from dcae_bench.cli.main import main
from dcae_bench.running import stop
from dcae_bench.running.launch import FAILURES, start_processes
from dcae_bench.running.stop import (
    EXIT_CODE,
    SHELL_PREFIX,
    SIGNALS,
    Stopped,
    at_good_moments,
    outlive_command,
    stoppable,
)
from tests.running.test_launch import profile, worker  # noqa: F401


def send(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_in_one_line_with_the_code_of_those_that_go_on(number, monkeypatch, capsys):
    monkeypatch.setattr("dcae_bench.cli.main.app", lambda **_options: send(number))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_CODE == os.EX_TEMPFAIL
    line = f"dcae-bench: error: stopped by {number.name}; run the same command again to go on\n"
    assert capsys.readouterr().err == line
    assert signal.getsignal(number) == before


def test_work_is_cleared_up_and_a_signal_that_comes_twice_does_not_disturb_that():
    cleared = []
    with pytest.raises(Stopped), stoppable():
        try:
            send(SIGTERM)
        finally:
            send(SIGTERM)  # as of a scheduler that tells each process, and the command that started them
            cleared.append(1)
    assert cleared


def test_work_with_good_moments_ends_at_the_next():
    steps = []
    with stoppable(), at_good_moments() as asked:
        for step in range(10):
            if step == 3:
                send(SIGUSR1, times=2)
            steps.append(step)
            if asked():
                break
    assert steps == [0, 1, 2, 3]


def test_work_whose_good_moment_does_not_come_is_stopped_where_it_is(monkeypatch):
    monkeypatch.setattr(stop, "GRACE_S", 0.1)
    with pytest.raises(Stopped), stoppable(), at_good_moments():
        send(SIGTERM)
        time.sleep(5)
        pytest.fail("went on")


def test_a_second_ctrl_c_is_insistence(monkeypatch):
    went_on = False
    with pytest.raises(Stopped), stoppable(), at_good_moments():
        send(SIGINT, times=2)  # the same key
        went_on = True
        monkeypatch.setattr(stop, "INSISTENCE_S", 0.0)
        send(SIGINT)
        pytest.fail("went on")
    assert went_on


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stoppable():
            send(SIGHUP)
    finally:
        signal.signal(SIGHUP, before)


def test_a_process_that_was_forked_ends_by_the_signal():
    with stoppable():
        child = os.fork()
        if child == 0:
            send(SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -SIGTERM


@pytest.mark.parametrize("number", [SIGTERM, SIGHUP, SIGUSR1])
def test_the_shell_of_a_job_waits_for_its_command(number):
    """SLURM signals both, and kills the command when the shell has ended."""
    command = "sh -c 'trap \"sleep 0.2; echo kept; exit 75\" HUP TERM USR1; echo up; while :; do sleep 0.05; done' 2>&1"
    job = subprocess.Popen(
        ["bash", "-c", f"{SHELL_PREFIX} {command}"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert job.stdout.readline() == "up\n"
    os.killpg(job.pid, number)
    assert "kept" in job.communicate(timeout=30)[0]
    assert job.returncode == EXIT_CODE, "which tells that the shell has waited"


def test_the_snakemake_of_a_job_outlives_signals_and_passes_none_of_that_on():
    child = os.fork()
    if child == 0:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        outlive_command()
        for number in (SIGHUP, SIGUSR1, signal.SIGUSR2):
            send(number)
        os.execv("/bin/sh", ["sh", "-c", "kill -USR1 $$; exit 3"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -SIGUSR1


STOPS = f'trap "sleep 0.5; echo row x: stopped at image 8 > ${FAILURES}/$RANK.stopped; exit {EXIT_CODE}" TERM'


def test_signals_to_a_command_of_several_processes_end_them_once(worker, tmp_path):  # noqa: F811
    """A second signal must not end them before they have written their checkpoint."""
    worker(f"{STOPS}; touch {tmp_path}/up-$RANK; while true; do sleep 0.05; done")

    def interrupt():
        while len(list(tmp_path.glob("up-*"))) < 2:
            time.sleep(0.01)
        for _ in range(3):
            send(SIGUSR1)
            time.sleep(0.02)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(Stopped) as stopped, stoppable():
        start_processes(profile())
    thread.join()
    assert stopped.value.line == "row x: stopped at image 8\n" and stopped.value.code == EXIT_CODE


def test_a_signal_to_one_process_stops_the_command(worker):  # noqa: F811
    worker(f"{STOPS}; if [ $RANK = 1 ]; then kill -TERM $$; fi; while true; do sleep 0.05; done")
    with pytest.raises(Stopped) as stopped:
        start_processes(profile())
    assert stopped.value.line == "row x: stopped at image 8\n"


def test_the_error_of_one_process_is_told_though_the_others_are_stopped(worker):  # noqa: F811
    failing = f'if [ $RANK = 1 ]; then echo "row x: wrong" > ${FAILURES}/1; exit 2; fi'
    worker(f"{STOPS}; {failing}; while true; do sleep 0.05; done")
    with pytest.raises(ProcessError, match="row x: wrong"):
        start_processes(profile())


@pytest.mark.long
def test_the_program_itself():
    code = "import time; from dcae_bench.cli import main as m; m.app = lambda **k: time.sleep(60); print(1, flush=True)"
    command = subprocess.Popen(
        [sys.executable, "-c", f"{code}; m.main()"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    command.stdout.readline()
    time.sleep(0.3)
    command.terminate()
    _, said = command.communicate(timeout=30)
    assert command.returncode == EXIT_CODE and said.count("\n") == 1
