"""The one-pass evaluator against its parts, closed forms and itself."""

import numpy as np
import pytest
import torch
from torch import nn

from dcae_bench.data.crops import normalise
from dcae_bench.errors import DataError
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.image import psnr, ssim, to_uint8
from dcae_bench.metrics.lpips import LPIPS


class Average:
    """A cheap extractor: mean colours of a 2x2 grid, 12 numbers per image."""

    name, dim, weights_sha256 = "average", 12, "0" * 64

    def __call__(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class Shift(nn.Module):
    """Adds a constant number of grey levels, plus a fraction that rounding must remove."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        return x + (self.levels + 0.3) / 127.5


@pytest.fixture(scope="module")
def lpips():
    torch.manual_seed(0)
    return LPIPS("alex")


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(10, 240, (20, 3, 64, 64), dtype=np.uint8))


def evaluator(lpips, batch_size=4):
    return ReconstructionEvaluator(Average(), lpips, batch_size=batch_size, device=torch.device("cpu"))


def values(measured):
    return {name: metric.value for name, metric in measured.metrics.items()}


def test_constant_shift_has_the_closed_form_psnr_after_rounding(lpips, images):
    measured = values(evaluator(lpips).measure(Shift(1), images, samples=2))
    assert measured["psnr"] == pytest.approx(20 * np.log10(255), abs=1e-9)
    # Equal covariances: the distance is the squared distance of the means, 12 features moved by one grey level.
    assert measured["rfd_efficientnet_lite0"] == pytest.approx(12, abs=1e-3)


def test_each_metric_is_the_mean_of_its_own_function_on_rounded_images(lpips, images):
    torch.manual_seed(1)
    model = nn.Conv2d(3, 3, 3, padding=1)
    measured = values(evaluator(lpips).measure(model, images, samples=2))
    with torch.no_grad():
        fake = to_uint8(model(normalise(images)))
        perceptual = lpips(normalise(fake), normalise(images)).double().mean().item()
    assert measured["psnr"] == pytest.approx(psnr(images, fake).mean().item(), abs=1e-9)
    assert measured["ssim"] == pytest.approx(ssim(images, fake).mean().item(), abs=1e-9)
    assert measured["lpips_alex_u8"] == pytest.approx(perceptual, rel=1e-6)
    distance = frechet_distance(Average()(images).double().numpy(), Average()(fake).double().numpy())
    assert measured["rfd_efficientnet_lite0"] == pytest.approx(distance.value, rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_results_do_not_depend_on_the_batch_size(lpips, images, batch_size):
    whole = values(evaluator(lpips, 20).measure(Shift(5), images, samples=3))
    parts = values(evaluator(lpips, batch_size).measure(Shift(5), images, samples=3))
    assert parts == pytest.approx(whole, rel=1e-4)  # float32: convolutions of other batches add in another order


def test_samples_are_the_first_originals_and_their_reconstructions(lpips, images):
    samples = evaluator(lpips, 4).measure(Shift(2), images, samples=6).samples
    assert samples.shape == (6, 2, 64, 64, 3) and samples.dtype == np.uint8
    assert (samples[:, 0] == images[:6].permute(0, 2, 3, 1).numpy()).all()
    assert (samples[:, 1].astype(int) - samples[:, 0] == 2).all()


def test_too_few_images_for_the_features_is_said_in_the_metric(lpips, images):
    few = evaluator(lpips).measure(Shift(1), images[:6], samples=1).metrics["rfd_efficientnet_lite0"]
    enough = evaluator(lpips).measure(Shift(1), images, samples=1).metrics["rfd_efficientnet_lite0"]
    assert "6 images for 12 features" in few.notes[0]
    assert enough.notes == ()


def test_the_embedded_distance_is_never_called_fid(lpips, images):
    labels = [m.label for m in evaluator(lpips).measure(Shift(1), images, samples=1).metrics.values()]
    assert "rFD (EfficientNet-Lite0)" in labels
    assert not any("FID" in label for label in labels)


def test_a_single_image_is_refused(lpips, images):
    with pytest.raises(DataError, match="at least 2"):
        evaluator(lpips).measure(Shift(1), images[:1], samples=1)


def test_an_exact_copy_has_no_finite_psnr_and_is_refused(lpips, images):
    with pytest.raises(DataError, match="psnr inf"):
        evaluator(lpips).measure(nn.Identity(), images, samples=1)
