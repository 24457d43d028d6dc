"""Reading latents for training beside the step that waits for them."""

import numpy as np
import pytest

from dcae_bench.config import load_profile
from dcae_bench.data.latent_batches import LatentBatches
from dcae_bench.data.latents import LABELS, LATENTS, MANIFEST, LatentManifest, Latents, LatentSummary
from dcae_bench.training.diffusion import DiffusionRun, DiffusionTrainer

BATCH = 64


def write(folder, shape, count, dtype, **fields):
    """A cache of random latents: what the benchmark reads is what any cache of this shape holds."""
    random = np.random.default_rng(0)
    mapped = np.lib.format.open_memmap(folder / LATENTS, "w+", dtype, (count, *shape))
    for start in range(0, count, 1024):
        mapped[start : start + 1024] = random.standard_normal((min(1024, count - start), *shape), np.float32)
    mapped.flush()
    np.save(folder / LABELS, np.arange(count) % 2)
    zeros = (0.0,) * shape[0]
    ones = (1.0,) * shape[0]
    demo = load_profile("demo")
    manifest = {
        "autoencoder": "sd-vae-f32c32",
        "weights_source": "retrained",
        "weights_sha256": "0",
        "model": demo.autoencoders["sd-vae-f32c32"].model,
        "datasets": ("photos-indoor", "photos-mixed"),
        "split": "train",
        "resolution": 128,
        "crops_sha256": "0",
        "data_sha256": "0",
        "posterior": "mean",
        "seed": 0,
        "flips": False,
        "classes": 2,
        "count": count,
        "shape": shape,
        "dtype": dtype,
        "scaling_factor": 1.0,
        "scaling": "measured",
        "statistics": LatentSummary(mean=0, rms=1, std=1, channel_mean=zeros, channel_rms=ones, channel_std=ones),
        "sha256": "0",
        "labels_sha256": "0",
        "recipe_sha256": "0",
    }
    (folder / MANIFEST).write_text(LatentManifest(**{**manifest, **fields}).model_dump_json())
    return Latents(folder)


@pytest.mark.benchmark(group="latents of ImageNet at 512 px")
@pytest.mark.parametrize(
    ("name", "shape"), [("f8", (4, 64, 64)), ("f32", (32, 16, 16)), ("f64", (128, 8, 8))], ids=["f8", "f32", "f64"]
)
def test_batches_from_disk(benchmark, tmp_path, name, shape):
    latents = write(tmp_path, shape, 16_384, "float16")
    batches = LatentBatches(latents, 0, share=BATCH, stride=BATCH, end=1 << 40, label_dropout=0.1)
    firsts = iter(range(0, 1 << 40, BATCH))
    benchmark(lambda: batches.make(next(firsts)))
    batches.close()
    benchmark.extra_info["latents_per_s"] = BATCH / benchmark.stats["mean"]


@pytest.mark.benchmark(group="training step of a denoiser, demo")
@pytest.mark.parametrize("row", ["uvit-nano-dc-ae-f32c32", "uvit-nano-dc-ae-f64c128"])
def test_training_step(benchmark, tmp_path, row):
    profile = load_profile("demo")
    plan = profile.row(row)
    latent = plan.denoiser.latent
    cache = tmp_path / "cache"
    cache.mkdir()
    fields = {"autoencoder": plan.row.source.autoencoder, "model": plan.autoencoder}
    latents = write(cache, (latent.channels, latent.side, latent.side), 1200, "float32", **fields)
    trainer = DiffusionTrainer(DiffusionRun(profile, plan, latents, None, tmp_path / "run", "benchmark"))
    benchmark.extra_info["batch_size"] = plan.training.batch_size
    benchmark.pedantic(trainer.step, rounds=20, warmup_rounds=3)
    trainer.close()
