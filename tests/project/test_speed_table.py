"""The command that fills the table of speeds: it prints what lies in a folder, and says where it needs a GPU."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "results/reference/h100-2026-11-27"


def run(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmarks/speed_table.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_what_was_measured_stands_beside_target_and_evidence(tmp_path):
    """The evidence itself stands for a new run."""
    for work in ("train", "forward"):
        (tmp_path / work).mkdir()
        for path in (EVIDENCE / "records").glob(f"tuned-v1.*{work}.r1.json"):
            shutil.copy(path, tmp_path / work)
    timings = json.loads((EVIDENCE / "autoencoders.json").read_text())
    timings["benchmarks"] = [run for run in timings["benchmarks"] if run["extra_info"]["what"] != "decode"]
    (tmp_path / "autoencoders-eager.json").write_text(json.dumps(timings))
    done = run(tmp_path, "--print")
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 4}
    assert rows["UViT-H train, tuned, f8p2, images/s (MFU)"] == ["104.7 (54%)", "130 (68%)", "104.7 (54%)"]
    assert rows["UViT-H forward, tuned, f64p1, images/s (MFU)"] == ["6630 (65%)", "7700 (74%)", "6630 (65%)"]
    name = "DC-AE f32c32 512 px bf16, diffusers / ours, "
    assert rows[f"{name}encode, eager"] == ["1.41", "1.5", "1.41"]
    assert rows[f"{name}decode, eager"] == ["0.93", "1.5", "-"]
    assert rows[f"{name}training step, compiled"] == ["-", "1.3", "-"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would time for ten minutes")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run(tmp_path / "new")
    assert done.returncode == 2 and "no CUDA GPU" in done.stderr and not (tmp_path / "new").exists()
