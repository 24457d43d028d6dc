"""Folders of runs: one command at a time, checkpoints of other recipes, and enlarged photographs."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import Accelerator

from dcae_bench.base.errors import ResultsError, TrainingError
from dcae_bench.profile.profile import load_profile
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.record import load
from dcae_bench.running.output_lock import sole_writer
from dcae_bench.training import run as training_run
from dcae_bench.training import run_folder
from dcae_bench.training.autoencoder import PhaseTrainer
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.log import read_log
from dcae_bench.training.run import train_phase
from dcae_bench.training.run_folder import RECIPE, differing, require_same_run

PHASE = ("training", "phases", 1)


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture
def train(tmp_path, tiny, write_packs):
    """Train phase 1 with changes of the profile; returns the weights' path."""

    def run(changes=None, output="out", run_dir="run"):
        folder = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        config, data = write_packs(folder, tiny({(*PHASE, "images"): 16, **(changes or {})}))
        weights = tmp_path / output / "model.safetensors"
        options = {"data": data, "initial": None, "output": weights, "run_dir": tmp_path / run_dir}
        train_phase(load_profile(config), "sd-vae", 1, **options)
        return weights

    return run


@pytest.fixture
def stop_after_checkpoint(monkeypatch):
    checkpoint = PhaseTrainer.checkpoint

    def stopped(self, name, seconds):
        checkpoint(self, name, seconds)
        raise Stopped

    def stop(train, *arguments):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(PhaseTrainer, "checkpoint", stopped)
            train(*arguments)

    return stop


ENTRY = """
import os, sys, time
from pathlib import Path
from dcae_bench.training.run_folder import is_first_process, sole_training

folder = Path(sys.argv[1])
if is_first_process():
    time.sleep(2)
with sole_training(folder / "out" / "model.safetensors", folder / "run" / "abc"):
    (folder / f"{os.environ['RANK']}.seen").write_text(str((folder / "run" / ".abc.lock").exists()))
"""


@pytest.mark.long
def test_no_process_looks_at_a_run_before_the_first_has_its_lock(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen([sys.executable, "-c", ENTRY, str(tmp_path)], env={**shared, "RANK": rank}) for rank in "01"
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert (tmp_path / "0.seen").read_text() == (tmp_path / "1.seen").read_text() == "True"


def test_all_processes_must_mean_the_same_run_and_see_its_lock(tmp_path, monkeypatch):
    run, first = tmp_path / "abc", {"run": "abc", "host": "node1", "lock": True}
    with sole_writer(run):
        require_same_run(run, first)
        with pytest.raises(TrainingError, match="abc: is of another recipe than the run def of this command on node1"):
            require_same_run(run, {**first, "run": "def"})
    require_same_run(run, {**first, "lock": False})  # a folder that nobody can write has no lock
    monkeypatch.setattr(run_folder, "VISIBLE_S", 0.0)
    with pytest.raises(TrainingError, match=r"node1 has locked .* and .* does not see the lock; keep"):
        require_same_run(run, first)


def test_processes_that_read_other_checkpoints_do_not_train(start, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "gather", lambda self, tensor: torch.tensor([*tensor.tolist(), 8]))
    with pytest.raises(
        TrainingError, match="have read checkpoints of 0 and of 8 images; keep the run's folder on a file"
    ):
        start(tmp_path, "dc-ae", 1)


def test_trainings_at_once_take_turns(tmp_path, tiny, write_packs, capsys):
    fingerprint(training_run.__name__)  # Python 3.11 cannot parse code in two threads at once
    config, data = write_packs(tmp_path, tiny({(*PHASE, "images"): 16}))
    profile, output = load_profile(config), tmp_path / "out" / "model.safetensors"

    def run(_):
        options = {"data": data, "initial": None, "output": output, "run_dir": tmp_path / "run"}
        train_phase(profile, "sd-vae", 1, **options)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert [line["images"] for line in read_log(output.with_name("log.jsonl"))] == [4, 8, 12, 16]
    assert capsys.readouterr().err.count("finished before") == 2
    assert sorted(path.name for path in output.parent.iterdir()) == ["log.jsonl", "model.safetensors", "record.json"]
    assert not list((tmp_path / "run").iterdir())


def test_a_command_with_several_processes_is_refused(train, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        sole_writer(tmp_path / "out" / "model.safetensors"),
        pytest.raises(ResultsError, match=r"model\.safetensors: process \d+ on .* is writing it; wait until it ends"),
    ):
        train()


def test_a_checkpoint_of_another_recipe_is_named_and_not_used(train, stop_after_checkpoint, tmp_path, capsys):
    stop_after_checkpoint(train)
    (first,) = (tmp_path / "run").glob(f"*/{CHECKPOINT}")
    assert json.loads((first.parent / RECIPE).read_text())["recipe"]["phase"] == 1
    assert "is not used" not in capsys.readouterr().err
    train({(*PHASE, "batch_size"): 2})
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "is not used" in line]
    assert line == (
        f"sd-vae, phase 1: {first}: is not used, its recipe differs in plan.batch_size; to go on from it, set these "
        "fields back, then run the same command again"
    )
    assert "resumed" not in said and first.exists()
    train(None, "other")
    assert "resumed at image 8 of 16" in capsys.readouterr().err, "the first recipe goes on from its own"
    assert not list((tmp_path / "run").iterdir())


def test_a_checkpoint_of_other_code_says_how_to_go_back(train, stop_after_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("dcae_bench.training.run_folder.git_state", lambda: ("c" * 40, False))
    stop_after_checkpoint(train)
    monkeypatch.setattr(training_run, "fingerprint", lambda name: "f" * 64)
    train()
    said = capsys.readouterr().err
    assert "its recipe differs in code; to go on from it, check out the code of commit cccccccccccc, then run" in said


@pytest.mark.parametrize("place", ["", "0123456789ab"])
def test_a_checkpoint_of_an_older_layout_is_named(train, tmp_path, capsys, place):
    old = tmp_path / "run" / place / CHECKPOINT
    old.parent.mkdir(parents=True)
    old.touch()
    train()
    assert f"sd-vae, phase 1: {old}: is not used, its recipe is unknown" in capsys.readouterr().err
    assert old.exists()


def test_fields_that_differ_have_names():
    one = {"a": {"b": 1, "c": [1]}, "d": None, "e": 1}
    assert differing(one, {"a": {"b": 2, "c": [2]}, "d": {"x": 1}, "f": 1}) == ["a.b", "a.c", "d", "e", "f"]
    assert differing(one, dict(one)) == []


def test_enlarged_photographs_are_told_and_recorded(train, capsys):
    weights = train({(*PHASE, "resolution"): 128})
    told = "sd-vae, phase 1: 24 of 24 photographs are enlarged to 128 px, the smallest from 32 px; 'min_side: 128'"
    assert told in capsys.readouterr().err
    settings = load(weights.with_name("record.json")).settings
    assert settings == {
        "crop": "window",
        "enlarged": "24 of 24 photographs are enlarged to 128 px, the smallest from 32 px",
    }
    plain = train(None, "plain")
    assert "are enlarged" not in capsys.readouterr().err
    assert load(plain.with_name("record.json")).settings == {"crop": "window"}
