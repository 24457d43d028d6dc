"""A profile whose ablations train in seconds."""

import copy
from typing import Any

from dcae_bench.profile.profile import Profile, parse_profile

ADAM = {"lr": 0.01, "weight_decay": 0.1}
CODER = {"widths": [8, 16, 32], "depths": [0, 1, 1], "blocks": ["res", "res", "evit_glu"]}
CONTENT: dict[str, Any] = {
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
            1: {"resolution": 16, "images": 8, "batch_size": 4, "trainable": ["all"], "optimizer": ADAM},
            2: {
                "resolution": 32,
                "images": 8,
                "batch_size": 4,
                "trainable": ["encoder_head", "decoder_input"],
                "optimizer": ADAM,
            },
            3: {
                "resolution": 16,
                "images": 8,
                "batch_size": 4,
                "trainable": ["decoder_head"],
                "optimizer": ADAM,
                "gan": {"weight": 0.1, "discriminator": {"channels": 4, "layers": 2}, "optimizer": ADAM},
            },
        },
    },
    "evaluation": {
        "protocol": "reconstruction/photos-v1",
        "sets": [{"dataset": "tiny", "resolution": 32}, {"dataset": "tiny", "resolution": 64}],
        "batch_size": 4,
        "samples": 1,
    },
    "autoencoders": {
        "dc-ae": {"model": {"family": "dc-ae", "latent_channels": 8, "encoder": CODER, "decoder": CODER}},
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
    "ablations": {
        "seeds": [3, 4],
        "low": ["tiny-32"],
        "high": ["tiny-64"],
        "residual": ["dc-ae"],
        "high_resolution": ["dc-ae"],
        "phases": ["dc-ae"],
        "gan": ["dc-ae"],
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
    """The profile, with values replaced by path."""
    return parse_profile(content(changes), "tiny")
