"""Summary of a measured set: the metrics of a record, each with its interval and its notes."""

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.data.images import Crops
from dcae_bench.evaluation.distances import frechet, interval_for_record, kernel_key, kernel_metric
from dcae_bench.evaluation.reconstruction import MeasuredSet
from dcae_bench.evaluation.suite import LPIPS_NAMES, Suite
from dcae_bench.metrics import intervals
from dcae_bench.records.record import Metric


def summarise(measured: MeasuredSet, suite: Suite, crops: Crops, *, resamples: int, seed: int) -> dict[str, Metric]:
    """Compute the metrics of one measured set. Raises :class:`DataError` for a value that is not finite."""
    metrics = {}
    for name in suite.protocol.distances:
        metric = _distance_metric(name, measured, suite, crops, resamples=resamples, seed=seed)
        metrics[f"r{suite.extractors[name].key}"] = metric
    for name in suite.protocol.kernel_distances:
        extractor = suite.extractors[name]
        metrics[kernel_key(extractor)] = kernel_metric(extractor, measured.real[name], measured.fake[name])
    for key in measured.value_names:
        metrics[key] = _mean_metric(key, measured.column(key), suite, crops)
    return metrics


def _distance_metric(
    name: str, measured: MeasuredSet, suite: Suite, crops: Crops, *, resamples: int, seed: int
) -> Metric:
    extractor, real, fake = suite.extractors[name], measured.real[name], measured.fake[name]
    value = frechet(real, fake)
    interval = intervals.frechet_interval(real, fake, value=value, resamples=resamples, seed=seed)
    return Metric(
        label=f"r{extractor.distance}",
        value=value,
        better="lower",
        interval=interval_for_record(interval),
        notes=intervals.sample_size_notes(len(crops), extractor.dim, suite.protocol.images.get(crops.name)),
        weights_sha256=extractor.weights_sha256,
    )


def _mean_metric(key: str, values: np.ndarray, suite: Suite, crops: Crops) -> Metric:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{crops.key(int(bad[0]))}: {key} is not finite ({values[bad[0]]:g}), as of {len(bad):,} of "
            f"{len(values):,} images: they were reproduced exactly, or not at all; check the weights"
        )
    mean = float(np.mean(values))
    interval = interval_for_record(intervals.mean_interval(values))
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
