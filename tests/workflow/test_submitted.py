"""What submitted jobs ask for, as a dry run prints it on a machine without GPUs."""

import re

import pytest
import yaml

from tests import tiny_diffusion
from tests.workflow.test_kubernetes import DATA, TABLE, checkout

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_jobs_ask_for_the_gpus_of_the_cluster_and_not_of_the_controller(tmp_path, monkeypatch, name):
    pytest.importorskip(f"snakemake_executor_plugin_{name}", reason="needs `make cluster`")
    made = checkout(tmp_path / "checkout")
    changes = {("device",): "cuda", ("processes",): 2, ("threads",): 3}
    changes |= {("training", "datasets"): list(DATA), ("evaluation", "sets", 0, "dataset"): DATA[0]}
    (made.root / "config" / "tiny.yaml").write_text(yaml.safe_dump(tiny_diffusion.content(changes)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = made.root / "profiles" / name
    # A dry run caps threads by --cores, which jobs that are submitted know nothing of.
    done = made.snakemake(TABLE, "--workflow-profile", str(folder), "--dry-run", "--quiet", "host", "--cores", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    job = done.stdout.partition("rule train_phase:")[2].partition("\n[")[0]
    assert re.search(r"^ *threads: 6$", job, re.M), job
    asked = dict(re.findall(r"(\w+)=(\w+)", job))
    assert (asked["gpu"], asked["mem_mb"]) == ("2", "12288") and int(asked["runtime"]) >= 15
