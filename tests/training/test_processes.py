"""Training shared by processes, each with a part of every batch, against training by one."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from dcae_bench.base.errors import TrainingError
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.records.record import load
from dcae_bench.training.checkpoint import CHECKPOINT, DIVERGED
from dcae_bench.training.log import read_log
from tests import tiny_diffusion
from tests.training import workers

PRELOADED = [
    "dcae_bench.training.run",
    "dcae_bench.training.diffusion_run",
    "diffusers.models.autoencoders.autoencoder_kl",
]
RUN = """
import os, runpy
from pathlib import Path
os.environ.pop("OMP_NUM_THREADS", None)  # without it accelerate takes threads of its own choice
os.environ.update({place!r})
runpy.run_path({workers!r})[{name!r}](Path({folder!r}), Path({output!r}))
"""


@pytest.fixture(scope="module")
def server():
    """Processes that have imported everything already: starting one from nothing takes many seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, write_packs, initial):
    folder = tmp_path_factory.mktemp("processes")
    write_packs(folder, tiny())
    (folder / "initial.safetensors").write_bytes(initial("dc-ae").read_bytes())
    return folder


@pytest.fixture(scope="module")
def diffusion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes-diffusion")
    weights = tiny_diffusion.write_weights(folder / "sd-vae.safetensors")
    profile, data = tiny_diffusion.profile(), tiny_diffusion.write_data(folder / "data")
    encode_dataset(profile, "sd-vae@retrained", "two", data=data, output=folder / "latents", weights=weights)
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump(tiny_diffusion.content({("diffusion", "trainings", "uvit", "accumulate"): 2}))
    )
    return folder


@pytest.fixture(scope="module")
def in_two(server) -> Callable[[Callable, Path, Path], list[int]]:
    """Train in two processes as ``torchrun`` starts them, and give their exit codes."""

    def run(train: Callable, folder: Path, output: Path) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        where = {"workers": workers.__file__, "name": train.__name__, "folder": str(folder), "output": str(output)}
        started = []
        for rank in range(2):
            code = RUN.format(place=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **where)
            started.append(server.Process(target=exec, args=(code, {})))
            started[-1].start()
        for process in started:
            process.join(timeout=120)
        for process in started:
            process.kill()  # one that hangs would keep the tests from ending
        return [process.exitcode for process in started]

    return run


@pytest.mark.parametrize("train", [workers.first_phase, workers.third_phase_in_parts, workers.denoiser])
def test_two_processes_train_as_one_does(in_two, folder, diffusion_folder, tmp_path, train):
    """Gradients, logged losses, BatchNorm of both nets and the adaptive weight of a GAN are the whole batch's, or
    with ``accumulate`` those of the same parts of it.

    Rounding differs, and Adam makes more of it with every step.
    """
    folder = diffusion_folder if train is workers.denoiser else folder
    train(folder, tmp_path / "1")
    assert in_two(train, folder, tmp_path / "2") == [0, 0]
    made = load(tmp_path / "2" / "record.json").provenance.device
    assert made.processes == 2 and made.machine.endswith(", 1 threads, 2 processes")
    found, wanted = (read_log(tmp_path / count / "log.jsonl") for count in ("2", "1"))
    assert len(found) == len(wanted)
    for number, (line, other) in enumerate(zip(found, wanted, strict=True)):
        assert line == pytest.approx(other, rel=1e-5 if number == 0 else 1e-2, abs=1e-6), number


def test_processes_stopped_at_a_checkpoint_go_on_to_the_same_bits(in_two, folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert in_two(workers.third_phase, folder, whole) == [0, 0]
    assert in_two(workers.stopped_at_a_checkpoint, folder, broken) == [9, 9]
    assert list(broken.rglob(CHECKPOINT))
    assert in_two(workers.third_phase, folder, broken) == [0, 0]
    assert read_log(broken / "log.jsonl") == read_log(whole / "log.jsonl")
    found, wanted = (load_file(path / "model.safetensors") for path in (broken, whole))
    assert not [key for key in wanted if not found[key].equal(wanted[key])]


def test_a_bad_image_of_one_process_stops_both(in_two, folder, tmp_path):
    """The other would wait for its gradients for ever."""
    assert in_two(workers.bad_image_of_the_second_process, folder, tmp_path) == [2, 2]
    assert list(tmp_path.rglob(DIVERGED))
    assert not list(tmp_path.rglob("model.safetensors"))


def test_as_many_processes_as_the_profile_has_are_needed(start, tmp_path):
    with pytest.raises(TrainingError, match="phase 1: 1 processes were started, and profile tiny has 'processes: 2'"):
        start(tmp_path, "dc-ae", 1, {("processes",): 2})
