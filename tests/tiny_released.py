"""Tiny released denoisers: catalogue entries, weights in the published layout, and a profile that samples them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dcae_bench.catalogue.autoencoders import Preset, catalogue
from dcae_bench.catalogue.denoisers import DenoiserPreset, denoiser_catalogue
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.specs.autoencoders import SDVAESpec
from dcae_bench.specs.denoisers import Architecture
from dcae_bench.weights import released as weights
from tests import tiny_diffusion as tiny

AUTOENCODER = "tiny-vae"
SCALING = {"factor": 0.7, "shift": 0.25, "source": "a test"}
UVIT, DIT, USIT = DENOISERS = "tiny-uvit-in-32px", "tiny-dit-in-32px", "tiny-usit-in-32px"
CONTENT = {
    "name": "tiny-released",
    "description": "Seconds on one core, nothing trained.",
    "seed": 3,
    "device": "cpu",
    "threads": 1,
    "pack_short_side": 40,
    "evaluation": tiny.CONTENT["evaluation"],
    "autoencoders": {AUTOENCODER: {"model": {"preset": AUTOENCODER}, "weights": "released"}},
    "diffusion": {
        "data": {"two": {"datasets": ["bright", "dark"], "resolution": 32, "labels": "dataset"}},
        "rows": {
            "uvit": {"released": UVIT, "data": "two"},
            "dit": {"released": DIT, "data": "two", "guidance": [{"s": 3}]},
            "usit": {"released": USIT, "data": "two"},
        },
        "samples": 5,
        "sample_batch": 2,
    },
    "paper_rows_not_run": "too large",
}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an f4 autoencoder and three denoisers of 64 tokens to the catalogues until the test ends."""

    def released(name: str) -> dict[str, Any]:
        return {"repo": f"nobody/{name}", "file": "model.safetensors", "licence": "none"}

    spec = SDVAESpec(**tiny.CONTENT["autoencoders"]["sd-vae"]["model"])
    monkeypatch.setitem(catalogue().architectures, "tiny-sd-vae", spec)
    preset = {"architecture": "tiny-sd-vae", "weights": released(AUTOENCODER), "scaling": SCALING, "notes": "none"}
    monkeypatch.setitem(catalogue().autoencoders, AUTOENCODER, Preset(**preset))
    for size, family in (("tiny-uvit", "uvit"), ("tiny-dit", "dit")):
        architecture = Architecture(family=family, width=16, depth=2, heads=2)
        monkeypatch.setitem(denoiser_catalogue().architectures, size, architecture)
    shared = {"autoencoder": AUTOENCODER, "resolution": 32, "patch": 1, "classes": 2, "scaling": SCALING, "notes": "-"}
    for name, size, process in (
        (UVIT, "tiny-uvit", "vp"),
        (DIT, "tiny-dit", "learned-range"),
        (USIT, "tiny-uvit", "flow"),
    ):
        own = {"architecture": size, "process": process, "guidance": {"s": 1.5}, "weights": released(name)}
        monkeypatch.setitem(denoiser_catalogue().denoisers, name, DenoiserPreset(**shared, **own))


def write_autoencoder(path: Path) -> Path:
    """Write the weights of the released autoencoder."""
    save_weights(build(catalogue().spec(AUTOENCODER), seed=1).state_dict(), path)
    return path


def write_pipeline(name: str, path: Path) -> Path:
    """Write a file as the authors publish it: the denoiser, and an autoencoder full of NaN that nothing may read."""
    model, generator = build_denoiser(denoiser_catalogue().spec(name), seed=1), torch.Generator().manual_seed(2)
    # DiT's output layer starts as zeros, which would hide differences.
    state = {k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
    pipeline = {f"diffusion_model.{key}": value for key, value in state.items()}
    save_file({**pipeline, "autoencoder.decoder.weight": torch.full((3,), torch.nan)}, path)
    return path


def fetch_all(folder: Path) -> None:
    """Put all released weights in the cache, as `weights fetch NAME --path FILE` does."""
    folder.mkdir(parents=True, exist_ok=True)
    weights.fetch(AUTOENCODER, path=write_autoencoder(folder / f"{AUTOENCODER}.safetensors"))
    for name in DENOISERS:
        weights.fetch(name, path=write_pipeline(name, folder / f"{name}.safetensors"))
