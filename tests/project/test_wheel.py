"""The package outside a checkout: a wheel in an empty folder runs what needs no workflow."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import yaml

from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.record import load

pytestmark = pytest.mark.long

PROFILE = """
name: small
description: an own autoencoder on a few crops
seed: 0
device: cpu
threads: 1
pack_short_side: 64
evaluation:
  protocol: reconstruction/photos-v1
  sets: [{dataset: photos-indoor, resolution: 32}]
  crops_per_photo: 1
  batch_size: 8
  samples: 1
  bootstrap: 0
autoencoders:
  thumbnail:
    model: {family: custom, class_name: "thumbnail:Thumbnail", compression: 4, latent_channels: 3}
    weights: own
paper_rows_not_run: this is a test
"""
THUMBNAIL = """
import torch.nn.functional as F


class Thumbnail:
    def encode(self, x):
        return F.avg_pool2d(x, 4)

    def decode(self, z):
        return F.interpolate(z, scale_factor=4, mode="nearest")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the installed wheel, without this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", folder, REPOSITORY], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture
def run(installed, tmp_path):
    """Run a command with nothing but the wheel, in an empty folder."""

    def command(*arguments: str, code: int = 0) -> str:
        environment = os.environ | {"PYTHONPATH": str(installed), "DCAE_BENCH_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return command


def verb(*arguments: str) -> tuple[str, ...]:
    return ("-m", "dcae_bench", *arguments)


def test_the_wheel_is_what_runs(run, installed):
    assert str(installed) in run("-c", "import dcae_bench; print(dcae_bench.__file__)")


def test_what_is_known_by_name_is_inside(run):
    assert "dc-ae-f64c128-in-1.0" in run(*verb("zoo"))
    assert "uvit" in run(*verb("zoo", "--denoisers"))
    assert "dc-ae-f32c32-in-1.0" in run(*verb("weights", "list"))
    assert "This machine" in run(*verb("doctor"))


def test_a_plan_says_that_the_workflow_needs_a_checkout(run):
    printed = run(*verb("plan", "--profile", "demo"))
    assert "evaluate" in printed
    (line,) = [line for line in printed.splitlines() if "checkout" in line]
    assert "snakemake" in line


def test_measurements_are_planned(run):
    assert "uvit" in run(*verb("measure", "--plan", "cpu", "--output", "timings", "--dry-run"))


def test_data_are_prepared_and_an_autoencoder_is_evaluated(run, tmp_path):
    (tmp_path / "small.yaml").write_text(PROFILE)
    (tmp_path / "thumbnail.py").write_text(THUMBNAIL)
    run(*verb("prepare", "photos-indoor", "--profile", "small.yaml", "--output", "data/photos-indoor"))
    run(*verb("evaluate", "--profile", "small.yaml", "--autoencoder", "thumbnail", "--data", "data", "--output", "out"))
    record = load(tmp_path / "out" / "photos-indoor-32.json")
    assert record.metrics["psnr"].value > 10
    assert record.provenance.commit is None, "a wheel belongs to no checkout"
    run(*verb("table", "--profile", "small.yaml", "--output", "table.md", "out/photos-indoor-32.json"))
    assert json.loads((tmp_path / "table.json").read_text())
    assert "thumbnail" in (tmp_path / "table.md").read_text()


def test_every_file_that_the_package_reads_is_inside(installed):
    for folder in ("baselines", "config"):
        inside = {path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob("*.yaml")}
        assert {
            path.relative_to(installed / "dcae_bench" / folder)
            for path in (installed / "dcae_bench" / folder).rglob("*.yaml")
        } == inside
    for path in (installed / "dcae_bench").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())
