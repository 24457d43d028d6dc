"""The checks run on the processor by the same code, and they find what is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dcae_bench.gpu_check import computed, timed
from dcae_bench.gpu_check.catalogue import all_checks
from dcae_bench.gpu_check.runner import attempt

HOURS = 3600
QUICK = ["autoencoder beside the CPU", "encode beside the CPU", "evaluate beside the CPU", "cpu train", "cpu decode"]


def check(name):
    return next(one for one in all_checks() if one.name == name)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_protocol_and_work_has_a_check():
    names = [one.name for one in all_checks()]
    assert len(names) == len(set(names))
    for protocol in ("paper", "tuned", "cpu"):
        for work in ("train", "forward", "sample", "sample_decode", "encode", "decode", "phase1", "phase2", "phase3"):
            assert f"{protocol} {work}" in names


@pytest.mark.parametrize("name", QUICK)
def test_a_check_passes_on_the_processor(name, tmp_path):
    status, said = attempt(check(name), "cpu", tmp_path)
    assert status == "ok", said


def test_protocols_of_a_gpu_are_skipped_on_the_processor(tmp_path):
    assert attempt(check("tuned train"), "cpu", tmp_path) == ("skipped", "protocol tuned is for cuda")


def test_another_result_is_a_failure_with_its_error_and_limit(tmp_path, monkeypatch):
    build, built = computed.build, []

    def another(spec, seed=None):
        built.append(spec)
        return build(spec, seed=len(built))  # the device's network is not the processor's

    monkeypatch.setattr(computed, "build", another)
    status, said = attempt(check("evaluate beside the CPU"), "cpu", tmp_path)
    assert status == "failed" and "PSNR, dB: error" in said and "limit 0.001" in said


def test_work_that_disagrees_afterwards_is_a_failure(tmp_path, monkeypatch):
    from dcae_bench.measurement.workloads import inference

    monkeypatch.setattr(timed.CPU.__class__, "precision", lambda self, case: "bf16")
    monkeypatch.setattr(inference, "LIMITS", {}, raising=False)
    monkeypatch.setitem(timed.LIMITS, "bf16", 1e-9)
    status, said = attempt(check("cpu forward"), "cpu", tmp_path)
    assert status == "failed" and "is above 1e-09" in said


@pytest.mark.long
def test_the_rehearsal_on_the_processor(tmp_path):
    """All checks by the command, as on a GPU."""
    file = tmp_path / "summary.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DCAE_BENCH_LEASES": str(tmp_path / "leases")}
    command = [sys.executable, "-m", "dcae_bench", "gpu-check", "--device", "cpu", "--output", str(file)]
    done = subprocess.run(
        [*command, "--budget-s", "1000"], env=environment, capture_output=True, text=True, timeout=HOURS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {one["name"]: one for one in json.loads(file.read_text())["outcomes"]}
    assert list(outcomes) == [one.name for one in all_checks()]
    for name, one in outcomes.items():
        gpu = name.startswith(("paper ", "tuned ")) or check(name).gpu_only
        assert one["status"] == ("skipped" if gpu else "ok"), one
