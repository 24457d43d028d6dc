"""A tiny profile whose denoisers train in seconds, its photographs, and its autoencoder's weights."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from dcae_bench.base.files import sha256_file
from dcae_bench.data.packed import PackedPhoto, PackIndex, write_index
from dcae_bench.data.photos import DATASETS
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build
from dcae_bench.profile.profile import Profile, parse_profile
from dcae_bench.weights.trained import TrainedWeights
from tests.fixtures.packs import stamps

TRAINING = {
    "process": "vp",
    "batch_size": 4,
    "optimizer": {"lr": 1.0e-3, "weight_decay": 0.03, "betas": [0.9, 0.99], "warmup_images": 8, "decay_all": True},
    "ema": {"decay": 0.9, "warmup_steps": 4},
    "checkpoint_images": 8,
    "log_images": 4,
    "previews": 2,
    "sampler": {"name": "dpm-solver", "nfe": 3},
    "guidance": [{"s": 1}, {"s": 1.5}],
}
ROW = {"denoiser": "uvit-nano", "latent": "sd-vae@retrained", "data": "two", "training": "uvit", "images": 24}
CONTENT = {
    "name": "tiny",
    "description": "Seconds on one core.",
    "seed": 3,
    "device": "cpu",
    "threads": 1,
    "pack_short_side": 40,
    "training": {
        "datasets": ["bright", "dark"],
        "loss": {"l1": 1.0, "lpips": 0.0, "lpips_net": "alex"},
        "ema": {"decay": 0.9, "warmup_steps": 4},
        "checkpoint_images": 8,
        "log_images": 4,
        "phases": {
            1: {
                "resolution": 16,
                "images": 8,
                "batch_size": 4,
                "trainable": ["all"],
                "optimizer": {"lr": 0.01, "weight_decay": 0.1},
            }
        },
    },
    "evaluation": {
        "protocol": "reconstruction/photos-v1",
        "sets": [{"dataset": "bright", "resolution": 32}],
        "batch_size": 4,
        "samples": 1,
    },
    "autoencoders": {
        "sd-vae": {
            "model": {
                "family": "sd-vae",
                "latent_channels": 3,
                "widths": [4, 4, 8],
                "layers_per_block": 1,
                "norm_groups": 2,
            }
        }
    },
    "diffusion": {
        "denoisers": {
            "uvit-nano": {"family": "uvit", "width": 16, "depth": 2, "heads": 2},
            "dit-nano": {"family": "dit", "width": 16, "depth": 2, "heads": 2},
        },
        "data": {
            "two": {"datasets": ["bright", "dark"], "resolution": 16, "labels": "dataset", "crops_per_photo": 2},
            "plain": {"datasets": ["dark"], "resolution": 16, "flips": True, "dtype": "float16"},
        },
        "trainings": {
            "uvit": TRAINING,
            "dit": {**TRAINING, "process": "learned-range", "sampler": {"name": "ddpm", "steps": 3}},
            "usit": {**TRAINING, "process": "flow", "sampler": {"name": "dopri5", "rtol": 0.1, "atol": 0.1}},
        },
        "rows": {
            "uvit": ROW,
            "dit": {**ROW, "denoiser": "dit-nano", "training": "dit"},
            "usit": {**ROW, "data": "plain", "training": "usit", "guidance": [{"s": 1}]},
        },
        "samples": 5,
        "sample_batch": 2,
        "encode_batch": 3,
    },
    "paper_rows_not_run": "too large",
}


def content(changes: dict[tuple, Any] | None = None) -> dict[str, Any]:
    """The profile's content, with values replaced by path."""
    changed = copy.deepcopy(CONTENT)
    for path, value in (changes or {}).items():
        inner = changed
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
    return changed


def profile(changes: dict[tuple, Any] | None = None) -> Profile:
    return parse_profile(content(changes), "tiny")


def write_data(folder: Path, names: tuple[str, str] = ("bright", "dark")) -> Path:
    """Write packed data sets of smooth photographs; the two sets differ in brightness."""
    generator = np.random.default_rng(0)
    for name, low, high, count in zip(names, (128, 0), (256, 128), (4, 3), strict=True):
        arrays, photos, offset = [], [], 0
        for number in range(count):
            pixels = generator.integers(low, high, (4, 5, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            height, width, _ = pixels.shape
            photos.append(PackedPhoto(name=f"{name}-{number}", offset=offset, height=height, width=width))
            arrays.append(pixels)
            offset += pixels.size
        for split in ("train", "eval"):
            path = folder / name / f"{split}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.concatenate([pixels.reshape(-1) for pixels in arrays]))
            index = PackIndex(
                name=name,
                split=split,
                short_side=40,
                sha256=sha256_file(path),
                photos=tuple(photos),
                **(stamps(name) if name in DATASETS else {"manifest_sha256": ("a" if name == names[1] else "b") * 64}),
            )
            write_index(index, path)
    return folder


def write_weights(path: Path, seed: int = 1) -> Path:
    """Write random weights of the profile's autoencoder."""
    state = build(profile().autoencoders["sd-vae"].model, seed=seed).state_dict()
    save_weights(state, path, trained=TrainedWeights(kind="autoencoder", name="sd-vae"))
    return path
