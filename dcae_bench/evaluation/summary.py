"""From per-image values and features to the metrics of a record, each with its interval and what qualifies it."""

import warnings
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from dcae_bench.data.images import Crops
from dcae_bench.errors import DataError
from dcae_bench.evaluation.reconstruction import Measured
from dcae_bench.evaluation.suite import LPIPS_NAMES, Suite
from dcae_bench.metrics import intervals
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_of_statistics
from dcae_bench.records import Interval, Metric

CHUNK = 4096
"""Features that are turned into float64 at once."""


def summarise(measured: Measured, suite: Suite, crops: Crops, *, resamples: int, seed: int) -> dict[str, Metric]:
    """Metrics of one measured set. Raises :class:`DataError` for an average that is not finite."""
    metrics = {}
    for name in suite.protocol.distances:
        metric = _distance(name, measured, suite, crops, resamples=resamples, seed=seed)
        metrics[f"r{suite.extractors[name].key}"] = metric
    for name in suite.protocol.kernel_distances:
        key = suite.extractors[name].key
        metrics[f"k{key.removeprefix('f')}"] = _kernel_distance(name, measured, suite)
    for key in measured.value_names:
        metrics[key] = _mean(key, measured.column(key), suite)
    return metrics


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of features (n, d) in float64, in memory that does not grow with n.

    From covariances, or below full rank from singular values of the features.
    """
    if len(real) <= real.shape[1]:
        return frechet_distance(real, fake).value
    sides = FeatureStatistics(real.shape[1]), FeatureStatistics(real.shape[1])
    for features, statistics in zip((real, fake), sides, strict=True):
        for start in range(0, len(features), CHUNK):
            statistics.update(features[start : start + CHUNK])
    return frechet_of_statistics(*sides).value


def _distance(name: str, measured: Measured, suite: Suite, crops: Crops, *, resamples: int, seed: int) -> Metric:
    extractor, real, fake = suite.extractors[name], measured.real[name], measured.fake[name]
    value = frechet(real, fake)
    interval = intervals.frechet_interval(real, fake, value=value, resamples=resamples, seed=seed)
    return Metric(
        label=f"r{extractor.distance}",
        value=value,
        better="lower",
        interval=_as_record(interval),
        notes=intervals.sample_size_notes(len(crops), extractor.dim, suite.protocol.images.get(crops.name)),
        weights_sha256=extractor.weights_sha256,
    )


def _kernel_distance(name: str, measured: Measured, suite: Suite) -> Metric:
    from dcae_bench.metrics.kernel import kernel_distance  # torch-fidelity takes seconds to import

    extractor = suite.extractors[name]
    found = kernel_distance(_tensor(measured.real[name]), _tensor(measured.fake[name]))
    return Metric(
        label=extractor.distance.replace("FID", "KID").replace("FD", "KD"),
        value=found.value,
        better="lower",
        notes=(f"standard deviation of its subsets {found.spread:.2g}", *found.notes),
        weights_sha256=extractor.weights_sha256,
    )


def _mean(key: str, values: np.ndarray, suite: Suite) -> Metric:
    mean = float(np.mean(values))
    if not np.isfinite(mean):
        raise DataError(f"{key} is not finite ({mean:g}): an image was reproduced exactly, or not at all")
    interval = _as_record(intervals.mean_interval(values))
    if key == "psnr":
        return Metric(label="PSNR", value=mean, better="higher", unit="dB", interval=interval)
    if key.startswith("ssim"):
        label = "SSIM" if key == "ssim" else "SSIM (torchmetrics)"
        return Metric(label=label, value=mean, better="higher", interval=interval)
    net = key.split("_")[1]
    sha256 = suite.lpips[net].weights_sha256
    return Metric(
        label=f"LPIPS ({LPIPS_NAMES[net]})", value=mean, better="lower", interval=interval, weights_sha256=sha256
    )


def _as_record(interval: intervals.Interval) -> Interval:
    return Interval(**asdict(interval))


def _tensor(features: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the mapped file is read-only, and so is what is done with it
        return torch.from_numpy(features)
