"""Metrics of generated samples, computed from features of the samples and of reference images."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.evaluation.distances import (
    as_tensor,
    interval_for_record,
    kernel_key,
    kernel_metric,
    use_singular_values,
)
from dcae_bench.evaluation.features import Features
from dcae_bench.evaluation.gaussian import Gaussian
from dcae_bench.evaluation.protocols import GenerationProtocol
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.metrics import intervals
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_of_gaussians
from dcae_bench.records.record import Interval, Metric

MAX_REFERENCE_IMAGES = 50_000
"""Most reference images that precision and recall use, evenly spaced: their cost grows with the square of the count."""


class Classifier(Protocol):
    """A network that keeps the weights (classes, d) of its classifier, without bias."""

    classifier: Tensor


@runtime_checkable
class Classifying(Protocol):
    """An extractor whose network has a classifier, which the Inception Score needs."""

    model: Classifier


def require_enough(protocol: GenerationProtocol, samples: int, reference: int | None) -> None:
    """Check, before any feature is computed, that every metric has enough images; ``reference`` None: it has none.

    Raises :class:`DataError`.
    """
    least = 10 if protocol.inception_score else 4
    for what, count in (("samples", samples), ("reference images", reference)):
        if count is not None and count < least:
            raise DataError(f"{count} {what} cannot be evaluated: {protocol.name} needs at least {least}")


def generation_metrics(
    protocol: GenerationProtocol,
    extractors: Mapping[str, FeatureExtractor],
    real: Features,
    fake: Features,
    batch: Gaussian | None = None,
) -> dict[str, Metric]:
    """Metrics of samples with features ``fake`` against reference images with features ``real``.

    ``batch``, e.g. ADM's, adds a Fréchet distance to a second reference, in features of the protocol's ``network``.
    :func:`require_enough` checks the numbers of images before.
    """
    metrics = {}
    for name in protocol.distances:
        metrics[f"g{extractors[name].key}"] = _distance_metric(protocol, extractors[name], real[name], fake[name])
    extractor = extractors[protocol.network]
    if batch is not None:
        label = f"{extractor.distance}, ADM batch"
        metrics[f"g{extractor.key}_adm"] = _statistics_metric(label, protocol, extractor, batch, fake)
    metrics |= _comparison(extractor, real[protocol.network], fake[protocol.network])
    if protocol.inception_score:
        metrics |= _inception_score(protocol, extractors, fake)
    return metrics


def statistics_metrics(
    protocol: GenerationProtocol,
    extractors: Mapping[str, FeatureExtractor],
    reference: Gaussian,
    real: Features | None,
    fake: Features,
) -> dict[str, Metric]:
    """Metrics of samples against a reference that is known by its statistics.

    The only Fréchet distance is that to the statistics, by their network. ``real`` are features of the images that come
    with the statistics; without any, there are neither kernel distance nor precision and recall.
    :func:`require_enough` checks the numbers of images before.
    """
    extractor = extractors[reference.network]
    label = f"g{extractor.distance}"
    metrics = {f"g{extractor.key}": _statistics_metric(label, protocol, extractor, reference, fake)}
    if real is not None:
        metrics |= _comparison(extractors[protocol.network], real[protocol.network], fake[protocol.network])
    if protocol.inception_score:
        metrics |= _inception_score(protocol, extractors, fake)
    return metrics


def _distance_metric(
    protocol: GenerationProtocol, extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray
) -> Metric:
    if use_singular_values(real, fake):
        value = frechet_distance(real, fake).value
        influence = intervals.frechet_sample_influence_from_features(real, fake)
    else:
        reference = FeatureStatistics.of(real)
        value, influence = _distance_to_gaussian(reference.mean, reference.covariance, fake)
    return Metric(
        label=f"g{extractor.distance}",
        value=value,
        better="lower",
        interval=interval_for_record(intervals.frechet_sample_interval(influence, value)),
        notes=intervals.sample_size_notes(min(len(real), len(fake)), extractor.dim, protocol.images),
        weights_sha256=extractor.weights_sha256,
    )


def _statistics_metric(
    label: str, protocol: GenerationProtocol, extractor: FeatureExtractor, reference: Gaussian, fake: Features
) -> Metric:
    features = fake[reference.network]
    value, influence = _distance_to_gaussian(reference.mean, reference.covariance, features)
    notes = intervals.sample_size_notes(len(features), extractor.dim, protocol.images)
    return Metric(
        label=label,
        value=value,
        better="lower",
        interval=interval_for_record(intervals.frechet_sample_interval(influence, value)),
        notes=(f"reference: {reference.name}, SHA-256 {reference.sha256[:12]}", *notes),
        weights_sha256=extractor.weights_sha256,
    )


def _distance_to_gaussian(mean: np.ndarray, covariance: np.ndarray, fake: np.ndarray) -> tuple[float, np.ndarray]:
    """Fréchet distance to a Gaussian, and the influence of each sample on the distance."""
    generated = FeatureStatistics.of(fake)
    value = frechet_of_gaussians(mean, covariance, generated.mean, generated.covariance)
    return value, intervals.frechet_sample_influence(mean, covariance, fake)


def _comparison(extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray) -> dict[str, Metric]:
    """Metrics that need the features of reference images: kernel distance, precision and recall."""
    return {kernel_key(extractor): kernel_metric(extractor, real, fake)} | _precision_recall(extractor, real, fake)


def _precision_recall(extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray) -> dict[str, Metric]:
    from dcae_bench.metrics.precision_recall import precision_recall  # torch-fidelity takes seconds to import

    count = len(real)
    notes: tuple[str, ...] = ()
    if count > MAX_REFERENCE_IMAGES:
        real = real[np.linspace(0, count - 1, MAX_REFERENCE_IMAGES).round().astype(np.int64)]
        notes = (f"{MAX_REFERENCE_IMAGES:,} of {count:,} reference images, evenly spaced",)
    if len(real) != len(fake):
        notes += (f"{len(real):,} reference images and {len(fake):,} samples: compare at equal counts",)
    found = precision_recall(as_tensor(real), as_tensor(fake))
    values = {"precision": (found.precision, len(fake)), "recall": (found.recall, len(real))}
    # The field means Inception by torch-fidelity; the label names any other network.
    network = "" if extractor.key.startswith("fid_") else f" ({extractor.name})"
    suffix = extractor.key.removeprefix("fd_").removeprefix("fid_")
    return {
        f"{key}_{suffix}": Metric(
            label=f"{key}{network}",
            value=share,
            better="higher",
            interval=_share_interval(share, images),
            notes=notes,
            weights_sha256=extractor.weights_sha256,
        )
        for key, (share, images) in values.items()
    }


def _share_interval(share: float, images: int) -> Interval:
    found = intervals.share_interval(share, images)
    method = f"{found.method}, share of images inside a manifold that is held fixed"
    return Interval(low=found.low, high=found.high, method=method)


def _inception_score(
    protocol: GenerationProtocol, extractors: Mapping[str, FeatureExtractor], fake: Features
) -> dict[str, Metric]:
    extractor = extractors[protocol.network]
    if not isinstance(extractor, Classifying):
        raise ConfigError(
            f"{protocol.name}: extractor {protocol.network} has no classifier, so there is no Inception Score; "
            "choose a protocol without it"
        )
    from dcae_bench.metrics.inception_score import SPLITS, inception_score, unbiased_logits

    found = inception_score(unbiased_logits(fake[protocol.network], extractor.model.classifier))
    half = intervals.QUANTILE * found.spread / np.sqrt(SPLITS - 1)
    interval = Interval(low=found.value - half, high=found.value + half, method=f"normal, over the {SPLITS} splits")
    official = extractor.key.startswith("fid_")
    metric = Metric(
        label="IS" if official else f"IS ({extractor.name})",
        value=found.value,
        better="higher",
        interval=interval,
        notes=(f"standard deviation of its {SPLITS} splits {found.spread:.2g}",),
        weights_sha256=extractor.weights_sha256,
    )
    return {"inception_score" if official else "inception_score_other_weights": metric}
