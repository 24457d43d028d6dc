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
from dcae_bench.base.sealed import write_sealed
from dcae_bench.data.latents import LatentManifest, LatentSummary, latents_recipe_sha256
from dcae_bench.data.sample_manifest import SampleManifest, recipe_asked
from dcae_bench.planning.outdated import LONG_AGO_S, age_outdated, outdated
from dcae_bench.planning.workflow import Workflow
from dcae_bench.records.places import Places

NONE, WEIGHTS = "0" * 64, "f" * 64


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


def latents_as_asked(jobs, row, **changes):
    """The manifest of a row's latents as ``encode`` would write it now, but for ``changes``."""
    resolved, two = jobs.rows[row], (1.0, 1.0)
    data, latent = resolved.data, resolved.denoiser.latent
    manifest = LatentManifest(
        autoencoder=resolved.spec.source.autoencoder,
        weights_source="retrained",
        weights_sha256=WEIGHTS,
        model=resolved.autoencoder,
        datasets=data.datasets,
        split=data.split,
        resolution=data.resolution,
        crops_sha256=NONE,
        data_sha256=NONE,
        posterior="mean",
        flips=data.flips,
        classes=data.class_count,
        count=4,
        shape=(latent.channels, latent.side, latent.side),
        dtype=data.dtype,
        scaling_factor=1.0,
        scaling="measured",
        statistics=LatentSummary(mean=0, rms=1, std=1, channel_mean=two, channel_rms=two, channel_std=two),
        sha256=NONE,
        labels_sha256=NONE,
        seed=jobs.profile.seed,
        recipe_sha256=latents_recipe_sha256(
            jobs.profile, resolved.spec.latent, resolved.spec.data, crops_sha256=NONE, weights_sha256=WEIGHTS
        ),
    )
    return manifest.model_copy(update=changes)


def samples_as_asked(jobs, row, **changes):
    """The manifest of a row's samples as ``sample`` would write it now, but for ``changes``."""
    resolved = jobs.rows[row]
    drawn = SampleManifest(
        row=row,
        denoiser_sha256=WEIGHTS,
        autoencoder=resolved.spec.latent,
        autoencoder_sha256=NONE,
        latents_sha256=NONE,
        scaling_factor=0.5,
        shift=0.0,
        crops_sha256=NONE,
        data_sha256=NONE,
        sampler=resolved.sampler,
        nfe=None,
        guidance_scale=float(jobs.scales(row)[0]),
        count=4,
        shape=(8, 8, 3),
        classes=2,
        seed=jobs.profile.seed,
        seed_policy="sample",
        seconds=1.0,
        sha256=NONE,
        labels_sha256=NONE,
        recipe_sha256=NONE,
    )
    drawn = drawn.model_copy(update={"recipe_sha256": recipe_asked(jobs.profile, drawn)})
    return drawn.model_copy(update=changes)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 99}, {"recipe_sha256": "1" * 64}, {"sha256": "of other samples"}, {"guidance_scale": 9.0}, None],
)
def test_samples_that_would_be_drawn_otherwise_now_are_aged(jobs, changes):
    row = jobs.ready_rows[0]
    path = jobs.places.samples(row, jobs.scales(row)[0], "samples.json")
    file = Path(path)
    write_sealed(file, samples_as_asked(jobs, row))
    now = time.time()
    assert age_outdated(jobs) == [] and abs(os.stat(file).st_mtime - now) < 600
    if changes is None:
        file.write_text("{")
    elif "sha256" in changes:  # a field that no recipe holds: the manifest's own seal finds it
        file.write_text(file.read_text().replace(NONE, "2" * 64))
    elif "seed" in changes:  # drawn under another seed, and sealed so
        other = Workflow("demo")
        other.profile = jobs.profile.model_copy(update=changes)
        write_sealed(file, samples_as_asked(other, row))
    else:
        write_sealed(file, samples_as_asked(jobs, row, **changes))
    assert age_outdated(jobs) == [path] and os.stat(file).st_mtime == LONG_AGO_S


@pytest.mark.parametrize("changes", [{"seed": 99}, {"recipe_sha256": "1" * 64}, {"flips": True}, {"dtype": "float16"}])
def test_latents_that_would_be_encoded_otherwise_now_are_aged(jobs, changes):
    row = jobs.ready_trained_rows[0]
    path = jobs.latents_of(row, "manifest.json")
    write_sealed(Path(path), latents_as_asked(jobs, row))
    assert age_outdated(jobs) == []
    write_sealed(Path(path), latents_as_asked(jobs, row, **changes))
    assert age_outdated(jobs) == [path]


def test_an_edit_of_the_code_ages_what_it_made(jobs, monkeypatch):
    row = jobs.ready_trained_rows[0]
    latents = jobs.latents_of(row, "manifest.json")
    samples = jobs.places.samples(row, jobs.scales(row)[0], "samples.json")
    write_sealed(Path(latents), latents_as_asked(jobs, row))
    write_sealed(Path(samples), samples_as_asked(jobs, row))
    assert age_outdated(jobs) == []
    monkeypatch.setattr("dcae_bench.data.sample_manifest.fingerprint", lambda module: "edited")
    assert age_outdated(jobs) == [samples]
    monkeypatch.setattr("dcae_bench.data.latents.fingerprint", lambda module: "edited")
    assert age_outdated(jobs) == [latents, samples]


def test_latents_and_samples_of_other_weights_than_the_training_left_are_aged(jobs, monkeypatch):
    row = jobs.ready_trained_rows[0]
    latents = jobs.latents_of(row, "manifest.json")
    samples = jobs.places.samples(row, jobs.scales(row)[0], "samples.json")
    write_sealed(Path(latents), latents_as_asked(jobs, row))
    write_sealed(Path(samples), samples_as_asked(jobs, row))
    left = {"weights": WEIGHTS}
    monkeypatch.setattr("dcae_bench.planning.outdated._weights_of", lambda record: left["weights"])
    assert age_outdated(jobs) == []
    left["weights"] = "3" * 64
    assert age_outdated(jobs) == [latents, samples]


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
