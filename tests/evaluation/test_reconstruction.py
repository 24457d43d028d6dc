"""The one-pass evaluator against its parts, closed forms and itself."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dcae_bench.base.errors import DataError, ResultsError, WeightsError
from dcae_bench.base.files import cache_dir
from dcae_bench.data.pixels import normalise, to_uint8
from dcae_bench.evaluation.reconstruction import ReconstructionEvaluator, reconstructor
from dcae_bench.metrics.frechet import frechet_distance
from dcae_bench.metrics.image import psnr, ssim
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker, batches_of


class Model(nn.Module):
    """An autoencoder whose latent is the image, with a posterior of a known spread."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def encode(self, x):
        return x

    def draw(self, x, noise):
        return x + noise(x.shape[1:]) * 20 / 127.5

    def decode(self, z):
        return self.body(z)


def shift(levels):
    """Adds grey levels, plus a fraction that rounding must remove."""
    return reconstructor(Model(lambda x: x + (levels + 0.3) / 127.5), None)


def values(metrics):
    return {name: metric.value for name, metric in metrics.items()}


def test_constant_shift_has_the_closed_form_psnr_after_rounding(evaluator, crops, metrics_of, tmp_path):
    found = values(metrics_of(evaluator.measure(shift(1), crops, tmp_path / "state"), crops))
    assert found["psnr"] == pytest.approx(20 * np.log10(255), abs=1e-9)
    # Equal covariances: the distance is the squared distance of the means, 12 features moved by one grey level.
    assert found["rfd_efficientnet_lite0"] == pytest.approx(12, abs=1e-3)


def test_each_metric_is_the_mean_of_its_own_function_on_rounded_images(
    evaluator, suite, crops, images, lpips, metrics_of, tmp_path
):
    torch.manual_seed(1)
    model = nn.Conv2d(3, 3, 3, padding=1)
    found = values(metrics_of(evaluator.measure(reconstructor(Model(model), None), crops, tmp_path / "state"), crops))
    with torch.no_grad():
        fake = to_uint8(model(normalise(images)))
        perceptual = lpips(normalise(fake), normalise(images)).double().mean().item()
    assert found["psnr"] == pytest.approx(psnr(images, fake).mean().item(), abs=1e-9)
    assert found["ssim"] == pytest.approx(ssim(images, fake).mean().item(), abs=1e-9)
    assert found["lpips_alex_u8"] == pytest.approx(perceptual, rel=1e-6)
    average = suite.extractors["efficientnet-lite0"]
    distance = frechet_distance(average(images).double().numpy(), average(fake).double().numpy())
    assert found["rfd_efficientnet_lite0"] == pytest.approx(distance.value, rel=1e-9)


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 0), (3, 2), (7, 1), (20, 3)])
def test_batch_size_and_threads_change_nothing(suite, crops, batch_size, threads, tmp_path):
    whole = ReconstructionEvaluator(suite, batch_size=20).measure(shift(5), crops, tmp_path / "a")
    parts = ReconstructionEvaluator(suite, batch_size=batch_size, threads=threads).measure(
        shift(5), crops, tmp_path / "b"
    )
    # float32: convolutions of other batches add in another order.
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(parts.fake["efficientnet-lite0"], whole.fake["efficientnet-lite0"], rtol=1e-6)


def test_the_order_of_the_images_changes_nothing(evaluator, make_crops, images, metrics_of, tmp_path):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    straight, mixed = make_crops(images), make_crops(images[order])
    a = metrics_of(evaluator.measure(shift(5), straight, tmp_path / "a"), straight)
    b = metrics_of(evaluator.measure(shift(5), mixed, tmp_path / "b"), mixed)
    assert values(b) == pytest.approx(values(a), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_processes_share_every_batch_exactly_once(count):
    batches = batches_of(50, 4)
    shares = [Worker(rank, count).share(batches) for rank in range(count)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(50))


def test_every_image_is_read_once(evaluator, crops, tmp_path):
    evaluator.measure(shift(1), crops, tmp_path / "state")
    assert crops.reads == [1] * len(crops)


def test_a_killed_pass_goes_on_and_gives_the_same(evaluator, crops, make_crops, images, tmp_path):
    whole = evaluator.measure(shift(3), make_crops(images), tmp_path / "whole")

    def killed(real, indices):
        if indices.start >= 12:
            raise KeyboardInterrupt
        return shift(3)(real, indices)

    with pytest.raises(KeyboardInterrupt):
        evaluator.measure(killed, crops, tmp_path / "state")
    resumed = evaluator.measure(shift(3), crops, tmp_path / "state")
    assert crops.reads == [1] * 12 + [2] * 4 + [1] * 4
    assert resumed.speed.images == 8
    np.testing.assert_array_equal(resumed.values, whole.values)
    for side in ("real", "fake"):
        np.testing.assert_array_equal(
            getattr(resumed, side)["efficientnet-lite0"], getattr(whole, side)["efficientnet-lite0"]
        )


def test_reference_features_are_computed_once(evaluator, suite, crops, make_crops, images, tmp_path):
    average = suite.extractors["efficientnet-lite0"]
    first = evaluator.measure(shift(1), crops, tmp_path / "a")
    real = np.array(first.real["efficientnet-lite0"])
    assert average.seen == 2 * len(images)
    evaluator.forget(tmp_path / "a")
    second = evaluator.measure(shift(2), make_crops(images), tmp_path / "b")
    assert average.seen == 3 * len(images)
    np.testing.assert_array_equal(second.real["efficientnet-lite0"], real)
    other = images.clone()
    other[0, 0, 0, 0] += 1
    evaluator.measure(shift(2), make_crops(other), tmp_path / "c")
    assert average.seen == 5 * len(images)


def test_a_cut_reference_is_computed_again(evaluator, suite, crops, tmp_path):
    evaluator.measure(shift(1), crops, tmp_path / "a")
    (kept,) = (cache_dir() / "reference").glob("*.raw")
    kept.write_bytes(kept.read_bytes()[:-4])
    seen = suite.extractors["efficientnet-lite0"].seen
    evaluator.measure(shift(1), crops, tmp_path / "b")
    assert suite.extractors["efficientnet-lite0"].seen == seen + 2 * len(crops)


def test_a_mixed_up_reference_is_named_and_computed_again(evaluator, crops, make_crops, images, tmp_path, caplog):
    whole = evaluator.measure(shift(1), crops, tmp_path / "a")
    (ours,) = (cache_dir() / "reference").glob("*.raw")
    evaluator.measure(shift(1), make_crops(images.flip(-1)), tmp_path / "b")
    (theirs,) = set((cache_dir() / "reference").glob("*.raw")) - {ours}
    ours.write_bytes(theirs.read_bytes())
    found = evaluator.measure(shift(1), make_crops(images), tmp_path / "c")
    assert f"{ours.name}: does not hold the features of memory eval 64 px" in caplog.text
    np.testing.assert_array_equal(found.real["efficientnet-lite0"], whole.real["efficientnet-lite0"])
    assert ours.read_bytes() != theirs.read_bytes(), "kept again"


def test_a_pass_goes_on_without_the_reference_it_began_with(evaluator, crops, tmp_path):
    whole = evaluator.measure(shift(1), crops, tmp_path / "a")

    def killed(real, indices):
        if indices.start >= 12:
            raise KeyboardInterrupt
        return shift(1)(real, indices)

    with pytest.raises(KeyboardInterrupt):
        evaluator.measure(killed, crops, tmp_path / "b")
    (kept,) = (cache_dir() / "reference").glob("*.raw")
    kept.unlink()
    resumed = evaluator.measure(shift(1), crops, tmp_path / "b")
    np.testing.assert_array_equal(resumed.real["efficientnet-lite0"], whole.real["efficientnet-lite0"])


def test_references_are_left_alone_where_asked_for(suite, crops, tmp_path):
    average = suite.extractors["efficientnet-lite0"]
    for turn in (1, 2):
        ReconstructionEvaluator(suite, batch_size=4, use_cache=False).measure(shift(1), crops, tmp_path / str(turn))
        assert average.seen == 2 * turn * len(crops)
    assert not (cache_dir() / "reference").exists()


def test_a_cache_that_cannot_be_written_only_costs_time(evaluator, crops, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCAE_BENCH_CACHE", str(tmp_path / "file"))
    measured = evaluator.measure(shift(1), crops, tmp_path / "a")
    assert np.isfinite(measured.real["efficientnet-lite0"]).all()
    assert "computed again next time" in caplog.text


def test_draws_belong_to_images_and_not_to_batches(images, monkeypatch):
    def noise(indices, shape):
        generators = [torch.Generator().manual_seed(index) for index in indices]
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    reconstruct = reconstructor(Model(lambda z: z), noise)
    whole = reconstruct(images[:6], range(6))
    parts = [reconstruct(images[a:b], range(a, b)) for a, b in ((0, 1), (1, 4), (4, 6))]
    assert (torch.cat(parts) == whole).all()
    assert (whole != images[:6]).float().mean() > 0.9
    monkeypatch.setattr("dcae_bench.evaluation.reconstruction.images_at_once", lambda side: 4)
    assert (reconstruct(images[:6], range(6)) == whole).all()


def test_too_few_images_for_the_features_is_said_in_the_metric(evaluator, make_crops, images, metrics_of, tmp_path):
    few, enough = make_crops(images[:6]), make_crops(images)
    found = metrics_of(evaluator.measure(shift(1), few, tmp_path / "a"), few)["rfd_efficientnet_lite0"]
    assert "6 images for 12 features" in found.notes[0]
    found = metrics_of(evaluator.measure(shift(1), enough, tmp_path / "b"), enough)["rfd_efficientnet_lite0"]
    assert found.notes == ()


def test_a_single_image_is_refused(evaluator, make_crops, images, tmp_path):
    with pytest.raises(DataError, match="at least 2"):
        evaluator.measure(shift(1), make_crops(images[:1]), tmp_path / "state")


@pytest.mark.parametrize("exact", [1, 18, 19])
def test_images_reproduced_exactly_are_left_out_of_the_mean(evaluator, crops, metrics_of, tmp_path, exact):
    """A white page among photographs has no PSNR; the other images keep theirs."""

    def reconstruct(real, indices):
        return torch.where(torch.tensor([index < exact for index in indices]).view(-1, 1, 1, 1), real, real ^ 1)

    found = metrics_of(evaluator.measure(reconstruct, crops, tmp_path / "state"), crops)["psnr"]
    assert found.value == pytest.approx(20 * math.log10(255))  # every pixel of the others is off by one
    assert found.notes == (f"mean over {20 - exact} of 20 images: {exact} reproduced exactly",)
    assert (found.interval is None) == (exact == 19)


def test_an_exact_copy_has_no_psnr_and_keeps_its_other_metrics(evaluator, crops, metrics_of, tmp_path):
    found = metrics_of(evaluator.measure(lambda real, indices: real, crops, tmp_path / "state"), crops)
    assert "psnr" not in found and found["ssim"].value == pytest.approx(1)
    assert all("no psnr: every image was reproduced exactly" in metric.notes for metric in found.values())


def test_values_that_are_no_numbers_name_the_image(evaluator, crops, tmp_path, monkeypatch):
    broken = torch.zeros(4, 3, dtype=torch.float64)
    broken[2, 1] = torch.nan
    monkeypatch.setattr(evaluator.suite, "values", lambda real, fake: broken)
    with pytest.raises(DataError, match=r"image-2: the metrics are not numbers \(psnr 0, ssim nan"):
        evaluator.measure(shift(1), crops, tmp_path / "state")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_reconstructions_that_are_not_finite_are_refused_where_8_bits_would_hide_them(
    evaluator, crops, images, tmp_path, value
):
    def body(z):
        return torch.where((normalise(images[6:7]) == z).flatten(1).all(dim=1).view(-1, 1, 1, 1), value, z)

    with pytest.raises(WeightsError, match="image 6: its reconstruction holds values that are not finite"):
        evaluator.measure(reconstructor(Model(body), None), crops, tmp_path / "state")


def test_a_full_disk_is_one_error(evaluator, crops, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ResultsError, match=r"cannot be written \(No space left on device\); free some space"):
        evaluator.measure(shift(1), crops, tmp_path / "state")


def test_means_carry_an_interval_around_them(evaluator, crops, metrics_of, tmp_path):
    torch.manual_seed(2)
    conv = reconstructor(Model(nn.Conv2d(3, 3, 3, padding=1)), None)
    for metric in metrics_of(evaluator.measure(conv, crops, tmp_path / "state"), crops, resamples=20).values():
        assert metric.interval.low < metric.value < metric.interval.high
        assert metric.interval.level == 0.95


def test_tf32_is_pinned_and_given_back():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with pinned(tf32=not before[0]):
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (not before[0], False)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
