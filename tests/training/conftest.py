import copy
import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dcae_bench.base.files import sha256_file, sha256_json
from dcae_bench.data.packed import PackedPhoto, PackedPhotos, PackIndex, Photos, write_index
from dcae_bench.generation.encode import encode_dataset
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import Profile, parse_profile
from dcae_bench.profile.recipes import training_recipe
from dcae_bench.training.autoencoder import PhaseRun, PhaseTrainer
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion
from tests.training import workers

OPTIMIZER = {"lr": 0.01, "weight_decay": 0.1, "warmup_images": 8}
CONTENT = {
    "name": "tiny",
    "description": "Seconds on one core.",
    "seed": 3,
    "device": "cpu",
    "threads": 1,
    "pack_short_side": 64,
    "training": {
        "datasets": ["tiny"],
        "loss": {"l1": 1.0, "lpips": 0.0, "lpips_net": "alex"},
        "ema": {"decay": 0.9, "warmup_steps": 4},
        "checkpoint_images": 8,
        "log_images": 4,
        "phases": {
            1: {"resolution": 16, "images": 40, "batch_size": 4, "trainable": ["all"], "optimizer": OPTIMIZER},
            2: {
                "resolution": 32,
                "images": 24,
                "batch_size": 4,
                "trainable": ["encoder_head", "decoder_input"],
                "optimizer": OPTIMIZER,
            },
            3: {
                "resolution": 16,
                "images": 40,
                "batch_size": 4,
                "trainable": ["decoder_head"],
                "optimizer": OPTIMIZER,
                "gan": {
                    "weight": 0.1,
                    "adaptive": True,
                    "discriminator": {"channels": 4, "layers": 2},
                    "optimizer": {"lr": 0.01, "weight_decay": 0.0, "betas": [0.5, 0.9]},
                },
            },
        },
    },
    "evaluation": {
        "protocol": "reconstruction/photos-v1",
        "sets": [{"dataset": "tiny", "resolution": 32}],
        "crops_per_photo": 1,
        "batch_size": 4,
        "samples": 1,
    },
    "autoencoders": {
        "dc-ae": {
            "model": {
                "family": "dc-ae",
                "latent_channels": 8,
                "encoder": {"widths": [8, 16, 32], "depths": [0, 1, 1], "blocks": ["res", "res", "evit_glu"]},
                "decoder": {
                    "widths": [8, 16, 32],
                    "depths": [0, 1, 1],
                    "blocks": ["res", "res", "evit_glu"],
                    "norms": ["bn2d", "bn2d", "trms2d"],
                    "activations": ["relu", "relu", "silu"],
                },
            }
        },
        "sd-vae": {
            "model": {
                "family": "sd-vae",
                "latent_channels": 8,
                "widths": [8, 8, 16],
                "layers_per_block": 1,
                "norm_groups": 4,
            }
        },
    },
    "paper_rows_not_run": "too large",
}


def smooth_photos(count: int = 24) -> Photos:
    """Photographs with smooth colours, which a model can learn."""
    generator = np.random.default_rng(0)
    arrays = []
    for number in range(count):
        height, width = 32 + number % 5, 40 - number % 3
        coarse = generator.integers(0, 256, (4, 5, 3))
        grid = np.ix_(np.arange(height) * 4 // height, np.arange(width) * 5 // width)
        arrays.append(coarse[grid].astype(np.uint8))
    return Photos(arrays, [f"photo-{number}" for number in range(count)])


@pytest.fixture(scope="session")
def photos() -> Photos:
    return smooth_photos()


@pytest.fixture(scope="session")
def tiny() -> Callable[..., dict[str, Any]]:
    """Makes the tiny profile's content, with values replaced by path: ``tiny({("seed",): 4})``."""

    def make(changes: dict[tuple, Any] | None = None) -> dict[str, Any]:
        content = copy.deepcopy(CONTENT)
        for path, value in (changes or {}).items():
            inner = content
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = value
        return content

    return make


@pytest.fixture(scope="session")
def initial(tmp_path_factory, tiny) -> Callable[[str], Path]:
    """Writes initial weights for phases 2 and 3: random, also in BatchNorm statistics, so that any change shows."""

    def make(autoencoder: str) -> Path:
        path = tmp_path_factory.mktemp("initial") / "model.safetensors"
        model = build(parse_profile(tiny(), "tiny").autoencoders[autoencoder].model, seed=1)
        generator = torch.Generator().manual_seed(0)
        for key, value in model.state_dict().items():
            if "running" in key:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        save_weights(model.state_dict(), path, trained=TrainedWeights(kind="autoencoder", name=autoencoder))
        return path

    return make


@pytest.fixture(scope="session")
def start(photos, tiny, initial) -> Callable[..., PhaseTrainer]:
    """Starts or continues a phase in this process: ``start(folder, "dc-ae", 3)``."""
    weights: dict[str, Path] = {}

    def make(
        directory: Path, autoencoder: str, phase: int, changes: dict | None = None, first: Path | None = None
    ) -> PhaseTrainer:
        profile: Profile = parse_profile(tiny(changes), "tiny")
        if phase > 1 and first is None:
            first = weights.setdefault(autoencoder, initial(autoencoder))
        return PhaseTrainer(
            PhaseRun(
                profile=profile,
                autoencoder=autoencoder,
                phase=phase,
                photos=photos,
                initial=first,
                directory=directory,
                recipe_sha256=sha256_json(training_recipe(profile, autoencoder, phase)),
            )
        )

    return make


@pytest.fixture(scope="session")
def write_packs(photos) -> Callable[[Path, dict[str, Any]], tuple[Path, Path]]:
    """Write a profile and its packed data for the command line: (profile file, data folder)."""

    def write(folder: Path, content: dict[str, Any]) -> tuple[Path, Path]:
        (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
        path = folder / "data" / "tiny" / "train.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.concatenate([pixels.reshape(-1) for pixels in photos]))
        packed, offset = [], 0
        for pixels, name in zip(photos, photos.names, strict=True):
            height, width, _ = pixels.shape
            packed.append(PackedPhoto(name=name, offset=offset, height=height, width=width))
            offset += pixels.size
        index = PackIndex(
            name="tiny",
            split="train",
            short_side=64,
            sha256=sha256_file(path),
            manifest_sha256="0" * 64,
            photos=tuple(packed),
        )
        write_index(index, path)
        assert all(np.array_equal(a, b) for a, b in zip(PackedPhotos.open(path), photos, strict=True))
        return folder / "tiny.yaml", folder / "data"

    return write


PRELOADED = [
    "tests.training.preloaded",
    "tests.training.workers",
    "dcae_bench.training.run",
    "dcae_bench.training.diffusion_run",
    "diffusers.models.autoencoders.autoencoder_kl",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
]
RUN = """
import os, runpy
from pathlib import Path
os.environ.pop("OMP_NUM_THREADS", None)  # without it accelerate takes threads of its own choice
os.environ.update({place!r})
runpy.run_path({workers!r})[{name!r}](Path({folder!r}), Path({output!r}))
"""


@pytest.fixture(scope="session")
def server():
    """Processes that have imported everything already: starting one from nothing takes many seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # as for the processes that a command starts
        ensure_running()
    return context


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tiny, write_packs, initial):
    folder = tmp_path_factory.mktemp("processes")
    write_packs(folder, tiny())
    (folder / "initial.safetensors").write_bytes(initial("dc-ae").read_bytes())
    return folder


@pytest.fixture(scope="session")
def diffusion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes-diffusion")
    weights = tiny_diffusion.write_weights(folder / "sd-vae.safetensors")
    profile, data = tiny_diffusion.profile(), tiny_diffusion.write_data(folder / "data")
    encode_dataset(profile, "sd-vae@retrained", "two", data=data, output=folder / "latents", weights=weights)
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump(tiny_diffusion.content({("diffusion", "trainings", "uvit", "accumulate"): 2}))
    )
    return folder


@pytest.fixture(scope="session")
def in_two(server) -> Callable[..., list[int]]:
    """Train in two processes as ``torchrun`` starts them, with variables of their own, and give their exit codes."""

    def run(train: Callable, folder: Path, output: Path, **variables: str) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **variables}
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
