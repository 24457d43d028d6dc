"""Seconds of work that is killed and goes on."""

import os
import subprocess
import sys
import time

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.running.kept_clock import kept_clock

KILLED = """
import os, signal, sys, time
from pathlib import Path
from dcae_bench.running.kept_clock import kept_clock
state = Path(sys.argv[1])
with kept_clock(state):
    state.mkdir(exist_ok=True)
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_seconds_of_killed_runs_add_up(tmp_path):
    state = tmp_path / ".set-1"
    for _ in range(2):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        assert subprocess.run([sys.executable, "-c", KILLED, str(state)], env=environment).returncode == -9
    with kept_clock(state) as clock:
        assert 2 * 0.9 < clock.seconds < 2 * 1.2 + 1
        state.rmdir()
    assert not list(tmp_path.iterdir()), "the file goes with the state"
    with kept_clock(state) as clock:
        assert clock.seconds < 1


def test_an_error_keeps_the_seconds_and_a_missing_state_forgets_them(tmp_path):
    state = tmp_path / ".set-1"
    with pytest.raises(KeyError), kept_clock(state):
        state.mkdir()
        time.sleep(0.1)
        raise KeyError
    with kept_clock(state) as clock:
        assert clock.seconds >= 0.1
    state.rmdir()
    assert (tmp_path / ".seconds.set-1").exists()
    with kept_clock(state) as clock:
        assert clock.seconds < 0.1


def test_files_of_states_that_are_long_gone_are_removed(tmp_path):
    old, new = tmp_path / ".seconds.set-1", tmp_path / ".seconds.set-2"
    for file in (old, new):
        file.write_text("5\n")
    os.utime(old, (0, 0))
    with kept_clock(tmp_path / ".set-3"):
        assert not old.exists() and new.exists(), "other work may have begun it just now"


def test_only_the_first_process_keeps_seconds(tmp_path):
    with kept_clock(tmp_path / "missing" / ".set-1", keep=False):
        assert not list(tmp_path.iterdir())
