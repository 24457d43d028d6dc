"""A data set of the user's own folder, prepared by the workflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dcae_bench.base.files import REPOSITORY
from tests.data.containers import write_zip
from tests.data.image_files import write_images

PROFILE = """
name: own
description: Training on a folder of images
seed: 3
device: cpu
threads: 1
pack_short_side: 64
training:
  datasets: [my-set]
  loss: {l1: 1.0, lpips: 0.0, lpips_net: alex}
  ema: {decay: 0.5, warmup_steps: 2}
  checkpoint_images: 8
  log_images: 4
  phases:
    1:
      resolution: 32
      crop: center
      min_side: 32
      images: 8
      batch_size: 4
      trainable: [all]
      optimizer: {lr: 1.0e-3, weight_decay: 0.1}
evaluation:
  protocol: reconstruction/photos-v1
  sets: [{dataset: my-set, resolution: 32}]
  crops_per_photo: 1
  batch_size: 4
  samples: 1
autoencoders:
  sd-vae-f4c8:
    model: {family: sd-vae, latent_channels: 8, widths: [8, 8, 16], layers_per_block: 1, norm_groups: 4}
paper_rows_not_run: this is a test
"""


@pytest.mark.long
@pytest.mark.parametrize("packed", [False, True])
def test_images_of_a_folder_or_an_archive_become_a_manifest(tmp_path, packed):
    root = tmp_path / "my {images}"
    write_images(root, [f"{folder}/{number}.png" for folder in "ab" for number in range(4)])
    write_images(root, ["small.png"], size=(20, 30))
    if packed:
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}
        root = write_zip(tmp_path / "my {images}.zip", files)
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(PROFILE) | {"data_roots": {"my-set": str(root)}}))
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DCAE_BENCH_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "1"]
    command += ["results/own/data/my-set/train.json", "--directory", str(tmp_path), "--config", f"profile={config}"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    data = tmp_path / "results" / "own" / "data"
    assert sorted(path.name for path in (data / "my-set").iterdir()) == [
        "train.json",
        "train.parquet",
        "train.problems.csv",
    ]
    problems = (data / "my-set" / "train.problems.csv").read_text().splitlines()[1:]
    assert problems == ['small.png,small,"20x30, asked for 32"']
