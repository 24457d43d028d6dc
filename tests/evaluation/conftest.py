"""Crops from memory, a cheap extractor, and an evaluator of both."""

import hashlib
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dcae_bench.data.packed import Index, PackedPhoto, index_path
from dcae_bench.evaluation.protocols import PHOTOS_V1
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.files import cache_dir, sha256_file
from dcae_bench.metrics.lpips import LPIPS
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.specs import SDVAESpec

CPU = torch.device("cpu")


class MemoryCrops:
    """uint8 images (n, 3, R, R) as an evaluation set; counts how often each was read."""

    name, split = "memory", "eval"

    def __init__(self, images):
        self.images, self.resolution = images, images.shape[-1]
        self.sha256 = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        self.manifest_sha256 = self.sha256
        self.reads = [0] * len(images)

    def __len__(self):
        return len(self.images)

    def key(self, index):
        return f"image-{index}"

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.images[index]


class Average:
    """Mean colours of a 2x2 grid, 12 numbers per image; counts the images it saw."""

    name, dim, weights_sha256 = "average", 12, "0" * 64
    distance, key = "FD (average)", "fd_efficientnet_lite0"

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="session")
def lpips():
    torch.manual_seed(0)
    return LPIPS("alex")


@pytest.fixture(autouse=True)
def own_cache(another_cache):
    """Reference features of one test are not found by another; converted weights are."""
    another_cache()


@pytest.fixture
def another_cache(tmp_path_factory, monkeypatch):
    """Makes a cache without reference features the one in use."""

    def use():
        weights, folder = cache_dir() / "weights", tmp_path_factory.mktemp("cache")
        weights.mkdir(parents=True, exist_ok=True)
        (folder / "weights").symlink_to(weights.resolve())
        monkeypatch.setenv("DCAE_BENCH_CACHE", str(folder))

    return use


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(10, 240, (20, 3, 64, 64), dtype=np.uint8))


@pytest.fixture
def crops(images):
    return MemoryCrops(images)


@pytest.fixture
def make_crops():
    return MemoryCrops


@pytest.fixture
def suite(lpips):
    return Suite(PHOTOS_V1, {"efficientnet-lite0": Average()}, {"alex": lpips}, CPU)


@pytest.fixture
def evaluator(suite):
    return ReconstructionEvaluator(suite, batch_size=4)


@pytest.fixture
def metrics_of(suite):
    """Metrics of a measured set without resampling."""

    def metrics(measured, crops, resamples=0):
        return summarise(measured, suite, crops, resamples=resamples, seed=0)

    return metrics


@pytest.fixture(scope="session")
def server():
    """Processes that have imported everything already: starting one from nothing takes many seconds."""
    context = multiprocessing.get_context("forkserver")
    modules = ["dcae_bench.evaluation.run", "diffusers.models.autoencoders.autoencoder_kl"]
    modules += ["dcae_bench.evaluation.generation_run", "dcae_bench.metrics.precision_recall"]
    context.set_forkserver_preload(modules)
    return context


MODEL = {"family": "sd-vae", "latent_channels": 4, "widths": [8, 8], "layers_per_block": 1, "norm_groups": 4}
PROFILE = """
name: tiny
description: d
seed: 0
device: cpu
threads: 1
pack_short_side: 64
paper_rows_not_run: small
training:
  datasets: [photos-indoor]
  loss: {lpips: 0.0, lpips_net: alex}
  ema: {decay: 0.9}
  checkpoint_images: 4
  log_images: 4
  phases:
    1: {resolution: 32, images: 4, batch_size: 4, trainable: [all], optimizer: {lr: 0.1, weight_decay: 0.0}}
evaluation:
  protocol: reconstruction/photos-v1
  sets: [{dataset: photos-indoor, resolution: 32}]
  crops_per_photo: 2
  batch_size: 2
  samples: 3
  bootstrap: 10
  gallery: 2
"""


class Tiny(NamedTuple):
    """What evaluating takes, at the smallest size."""

    folder: Path
    options: list[str]
    """Profile, autoencoder, weights and data as every verb takes them."""


@pytest.fixture
def tiny(tmp_path):
    """A profile, one packed set of 7 pictures (14 crops) and the weights of its autoencoder."""
    profile = {**yaml.safe_load(PROFILE), "autoencoders": {"sd-vae-f2c4": {"model": MODEL}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(profile))
    pack, size = tmp_path / "data" / "photos-indoor" / "eval.npy", 40 * 40 * 3
    pack.parent.mkdir(parents=True)
    np.save(pack, np.random.default_rng(1).integers(0, 256, 7 * size, dtype=np.uint8))
    photos = tuple(PackedPhoto(name=str(n), offset=n * size, height=40, width=40) for n in range(7))
    index = Index(
        name="photos-indoor",
        split="eval",
        short_side=64,
        sha256=sha256_file(pack),
        manifest_sha256="0" * 64,
        photos=photos,
    )
    index_path(pack).write_text(index.model_dump_json())
    save_weights(build(SDVAESpec(**MODEL), seed=0).state_dict(), tmp_path / "model.safetensors")
    options = [
        *("--profile", str(tmp_path / "tiny.yaml"), "--autoencoder", "sd-vae-f2c4"),
        *("--weights", str(tmp_path / "model.safetensors"), "--data", str(tmp_path / "data")),
    ]
    return Tiny(tmp_path, options)
