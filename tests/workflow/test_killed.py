"""Killed anywhere on the way to the generation table, the same command ends with the same table."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dcae_bench.base.files import REPOSITORY
from tests import tiny_diffusion as tiny
from tests.killed_commands import Commands

KILLS = 4
"""Changes on disk, evenly spread, at which each command is killed."""
RESULTS = Path("results", "tiny")
AUTOENCODER = RESULTS / "training" / "sd-vae@retrained" / "phase1" / "model.safetensors"
LATENTS = RESULTS / "latent-cache" / "sd-vae@retrained" / "two"
WEIGHTS = RESULTS / "diffusion" / "uvit" / "model.safetensors"
TRAINING = WEIGHTS.with_name("record.json")
SAMPLES = RESULTS / "samples" / "uvit" / "s1.5"
RECORD = RESULTS / "generation" / "uvit" / "s1.5.json"
TABLE = Path("results", "table_diffusion.md")
ROW = ["--row", "uvit"]
DATA = ["--data", RESULTS / "data"]
# As the rules call them, in their order.
COMMANDS = {
    "encode": ["--latent", "sd-vae@retrained", "--images", "two", *DATA, "--weights", AUTOENCODER, "--output", LATENTS],
    "train-diffusion": [
        *(*ROW, "--latents", LATENTS, "--autoencoder", AUTOENCODER),
        *("--run-dir", RESULTS / "runs" / "diffusion-uvit", "--output", WEIGHTS),
    ],
    "sample": [
        *(*ROW, "--weights", WEIGHTS, "--latents", LATENTS, "--autoencoder", AUTOENCODER),
        *("--s", "1.5", "--output", SAMPLES),
    ],
    "evaluate-samples": [*ROW, "--samples", SAMPLES, "--training", TRAINING, *DATA, "--output", RECORD],
    "table-diffusion": ["--output", TABLE, *DATA, TRAINING, RECORD],
}
# What the rules declare, which Snakemake removes before it starts an interrupted job again.
OUTPUTS = {
    "encode": [LATENTS / name for name in ("latents.npy", "labels.npy", "manifest.json")],
    "train-diffusion": [WEIGHTS, TRAINING, WEIGHTS.with_name("log.jsonl")],
    "sample": [SAMPLES / name for name in ("samples.npy", "labels.npy", "samples.json")],
    "evaluate-samples": [RECORD],
    "table-diffusion": [TABLE, TABLE.with_suffix(".csv"), TABLE.with_suffix(".json")],
}
TIMES = {"provenance", "seconds", "images_per_s", "waiting", "digest", "content_sha256"}


def profile() -> str:
    """The tiny profile with one row, its data sets under names of embedded ones: their packs are there already."""
    changes = {("training", "datasets"): ["photos-indoor", "photos-mixed"]}
    changes |= {("evaluation", "sets", 0, "dataset"): "photos-indoor"}
    changes |= {("diffusion", "data", "two", "datasets"): ["photos-indoor", "photos-mixed"]}
    changes |= {("diffusion", "data", "plain", "datasets"): ["photos-mixed"]}
    content = tiny.content(changes | {("diffusion", "trainings", "uvit", "guidance"): [{"s": 1.5}]})
    content["diffusion"]["rows"] = {"uvit": content["diffusion"]["rows"]["uvit"]}
    return yaml.safe_dump(content)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def content(folder: Path, paths: list[Path], *others: Path) -> dict[str, Any]:
    """Files by path, without the place of the folder; JSON without what tells of time.

    Tables name the place of their records at the time. ``others`` are folders that the files may have been copied from.
    """
    found = {str(path): (folder / path).read_bytes() for path in paths}
    for place in (folder, *others):
        here = str(place.resolve()).encode()
        found = {path: raw.replace(here, b"") for path, raw in found.items()}
    return {path: without_times(json.loads(raw)) if path.endswith(".json") else raw for path, raw in found.items()}


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, symlinks=True))


@pytest.fixture(scope="module")
def commands():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCAE_BENCH_CACHE", "cache")  # of each folder its own
        patch.delenv("DCAE_BENCH_RUN", raising=False)
        server = Commands()
    yield server
    server.close()


@pytest.fixture(scope="module")
def unbroken(commands, tmp_path_factory):
    """The folder after each command of an undisturbed run; under "" as it was before the first."""
    root = tmp_path_factory.mktemp("unbroken")
    folder = root / "start"
    tiny.write_data(folder / RESULTS / "data", ("photos-indoor", "photos-mixed"))
    tiny.write_weights(folder / AUTOENCODER)
    (folder / "tiny.yaml").write_text(profile())
    # Reference features are each folder's own; converted weights, which take seconds, are not.
    (folder / "cache").mkdir()
    (root / "weights").mkdir()
    (folder / "cache" / "weights").symlink_to(root / "weights")
    after = {"": folder}
    for verb, arguments in COMMANDS.items():
        folder = copy(folder, root / verb)
        assert commands.run(folder, [verb, "--profile", "tiny.yaml", *arguments], fork=False) == (0, 0)
        after[verb] = folder
    return after


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_command_killed_at_any_change_ends_with_the_same_files(verb, commands, unbroken, tmp_path):
    before = unbroken[[*unbroken][[*unbroken].index(verb) - 1]]
    command = [verb, "--profile", "tiny.yaml", *COMMANDS[verb]]
    wanted = content(unbroken[verb], OUTPUTS[verb])
    status, changes = commands.run(copy(before, tmp_path / "counted"), command)
    assert status == 0 and changes > 2 * KILLS
    for number in range(KILLS):
        folder = copy(before, tmp_path / str(number))
        kill_at = 1 + number * (changes - 1) // (KILLS - 1)
        assert commands.run(folder, command, kill_at) == (-signal.SIGKILL, kill_at)
        if number % 2:
            for path in OUTPUTS[verb]:
                (folder / path).unlink(missing_ok=True)
        status, _ = commands.run(folder, command)
        assert status == 0 and content(folder, OUTPUTS[verb]) == wanted, f"killed at change {kill_at}"
        shutil.rmtree(folder)


# Stands before the real command in PATH: the first time that a command has written to disk as often as it may, it kills
# Snakemake and all its jobs.
DEADLY = """#!{python}
import os, signal, sys
from pathlib import Path
from dcae_bench.cli.main import main

killed, left = Path("killed-" + sys.argv[1]), {writes}.get(sys.argv[1], 0)

def deadly(write):
    def call(*arguments):
        global left
        left -= 1
        if left == 0 and not killed.exists():
            killed.touch()
            os.killpg(0, signal.SIGKILL)
        return write(*arguments)
    return call

os.fsync, os.pwrite = deadly(os.fsync), deadly(os.pwrite)
main()
"""


@pytest.mark.long
def test_a_killed_workflow_goes_on_with_the_same_command(unbroken, tmp_path):
    folder = copy(unbroken["sample"], tmp_path / "killed")
    command = folder / "bin" / "dcae-bench"
    command.parent.mkdir()
    command.write_text(DEADLY.format(python=sys.executable, writes={"evaluate-samples": 6, "table-diffusion": 3}))
    command.chmod(0o755)
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DCAE_BENCH_CACHE": "cache",
        "OMP_NUM_THREADS": "1",
    }

    def run() -> subprocess.CompletedProcess:
        arguments = ["--snakefile", REPOSITORY / "Snakefile", "--directory", folder, "--cores", "1", TABLE]
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *map(str, arguments), "--config", f"profile={folder / 'tiny.yaml'}"],
            env=environment,
            cwd=folder,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=300,
        )

    for verb in ("evaluate-samples", "table-diffusion"):
        done = run()
        assert done.returncode == -signal.SIGKILL and (folder / f"killed-{verb}").exists(), done.stdout + done.stderr
        assert list((folder / ".snakemake" / "locks").iterdir()), "Snakemake's locks outlive it"
        assert not (folder / TABLE).exists()
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a killed run had left its files locked" in done.stderr
    table = OUTPUTS["table-diffusion"]
    assert content(folder, table) == content(unbroken["table-diffusion"], table)
    assert not list((folder / ".snakemake").rglob("*dcae-bench*/*")), "no lock of a job or a run is left"
    assert not list((folder / ".snakemake").glob(".dcae-bench*"))
