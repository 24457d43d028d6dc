"""Latents, samples and their metrics by real processes under gloo, as ``torchrun`` starts them, beside those of one."""

import os
import socket
from contextlib import ExitStack

import pytest
import torch
import yaml

from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.weight_files import weights_sha256
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.records.record import load, save
from dcae_bench.running.processes import Worker
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion as tiny
from tests.evaluation.test_samples_run import training_record

# Policy of the seeds by folder: "dit" draws noise between its steps, "streams" are the authors'.
PROFILES = {"dit": "sample", "uvit": "sample", "streams": "paper_8gpu"}
WORKER = """
import os
os.environ.update({environment!r})
from pathlib import Path
from dcae_bench.profile.profile import load_profile
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.evaluation.samples_run import evaluate_samples
from dcae_bench.generation.sample import sample_images

folder, out, ports = Path({folder!r}), Path({output!r}), iter({ports!r})

def joined():
    os.environ["MASTER_PORT"] = str(next(ports))
    return load_profile(folder / "sample.yaml")

weights = folder / "vae.safetensors"
encode_dataset(joined(), "sd-vae@retrained", "two", data=folder / "data", output=out / "latents", weights=weights)
inputs = {{"latents": out / "latents", "autoencoder": weights}}
for name, policy in {profiles!r}.items():
    joined()
    row = "dit" if name == "dit" else "uvit"
    sample_images(
        load_profile(folder / (policy + ".yaml")), row, weights=folder / (row + ".safetensors"), output=out / name,
        png=out / (name + "-png"), **inputs
    )
evaluate_samples(
    joined(), "uvit", samples=out / "uvit", training=folder / "training.json", data=folder / "data",
    output=out / "record.json",
)
"""


@pytest.fixture
def folder(tmp_path):
    for policy in ("sample", "paper_8gpu"):
        changes = {("diffusion", "seed_policy"): policy, ("diffusion", "samples"): 11}
        (tmp_path / f"{policy}.yaml").write_text(yaml.safe_dump(tiny.content(changes)))
    tiny.write_data(tmp_path / "data")
    autoencoder = weights_sha256(tiny.write_weights(tmp_path / "vae.safetensors"))
    for row in ("uvit", "dit"):
        state = build_denoiser(tiny.profile().row(row).denoiser, seed=1).state_dict()
        generator = torch.Generator().manual_seed(2)
        state = {key: value + 0.05 * torch.randn(value.shape, generator=generator) for key, value in state.items()}
        about = TrainedWeights(kind="denoiser", name=row)
        sha256 = save_weights(state, tmp_path / f"{row}.safetensors", trained=about)
        if row == "uvit":
            save(training_record(weights=sha256, autoencoder=autoencoder), tmp_path / "training.json")
    return tmp_path


def run(server, folder, count, cache):
    """Start what ``torchrun`` would start, on this machine's loopback; returns every file that came out of it."""
    output = folder / str(count)
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2 + len(PROFILES))]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    started = []
    for rank in range(count):
        environment = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "DCAE_BENCH_CACHE": cache}
        places = {"environment": environment, "folder": str(folder), "output": str(output)}
        code = WORKER.format(**places, ports=ports, profiles=PROFILES)
        started.append(server.Process(target=exec, args=(code, {})))
        started[-1].start()
    for process in started:
        process.join(timeout=120)
    for process in started:
        process.kill()  # one that hangs would keep the tests from ending
    assert [process.exitcode for process in started] == [0] * count
    found = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    metrics = load(found.pop("record.json")).metrics
    timed = ("samples.json", "manifest.json")  # they hold the seconds that the work took
    return metrics, {name: path.read_bytes() for name, path in found.items() if path.name not in timed}


@pytest.mark.long
def test_several_processes_write_what_one_does(server, folder, another_cache):
    """5 batches of latents, 6 of samples and the authors' 8 ranks are shared out by three unevenly."""
    alone, files = run(server, folder, 1, os.environ["DCAE_BENCH_CACHE"])
    assert len(files) == 2 + 3 * (2 + 11)
    another_cache()
    metrics, found = run(server, folder, 3, os.environ["DCAE_BENCH_CACHE"])
    assert found.keys() == files.keys() and metrics == alone
    assert [name for name in files if found[name] != files[name]] == []


IMPATIENT = """
import os, sys, time
from datetime import timedelta
os.environ.update({environment!r})
from torch.distributed import distributed_c10d
from dcae_bench.running.processes import join_processes

distributed_c10d.default_pg_timeout = timedelta(seconds=1)
with join_processes() as process:
    if not process.first:
        time.sleep(2)
    process.wait()
"""


@pytest.mark.long
def test_a_process_waits_for_the_longest_share(server):
    """gloo's limit, here a second, is half an hour; of eight seeds that three share, two have three each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    started = []
    for rank in range(2):
        code = IMPATIENT.format(environment=environment | {"RANK": str(rank)})
        started.append(server.Process(target=exec, args=(code, {})))
        started[-1].start()
    for process in started:
        process.join(timeout=60)
    for process in started:
        process.kill()
    assert [process.exitcode for process in started] == [0, 0]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    gpu = torch.device("cuda")
    assert Worker(3, 4).device(gpu) == torch.device("cuda", 1) and current == [torch.device("cuda", 1)]
    assert Worker().device(gpu) == gpu and len(current) == 1
    assert Worker(3, 4).device(torch.device("cpu")).type == "cpu" and len(current) == 1
