import math

import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from dcae_bench.data.pixels import to_uint8
from dcae_bench.metrics import image as module
from dcae_bench.metrics.image import STRIP, psnr, ssim, ssim_both


def pair(rng, n=3, side=32):
    a = torch.randint(0, 256, (n, 3, side, side), generator=rng, dtype=torch.uint8)
    noise = torch.randint(-20, 21, a.shape, generator=rng)
    return a, (a.int() + noise).clamp(0, 255).to(torch.uint8)


def test_rounding_to_8_bits():
    x = torch.tensor([-1.5, -1.0, -1 + 0.99 / 255, -1 + 1.01 / 255, 0.0, 1.0, 1.5])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert to_uint8(x).dtype == torch.uint8


def test_every_8_bit_value_comes_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(values.float() / 127.5 - 1), values)


def test_psnr_of_a_constant_difference():
    a = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(a, a + 1).item() == pytest.approx(48.1308, abs=5e-5)
    assert psnr(a + 10, a).item() == pytest.approx(20 * math.log10(25.5))


def test_psnr_of_equal_images_is_infinite(rng):
    a, b = pair(rng, 2)
    b[0] = a[0]
    found = psnr(a, b)
    assert found[0] == math.inf
    assert 20 < found[1] < 40


def test_psnr_is_taken_per_image(rng):
    a, b = pair(rng)
    expected = [peak_signal_noise_ratio(x.double(), y.double(), data_range=255.0) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(psnr(a, b), torch.stack(expected).double())


def test_ssim_agrees_with_scikit_image(rng):
    a, b = pair(rng)
    expected = [
        structural_similarity(
            *(image.permute(1, 2, 0).numpy() for image in images),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for images in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(a, a).tolist() == pytest.approx([1, 1, 1])


def test_ssim_agrees_with_torchmetrics_inside_the_border(rng):
    a, b = pair(rng)
    _, full = structural_similarity_index_measure(
        a.double(), b.double(), data_range=255.0, reduction="none", return_full_image=True
    )
    torch.testing.assert_close(ssim(a, b), full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (11, 40), (STRIP + 7, 24), (2 * STRIP, 16)])
def test_both_borders_are_torchmetrics(rng, size):
    a = torch.randint(0, 256, (2, 3, *size), generator=rng, dtype=torch.uint8)
    b = (a.int() + torch.randint(-20, 21, a.shape, generator=rng)).clamp(0, 255).to(torch.uint8)
    a[0, 0, : size[0] // 2] = 255  # flat regions, which need the digits
    b[0, 0, : size[0] // 2] = 254
    options = {"data_range": 255.0, "reduction": "none"}
    _, full = structural_similarity_index_measure(a.double(), b.double(), return_full_image=True, **options)
    inside, reflected = ssim_both(a, b)
    torch.testing.assert_close(inside, full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(reflected, full.mean(dim=(1, 2, 3)), rtol=1e-10, atol=1e-10)
    assert torch.equal(ssim(a, b), inside) and not torch.equal(inside, reflected)


def test_reflected_borders_are_what_torchmetrics_prints(photo_pairs):
    real, fake = photo_pairs
    theirs = structural_similarity_index_measure(fake.float(), real.float(), data_range=(0.0, 255.0), reduction="none")
    torch.testing.assert_close(ssim_both(real, fake)[1], theirs.double(), rtol=1e-5, atol=1e-5)


def test_strips_are_the_whole(rng):
    a, b = pair(rng, 1, 2 * STRIP + 9)
    x, y = (F.pad(images.float(), (5,) * 4, mode="reflect") for images in (a, b))
    torch.testing.assert_close(module._similarity(x, y), module._windows(x, y), rtol=1e-13, atol=1e-13)


def test_ssim_needs_a_whole_window():
    small = torch.zeros(1, 3, 10, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="11x11"):
        ssim(small, small)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_batches_do_not_matter(metric, rng):
    a, b = pair(rng, 5)
    alone = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(metric(a, b), alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_only_pairs_of_8_bit_images(metric, rng):
    a, b = pair(rng)
    for wrong in (b.float(), b[:1], b[:, :, :16]):
        with pytest.raises(ValueError, match="uint8"):
            metric(a, wrong)
