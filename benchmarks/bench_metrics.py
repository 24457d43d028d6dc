"""Metrics beside the library that people use for each, on the same inputs."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from dcae_bench.metrics.features import efficientnet_lite0_extractor
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.image import ssim
from dcae_bench.metrics.lpips import LPIPS


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (8, 3, 128, 128), generator=generator, dtype=torch.uint8)
    fake = torch.randint(0, 256, (8, 3, 128, 128), generator=generator, dtype=torch.uint8)
    return real, fake


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return random.normal(size=(3000, 1280)), random.normal(0.1, 1.1, size=(3000, 1280))


@pytest.mark.benchmark(group="frechet 3000x1280")
def test_frechet_ours(benchmark, features):
    assert benchmark.pedantic(frechet_distance, args=features, rounds=3).value > 0


@pytest.mark.benchmark(group="frechet 3000x1280")
def test_frechet_sqrtm_as_in_clean_fid(benchmark, features):
    def distance(real, fake):
        a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
        root = scipy.linalg.sqrtm(a @ b).real
        return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root)

    ours = frechet_distance(*features).value
    assert benchmark.pedantic(distance, args=features, rounds=1) == pytest.approx(ours, rel=1e-6)


@pytest.mark.benchmark(group="ssim 8x3x128x128")
def test_ssim_ours(benchmark, pairs):
    benchmark(ssim, *pairs)


@pytest.mark.benchmark(group="ssim 8x3x128x128")
def test_ssim_torchmetrics(benchmark, pairs):
    real, fake = (images.float() for images in pairs)
    benchmark(structural_similarity_index_measure, fake, real, data_range=255.0)


@pytest.mark.benchmark(group="lpips-alex 8x3x128x128")
def test_lpips_ours(benchmark, pairs):
    model = LPIPS.load("alex")
    real, fake = (images.float() / 127.5 - 1 for images in pairs)
    with torch.inference_mode():
        benchmark(model, fake, real)


@pytest.mark.benchmark(group="lpips-alex 8x3x128x128")
def test_lpips_official_package(benchmark, pairs):
    import lpips

    # Random weights: the package downloads its backbone, and time does not depend on the values.
    model = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    real, fake = (images.float() / 127.5 - 1 for images in pairs)
    with torch.inference_mode():
        benchmark(model, fake, real)


def test_efficientnet_lite0_features_of_8(benchmark, pairs):
    extractor = efficientnet_lite0_extractor()
    with torch.inference_mode():
        assert benchmark(extractor, pairs[0]).shape == (8, 1280)
