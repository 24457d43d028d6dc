"""The workflow end to end at a tiny size, and what makes which part of it stale."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.records.record import load

PROFILE = """
name: tiny
description: The whole workflow in seconds
seed: 3
device: cpu
threads: 1
pack_short_side: 64
training:
  datasets: [photos-indoor]
  loss: {l1: 1.0, lpips: 0.1, lpips_net: alex}
  ema: {decay: 0.5, warmup_steps: 2}
  checkpoint_images: 8
  log_images: 4
  phases:
    1: {resolution: 32, images: 16, batch_size: 4, trainable: [all], optimizer: {lr: 1.0e-3, weight_decay: 0.1}}
    2:
      resolution: 64
      images: 8
      batch_size: 4
      trainable: [encoder_head, decoder_input]
      optimizer: {lr: 1.0e-4, weight_decay: 0.0}
evaluation:
  protocol: reconstruction/photos-v1
  sets: [{dataset: photos-indoor, resolution: 64}]
  crops_per_photo: 1
  batch_size: 4
  samples: 1
autoencoders:
  sd-vae-f4c8:
    model: {family: sd-vae, latent_channels: 8, widths: [8, 8, 16], layers_per_block: 1, norm_groups: 4}
  dc-ae-f4c8:
    model:
      family: dc-ae
      latent_channels: 8
      encoder: {widths: [8, 8, 32], depths: [0, 1, 1], blocks: [res, res, evit_glu]}
      decoder: {widths: [8, 8, 32], depths: [0, 1, 1], blocks: [res, res, evit_glu]}
  thumbnail:
    model: {family: custom, class_name: "thumbnail:Thumbnail", compression: 4, latent_channels: 3}
    weights: own
  absent:
    model: {family: sd-vae, latent_channels: 8, widths: [8, 8, 16], layers_per_block: 1, norm_groups: 4}
    weights: own
    file: mine/vae.safetensors
diffusion:
  denoisers: {uvit-nano: {family: uvit, width: 16, depth: 2, heads: 2}}
  data: {photos: {datasets: [photos-indoor], resolution: 32}}
  trainings:
    uvit:
      process: vp
      batch_size: 4
      optimizer: {lr: 1.0e-3, weight_decay: 0.03}
      ema: {decay: 0.9, warmup_steps: 4}
      checkpoint_images: 8
      log_images: 4
  rows:
    thumbnail: {denoiser: uvit-nano, latent: thumbnail@own, data: photos, training: uvit, images: 8}
    absent: {denoiser: uvit-nano, latent: absent@own, data: photos, training: uvit, images: 8}
  samples: 4
  sample_batch: 4
paper_rows_not_run: this is a test
"""
# An autoencoder of the user's, in the folder where Snakemake runs.
THUMBNAIL = """
import torch.nn.functional as F


class Thumbnail:
    def encode(self, x):
        return F.avg_pool2d(x, 4)

    def decode(self, z):
        return F.interpolate(z, scale_factor=4, mode="bicubic")
"""
TARGETS = ("results/table_rfid.md", "results/figures/reconstructions.png", "results/figures/losses.png")


DIFFUSION = "results/table_diffusion.md"
BEHIND_A_ROW = ("encode", "train_diffusion", "sample", "evaluate_samples")


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Jobs per rule that a dry run printed."""
    table = done.stdout.split("Job stats:")[-1] if "Job stats:" in done.stdout else ""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M) if rule != "total"}


class Checkout:
    """A copy of the project that a test may edit."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("dcae_bench", "workflow", "baselines", "config", "profiles"):
            shutil.copytree(REPOSITORY / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(REPOSITORY / name, root / name)
        (root / "config" / "tiny.yaml").write_text(PROFILE)
        (root / "thumbnail.py").write_text(THUMBNAIL)

    def snakemake(
        self, *arguments: str, profile: str | None = "tiny", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess:
        scripts = Path(sys.executable).parent
        environment = os.environ | {"PYTHONPATH": str(self.root), "PATH": f"{scripts}:{os.environ['PATH']}"}
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        chosen = [*([f"profile={profile}"] if profile else []), *options]
        command += ["--config", *chosen] if chosen else []
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300)

    def planned(self, *targets: str) -> dict[str, int]:
        """Jobs per rule that a dry run plans."""
        done = self.snakemake("--dry-run", *(targets or TARGETS))
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs(done)

    def edit(self, path: str, old: str, new: str):
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which the tiny profile was run; tests copy it before they edit."""
    checkout = Checkout(tmp_path_factory.mktemp("workflow"))
    done = checkout.snakemake(*TARGETS)
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


@pytest.fixture
def editable(finished):
    """The finished checkout, with every file put back afterwards."""
    kept = {
        path: path.read_bytes() for name in ("dcae_bench", "config") for path in (finished.root / name).rglob("*.*")
    }
    kept[finished.root / "thumbnail.py"] = THUMBNAIL.encode()
    yield finished
    for path, content in kept.items():
        if path.suffix in {".py", ".yaml"} and path.read_bytes() != content:
            path.write_bytes(content)


def test_a_run_leaves_tables_figures_and_records(finished):
    results = finished.root / "results"
    first_line = (results / "table_rfid.md").read_text().splitlines()[0]
    assert "tiny" in first_line
    for target in (*TARGETS, "results/table_rfid.csv", "results/table_rfid.json"):
        assert (finished.root / target).stat().st_size > 500
    records = sorted((results / "tiny").rglob("photos-indoor-64.json"))
    own = results / "tiny" / "reconstruction" / "thumbnail@own" / "photos-indoor-64.json"
    assert len(records) == 5  # two autoencoders, two phases, and one as it is
    assert load(own).subject.weights_source == "own"
    for path in (path for path in records if path != own):
        record = load(path)
        trained = load(results / "tiny" / "training" / path.parent.parent.name / path.parent.name / "record.json")
        assert record.subject.weights_sha256 == trained.subject.weights_sha256
        assert record.provenance.device.threads == 1
    assert not list((results / "tiny" / "runs").rglob("*.pt")), "finished runs leave no state behind"


def test_a_second_run_has_nothing_to_do(finished):
    done = finished.snakemake(*TARGETS)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.long
def test_results_without_snakemakes_memory_are_not_taken_for_others(editable):
    """Copied results of another seed are made again, those of this configuration are not."""
    memory, away = editable.root / ".snakemake", editable.root / "memory"
    memory.rename(away)
    try:
        assert editable.planned() == {}
        editable.edit("config/tiny.yaml", "seed: 3", "seed: 4")
        planned = editable.planned()
        assert {name: planned.get(name) for name in ("train_phase", "evaluate_as_is", "table_rfid")} == {
            **{"train_phase": 4, "evaluate_as_is": 1, "table_rfid": 1}
        }
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        away.rename(memory)
        for path in (editable.root / "results").rglob("*.json"):
            os.utime(path)


@pytest.mark.long
def test_an_edit_in_metrics_redoes_evaluation_and_tables_but_no_training(editable):
    editable.edit("dcae_bench/metrics/image.py", "255", "254")
    assert editable.planned() == {
        "evaluate_reconstruction": 4,
        "evaluate_as_is": 1,
        "figure_reconstructions": 1,
        "table_rfid": 1,
    }


@pytest.mark.long
def test_a_comment_or_docstring_makes_nothing_stale(editable):
    editable.edit("dcae_bench/metrics/image.py", '"""', '"""In other words: ')
    editable.edit("dcae_bench/training/loop.py", "import numpy as np\n", "import numpy as np  # arrays\n")
    assert editable.planned() == {}


@pytest.mark.long
def test_own_weights_that_are_not_here_are_told_in_one_line_and_in_the_table(finished):
    remedy = "put the file there, or correct autoencoders.absent.file"
    reason = f"weights of absent are not at mine/vae.safetensors: {remedy}"
    done = finished.snakemake("--dry-run", *TARGETS, DIFFUSION)
    assert done.stderr.splitlines().count(f"dcae-bench: absent is left out: {reason}") == 1
    assert jobs(done) == dict.fromkeys((*BEHIND_A_ROW, "table_diffusion"), 1)
    page = (finished.root / "results" / "table_rfid.md").read_text()
    assert "- absent: photos-indoor-64<sup>" in page and reason in page and "| thumbnail " in page


@pytest.mark.long
def test_an_edit_of_an_own_class_redoes_what_it_shapes_and_weights_that_come_add_theirs(editable):
    file = editable.root / "mine" / "vae.safetensors"
    file.parent.mkdir()
    file.touch()
    editable.edit("thumbnail.py", "bicubic", "nearest")
    try:
        assert editable.planned(DIFFUSION, *TARGETS) == {
            **dict.fromkeys((*BEHIND_A_ROW, "evaluate_as_is"), 2),
            **dict.fromkeys(("figure_reconstructions", "table_rfid", "table_diffusion"), 1),
        }
    finally:
        shutil.rmtree(file.parent)


@pytest.mark.long
def test_an_edit_in_training_redoes_training(editable):
    editable.edit("dcae_bench/training/losses.py", "1e-4, 1e4", "1e-5, 1e4")
    planned = editable.planned()
    assert planned["train_phase"] == 4 and planned["evaluate_reconstruction"] == 4
    assert "prepare" not in planned


@pytest.mark.long
def test_a_change_of_phase_2_leaves_phase_1_alone(editable):
    editable.edit("config/tiny.yaml", "lr: 1.0e-4", "lr: 2.0e-4")
    planned = editable.planned()
    assert planned["train_phase"] == 2 and planned["evaluate_reconstruction"] == 2


@pytest.mark.long
def test_the_report_holds_table_and_figures(finished):
    done = finished.snakemake("--report", "report.zip", *TARGETS)
    assert done.returncode == 0, done.stderr
    assert (finished.root / "report.zip").stat().st_size > 10_000


def test_an_unknown_profile_is_one_line_and_exit_code_2(finished):
    done = finished.snakemake("--dry-run", *TARGETS, profile="dmeo")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dcae-bench: error:")]
    assert "dmeo" in line and "demo" in line
    assert "Traceback" not in done.stderr


def test_a_results_folder_that_cannot_be_written_is_one_line_and_exit_code_2(tmp_path):
    checkout = Checkout(tmp_path)
    (tmp_path / "results").write_text("a file, not a folder")
    done = checkout.snakemake(*TARGETS)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dcae-bench: error:")]
    assert "results" in line and "cannot be written" in line
    assert (tmp_path / "results").read_text() == "a file, not a folder"


@pytest.mark.long
def test_the_report_is_made_of_the_tables_that_exist_and_makes_none(finished):
    page = finished.root / "results/report.html"
    assert finished.planned("results/report.html") == {"report": 1}
    done = finished.snakemake("results/report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert "thumbnail" in text and "make results/table_diffusion.md" in text
    assert finished.planned("results/report.html") == {}
