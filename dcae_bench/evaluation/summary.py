"""Summary of a measured set: the metrics of a record, each with its interval and its notes."""

from typing import Any

import numpy as np

from dcae_bench.base.errors import DataError
from dcae_bench.data.images import Crops
from dcae_bench.evaluation.distances import frechet, interval_for_record, kernel_key, kernel_metric
from dcae_bench.evaluation.reconstruction import MeasuredSet
from dcae_bench.evaluation.suite import LPIPS_NAMES, Suite
from dcae_bench.metrics import intervals
from dcae_bench.records.record import Metric


def summarise(measured: MeasuredSet, suite: Suite, crops: Crops, *, resamples: int, seed: int) -> dict[str, Metric]:
    """Compute the metrics of one measured set.

    A mean leaves out images that were reproduced exactly and therefore have no finite value, and its notes say so. A
    metric without any finite value is left out, and the notes of the others say so. Raises :class:`DataError` for NaN.
    """
    metrics = {}
    for name in suite.protocol.distances:
        metric = _distance_metric(name, measured, suite, crops, resamples=resamples, seed=seed)
        metrics[f"r{suite.extractors[name].key}"] = metric
    for name in suite.protocol.kernel_distances:
        extractor = suite.extractors[name]
        metrics[kernel_key(extractor)] = kernel_metric(extractor, measured.real[name], measured.fake[name])
    missing = []
    for key in measured.value_names:
        values = measured.column(key)
        if np.isfinite(values).any() or np.isnan(values).any():
            metrics[key] = _mean_metric(key, values, suite, crops)
        else:
            missing.append(key)
    if missing:
        note = f"no {' and no '.join(missing)}: every image was reproduced exactly"
        metrics = {key: metric.model_copy(update={"notes": (*metric.notes, note)}) for key, metric in metrics.items()}
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
    bad = np.flatnonzero(np.isnan(values) | np.isneginf(values))
    if len(bad):
        raise DataError(
            f"{crops.key(int(bad[0]))}: {key} is {values[bad[0]]:g}, as of {len(bad):,} of {len(values):,} images; "
            "check the weights"
        )
    finite = values[np.isfinite(values)]
    exact = len(values) - len(finite)
    note = f"mean over {len(finite):,} of {len(values):,} images: {exact:,} reproduced exactly"
    found: dict[str, Any] = {
        "value": float(np.mean(finite)),
        "interval": interval_for_record(intervals.mean_interval(finite)) if len(finite) > 1 else None,
        "notes": (note,) if exact else (),
    }
    if key == "psnr":
        return Metric(label="PSNR", better="higher", unit="dB", **found)
    if key.startswith("ssim"):
        return Metric(label="SSIM" if key == "ssim" else "SSIM (torchmetrics)", better="higher", **found)
    net = key.split("_")[1]
    sha256 = suite.lpips[net].weights_sha256
    return Metric(label=f"LPIPS ({LPIPS_NAMES[net]})", better="lower", weights_sha256=sha256, **found)
