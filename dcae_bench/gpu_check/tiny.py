"""Networks, a profile and data small enough for a check: seconds on one core, less on a GPU."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from dcae_bench.base.files import sha256_file
from dcae_bench.data.packed import PackedPhoto, PackIndex, write_index
from dcae_bench.measurement.record import Work
from dcae_bench.measurement.workloads.cases import CLASSES, DENOISER_WORK, Case, Latent
from dcae_bench.profile.profile import Profile, parse_profile
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.denoisers import Architecture, DenoiserSpec

SIDE = 64
"""Side of the images of timed work, px; LPIPS and the discriminator need no less."""
DENOISER = Architecture(family="uvit", width=64, depth=2, heads=2)
AUTOENCODER = "dc-ae-f4c8"
MODEL = {
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
ROW, IMAGES = "uvit", "two"
OPTIMIZER = {"lr": 1.0e-3, "weight_decay": 0.01, "betas": [0.9, 0.99]}
GAN = {"weight": 0.05, "discriminator": {"channels": 8, "layers": 1}, "optimizer": OPTIMIZER}
PROFILE: dict[str, Any] = {
    "name": "gpu-check",
    "description": "Tiny networks on noise-like photographs.",
    "seed": 3,
    "threads": 1,
    "pack_short_side": 40,
    "training": {
        "datasets": ["bright", "dark"],
        "loss": {"l1": 1.0, "lpips": 0.0, "lpips_net": "alex"},
        "ema": {"decay": 0.9, "warmup_steps": 4},
        "checkpoint_images": 16,
        "log_images": 16,
        "phases": {
            1: {"resolution": 32, "images": 64, "batch_size": 8, "trainable": ["all"], "optimizer": OPTIMIZER},
            2: {
                "resolution": 32,
                "images": 32,
                "batch_size": 8,
                "trainable": ["encoder_head", "decoder_input"],
                "optimizer": OPTIMIZER,
            },
            3: {
                "resolution": 32,
                "images": 32,
                "batch_size": 8,
                "trainable": ["decoder_head"],
                "optimizer": OPTIMIZER,
                "gan": GAN,
            },
        },
    },
    "evaluation": {
        "protocol": "reconstruction/photos-v1",
        "sets": [{"dataset": "bright", "resolution": 32}],
        "batch_size": 4,
        "samples": 1,
    },
    "autoencoders": {AUTOENCODER: {"model": MODEL}},
    "diffusion": {
        "denoisers": {"uvit-nano": {"family": "uvit", "width": 64, "depth": 2, "heads": 2}},
        "data": {IMAGES: {"datasets": ["bright", "dark"], "resolution": 32, "labels": "dataset", "crops_per_photo": 2}},
        "trainings": {
            "uvit": {
                "process": "vp",
                "batch_size": 8,
                "optimizer": {**OPTIMIZER, "warmup_images": 8, "decay_all": True},
                "ema": {"decay": 0.9, "warmup_steps": 4},
                "checkpoint_images": 32,
                "log_images": 16,
                "previews": 2,
                "sampler": {"name": "dpm-solver", "nfe": 8},
                "guidance": [{"s": 1.5}],
            }
        },
        "rows": {
            ROW: {
                "denoiser": "uvit-nano",
                "latent": f"{AUTOENCODER}@retrained",
                "data": IMAGES,
                "training": "uvit",
                "images": 64,
            }
        },
        "samples": 10,
        "sample_batch": 4,
        "encode_batch": 4,
    },
    "paper_rows_not_run": "the networks are tiny",
}


class TinyCase(Case):
    """A case whose networks are tiny, whatever its names are."""

    @property
    def autoencoder(self) -> AutoencoderSpec:
        """The tiny DC-AE."""
        return profile("cpu").autoencoders[AUTOENCODER].model

    @property
    def spec(self) -> DenoiserSpec:
        """The tiny UViT on its latents."""
        return DENOISER.on(self.space, CLASSES)


def case(work: Work) -> TinyCase:
    """The case of a kind of work."""
    denoiser = "uvit-tiny" if work in DENOISER_WORK else None
    return TinyCase(denoiser=denoiser, latent=Latent(autoencoder=AUTOENCODER, patch=1), resolution=SIDE, work=work)


def profile(device: str, **changes: object) -> Profile:
    """The tiny profile for a device."""
    return parse_profile({**PROFILE, "device": device, **changes}, "the profile of gpu-check")


def long_profile(device: str) -> Profile:
    """The tiny profile with many steps of phase 1."""
    training = copy.deepcopy(PROFILE["training"])
    training["phases"][1]["images"] = 640
    return profile(device, training=training)


def write_data(folder: Path) -> Path:
    """Write two packed data sets of smooth random photographs, 8 each; the sets differ in brightness."""
    generator = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        shape, pixels = (40, 48, 3), []
        for _ in range(8):
            pixels.append(generator.integers(low, low + 128, (5, 6, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8))
        for split in ("train", "eval"):
            path = folder / name / f"{split}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.concatenate([one.reshape(-1) for one in pixels]))
            index = PackIndex(
                name=name,
                split=split,
                short_side=40,
                sha256=sha256_file(path),
                manifest_sha256=("a" if name == "dark" else "b") * 64,
                photos=tuple(
                    PackedPhoto(name=f"{name}-{n}", offset=n * int(np.prod(shape)), height=40, width=48)
                    for n in range(8)
                ),
            )
            write_index(index, path)
    return folder
