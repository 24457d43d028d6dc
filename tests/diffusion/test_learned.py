"""What training on each objective arrives at, where the answer is known, and what the paper's samplers make of it.

Other tests hold each objective and each sampler against the exact predictions; here the predictions are learned.
"""

import numpy as np
import pytest
import torch

from dcae_bench.base.files import sha256_file
from dcae_bench.data.latents import (
    LABELS,
    LATENTS,
    LatentManifest,
    LatentSummary,
    latents_recipe_sha256,
    write_latent_manifest,
)
from dcae_bench.diffusion.noise import SampleNoise
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.models.checkpoints import save_weights
from dcae_bench.models.denoiser_checkpoints import load_denoiser
from dcae_bench.models.zoo import build, build_denoiser
from dcae_bench.profile.profile import parse_profile
from dcae_bench.specs.diffusion import paper_sampler
from dcae_bench.training.diffusion_run import train_diffusion
from dcae_bench.weights.trained import TrainedWeights
from tests import tiny_diffusion as tiny

SPREAD = {"vp": 0.22, "learned-range": 0.12, "flow": 0.1}
"""How far deviations of samples may be off; the last steps of the 30 evaluations are coarse (see test_solvers.py)."""


def learn(process, predictor, mixture, steps=150, batch=1000):
    """Means and deviations of the mixture, begun far off and learned by gradients of the objective alone.

    ``predictor`` makes the best predictions out of a mixture: those of the true one have the least loss.
    """
    generator = torch.Generator().manual_seed(0)
    means = (mixture.means + torch.tensor([[0.5, -0.4], [0.3, 0.4], [-0.5, 0.3]])).requires_grad_()
    logs = torch.full((3,), 0.6, dtype=torch.float64).log().requires_grad_()
    optimizer = torch.optim.Adam([means, logs], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        x0 = mixture.draw(batch, generator)
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        t = process.times(torch.rand(batch, generator=generator, dtype=torch.float64))
        model = predictor(type(mixture)(means, logs.exp()))
        loss = process.loss(model, x0, t, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return type(mixture)(means.detach(), logs.exp().detach())


@pytest.mark.parametrize("name", ["vp", "learned-range", "flow"])
def test_each_objective_learns_the_mixture_and_its_sampler_gives_it_back(name, mixture, exact, as_denoiser):
    process, sampler = build_process(name), paper_sampler(name)

    def predictor(steps):
        return (lambda found: exact[name](found, steps)) if name == "learned-range" else exact[name]

    found = learn(process, predictor(getattr(process, "steps", None)), mixture)
    assert (found.means - mixture.means).abs().max() < 0.06
    assert (found.deviations / mixture.deviations - 1).abs().max() < 0.1
    steps = process.spaced(sampler.steps) if name == "learned-range" else None
    model = as_denoiser(predictor(steps)(found), mixture.classes)
    generator, labels = torch.Generator().manual_seed(2), torch.arange(1500) % 3
    x = sample(model, process, sampler, lambda: torch.randn(1500, 2, 1, 1, generator=generator), labels)
    for number in range(3):
        one = x[labels == number, :, 0, 0]
        assert (one.mean(0) - mixture.means[number]).abs().max() < 0.12
        assert (one.std(0) / mixture.deviations[number] - 1).abs().max() < SPREAD[name]


SCALE, BATCH, STEPS = 0.8, 128, 200
"""Scaling factor of the cache, and how long the network trains."""


def profile():
    """The tiny profile with an autoencoder of two channels, and one row that learns the mixture by flow matching."""
    training = {
        "process": "flow",
        "batch_size": BATCH,
        "optimizer": {"lr": 4.0e-3, "weight_decay": 0.0, "betas": [0.9, 0.99], "warmup_images": 20 * BATCH},
        "ema": {"decay": 0.98, "warmup_steps": 20},
        "checkpoint_images": BATCH * STEPS,
        "log_images": BATCH * STEPS,
        "previews": 0,
    }
    row = {"denoiser": "uvit-nano", "latent": "sd-vae@retrained", "data": "mixture", "training": "usit"}
    content = tiny.content({("autoencoders", "sd-vae", "model", "latent_channels"): 2})
    content["diffusion"] |= {
        "denoisers": {"uvit-nano": {"family": "uvit", "width": 32, "depth": 2, "heads": 2}},
        "data": {"mixture": {"datasets": ["mixture"], "resolution": 4, "labels": "folder", "classes": 3}},
        "trainings": {"usit": training},
        "rows": {"usit": {**row, "images": BATCH * STEPS}},
    }
    return parse_profile(content, "toy")


def write_cache(folder, mixture, weights_sha256):
    """A cache as ``encode`` writes it, of latents that no image is behind."""
    count, none, two = 10_000, "0" * 64, (1.0, 1.0)
    labels = torch.arange(count) % 3
    folder.mkdir()
    np.save(folder / LATENTS, mixture.draw(count, torch.Generator().manual_seed(0), labels).float().numpy())
    np.save(folder / LABELS, labels.numpy())
    manifest = LatentManifest(
        autoencoder="sd-vae",
        weights_source="retrained",
        weights_sha256=weights_sha256,
        model=profile().autoencoders["sd-vae"].model,
        datasets=("mixture",),
        split="train",
        resolution=4,
        crops_sha256=none,
        data_sha256=none,
        posterior="mean",
        seed=profile().seed,
        flips=False,
        classes=3,
        count=count,
        shape=(2, 1, 1),
        dtype="float32",
        scaling_factor=SCALE,
        scaling="measured",
        statistics=LatentSummary(mean=0, rms=1, std=1, channel_mean=two, channel_rms=two, channel_std=two),
        sha256=sha256_file(folder / LATENTS),
        labels_sha256=sha256_file(folder / LABELS),
        recipe_sha256=latents_recipe_sha256(
            profile(), "sd-vae@retrained", "mixture", crops_sha256=none, weights_sha256=weights_sha256
        ),
    )
    write_latent_manifest(manifest, folder)


def test_a_network_trained_on_cached_latents_learns_each_class(mixture, tmp_path):
    """From the cache on disk, with its scale and labels, to samples of the averaged weights."""
    wide = type(mixture)(mixture.means, torch.tensor([0.5, 0.8, 0.4], dtype=torch.float64))
    weights, output = tmp_path / "vae.safetensors", tmp_path / "row" / "model.safetensors"
    autoencoder = build(profile().autoencoders["sd-vae"].model, seed=0)
    about = TrainedWeights(kind="autoencoder", name="sd-vae")
    write_cache(tmp_path / "cache", wide, save_weights(autoencoder.state_dict(), weights, trained=about))
    paths = {"latents": tmp_path / "cache", "autoencoder": weights, "output": output, "run_dir": tmp_path / "run"}
    train_diffusion(profile(), "usit", **paths)
    plan, count = profile().row("usit"), 600
    model = build_denoiser(plan.denoiser).eval()
    load_denoiser(model, output)
    labels = torch.arange(count) % 3
    noise = SampleNoise(1, range(count), (2, 1, 1))
    x = sample(model, build_process("flow"), plan.sampler, noise, labels)[:, :, 0, 0] / SCALE
    for number in range(3):
        one = x[labels == number]
        assert (one.mean(0) - wide.means[number]).abs().max() < 0.25
        assert (one.std(0) / wide.deviations[number] - 1).abs().max() < 0.4
