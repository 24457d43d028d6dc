"""The checks run on the processor by the same code, and they find what is wrong."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from dcae_bench.gpu_check import computed, timed
from dcae_bench.gpu_check.catalogue import all_checks
from dcae_bench.gpu_check.runner import attempt
from dcae_bench.measurement.instruments.memory import BatchSearch, OutOfMemory
from dcae_bench.measurement.instruments.nvml import Identity, Sample
from tests.measurement import graphs

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


def test_the_denoiser_check_takes_devices_of_two_names(tmp_path):
    """Recipes name the device: latents and weights of one are not those of the other."""
    status, said = attempt(check("denoiser beside the CPU"), "auto", tmp_path)
    assert status == "ok", said


def test_each_device_starts_without_the_state_of_another(tmp_path):
    """accelerate keeps a process to its first device, and then refuses the other."""
    try:
        for _ in computed._both("cpu", tmp_path):
            assert Accelerator(cpu=True).device.type == "cpu"
            PartialState._shared_state["device"] = torch.device("cuda")  # as if it had been a GPU
            with pytest.raises(ValueError, match="already been initialized"):
                Accelerator(cpu=True)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


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


def test_a_graph_is_held_against_eager(tmp_path, monkeypatch):
    """With a stand-in for the graph, which in effect does what a CUDA graph does."""
    graphs.use(monkeypatch)
    status, said = attempt(check("CUDA graph beside eager"), "cpu", tmp_path)
    assert status == "ok" and "graph beside eager: error" in said, said
    monkeypatch.setattr(graphs.StandInGraph, "sound", 1)
    status, said = attempt(check("CUDA graph beside eager"), "cpu", tmp_path)
    assert status == "failed" and "limit 0.001" in said, said


def test_every_kernel_is_held_against_plain_attention(tmp_path, monkeypatch):
    """The processor has a kernel of its own behind every name, and no events to time it by."""
    monkeypatch.setattr(timed, "fastest_attention", lambda *arguments, train: "flash" if train else None)
    status, said = attempt(check("attention kernels"), "cpu", tmp_path)
    assert status == "ok" and "bf16 training: flash, bf16 inference: none" in said, said


def test_the_search_for_a_batch_meets_the_end_of_memory(tmp_path, monkeypatch):
    build = timed.build_workload

    def small(job):
        if job.batch > 12:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return build(job)

    fractions = []
    monkeypatch.setattr(timed, "build_workload", small)
    monkeypatch.setattr(timed, "catch_out_of_memory", lambda work: OutOfMemory(message="CUDA out of memory"))
    for name, stand_in in {
        "get_device_properties": lambda index: SimpleNamespace(total_memory=2**36),
        "memory_reserved": lambda: 0,
        "set_per_process_memory_fraction": fractions.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    status, said = attempt(check("batch search, out of memory"), "cpu", tmp_path)
    assert status == "ok" and said.startswith("batch 12 of"), said
    assert fractions == [2**-7, 1.0]
    monkeypatch.setattr(timed, "build_workload", build)
    unlimited = BatchSearch(batch=8, limited_by="limit", tries=())
    monkeypatch.setattr(timed, "largest_batch", lambda run, **limits: unlimited)
    assert attempt(check("batch search, out of memory"), "cpu", tmp_path)[0] == "failed"
    assert fractions[-1] == 1.0


def test_the_energy_counter_must_move(tmp_path, monkeypatch):
    class Source:
        energies = (1_000, 413_000)

        def __init__(self, uuid, now):
            self._energies = iter(self.energies)

        def identity(self):
            return Identity(uuid="GPU-0", name="H100", driver="580")

        def sample(self):
            return Sample(t=0.0, power_w=412.0, energy_mj=next(self._energies))

    monkeypatch.setattr(timed, "LOAD", 64)
    monkeypatch.setattr(timed, "Live", Source)
    monkeypatch.setattr(timed, "gpu_of_timing", lambda: "GPU-0")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert attempt(check("NVML live"), "cpu", tmp_path) == (
        "ok",
        "H100, driver 580, 412.0 W, 412 J in a second of load",
    )
    Source.energies = (1_000, 1_000)
    status, said = attempt(check("NVML live"), "cpu", tmp_path)
    assert status == "failed" and "stood still" in said


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
