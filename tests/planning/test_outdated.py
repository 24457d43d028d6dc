"""Results that are not what the profile asks for now get an old time stamp, so that Snakemake makes them again."""

import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.planning.outdated import LONG_AGO_S, age_outdated, outdated
from dcae_bench.planning.workflow import Workflow
from dcae_bench.records.places import Places


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workflow("demo")


def write(path: str, content) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_nothing_is_aged_where_nothing_is(jobs):
    assert age_outdated(jobs) == [] and outdated(jobs) == {}


@pytest.mark.parametrize("spoil", [{"seed": 99}, {"sampler": {"name": "other"}}, None])
def test_samples_of_another_seed_or_sampler_are_aged(jobs, spoil):
    row = jobs.ready_rows[0]
    asked = {"seed": jobs.profile.seed, "sampler": jobs.rows[row].sampler.model_dump(mode="json")}
    path = jobs.places.samples(row, jobs.scales(row)[0], "samples.json")
    file = write(path, asked)
    now = time.time()
    assert age_outdated(jobs) == [] and abs(os.stat(file).st_mtime - now) < 600
    write(path, {**asked, **spoil} if spoil else "{")
    assert age_outdated(jobs) == [path] and os.stat(file).st_mtime == LONG_AGO_S


def test_latents_of_another_seed_are_aged(jobs):
    row = jobs.ready_trained_rows[0]
    path = jobs.latents_of(row, "manifest.json")
    write(path, {"seed": jobs.profile.seed})
    assert age_outdated(jobs) == []
    write(path, {"seed": 99})
    assert path in age_outdated(jobs)


def test_records_that_cannot_be_read_are_aged_with_the_reason(jobs):
    path = jobs.records[0]
    write(path, "{}")
    (reason,) = outdated(jobs)[path]
    assert "is not a record of DC-AE Bench" in reason and age_outdated(jobs) == [path]


@pytest.mark.parametrize(
    "path",
    [
        "results/demo/reconstruction/x@released/photos-64.json",
        "results/demo/reconstruction/x@retrained/phase3/photos-64.json",
        "results/demo/training/x@retrained/phase3/record.json",
        "results/demo/diffusion/row/record.json",
        "results/demo/generation/row/s1.5.json",
    ],
)
def test_the_results_around_a_record_are_found(path, tmp_path):
    assert Places.around(tmp_path / path) == Places(str(tmp_path / "results" / "demo"))
    assert Places.around(Path("/somewhere/else/record.json")) is None


def test_what_snakemake_remembers_is_left_to_snakemake(jobs, tmp_path):
    path = jobs.records[0]
    file = write(path, "{}")
    memory = tmp_path / ".snakemake" / "metadata"
    name = urlsafe_b64encode(path.encode()).decode()
    memory.joinpath(f"@{name[:20]}").mkdir(parents=True)
    memory.joinpath(f"@{name[:20]}", name[20:]).write_text("{}")
    now = os.stat(file).st_mtime
    assert age_outdated(jobs) == [] and os.stat(file).st_mtime == now


def test_a_dry_run_gives_the_time_stamps_back(tmp_path, monkeypatch):
    """Otherwise an edit that is tried and undone would make finished trainings again."""
    code = (
        "from dcae_bench.planning.outdated import age_outdated; from dcae_bench.planning.workflow import Workflow;"
        "jobs = Workflow('demo'); path = jobs.records[0]; import os;"
        "aged = age_outdated(jobs); assert aged == [path] and os.stat(path).st_mtime < 1e6, aged"
    )
    monkeypatch.chdir(tmp_path)
    file = write(Workflow("demo").records[0], "{}")
    now = os.stat(file).st_mtime_ns
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert os.stat(file).st_mtime_ns == now
