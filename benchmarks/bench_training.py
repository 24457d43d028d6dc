"""Speed of a training step of the demo's autoencoders: data, forward pass, losses, backward pass, AdamW and EMA."""

import numpy as np
import pytest

from dcae_bench.data.packed import Photos
from dcae_bench.profile.profile import load_profile
from dcae_bench.training.autoencoder import PhaseRun, PhaseTrainer


@pytest.mark.benchmark(group="training step, demo")
@pytest.mark.parametrize("phase", [1, 2, 3])
@pytest.mark.parametrize("autoencoder", list(load_profile("demo").autoencoders))
def test_training_step(benchmark, tmp_path, autoencoder, phase):
    random = np.random.default_rng(0)
    photos = Photos(
        [random.integers(0, 256, (256, 320, 3), dtype=np.uint8) for _ in range(8)], [str(i) for i in range(8)]
    )
    trainer = PhaseTrainer(PhaseRun(load_profile("demo"), autoencoder, phase, photos, None, tmp_path, "benchmark"))
    benchmark.extra_info["batch_size"] = trainer.phase_spec.batch_size
    benchmark.extra_info["resolution"] = trainer.phase_spec.resolution
    benchmark.pedantic(trainer.step, rounds=5, warmup_rounds=2)
