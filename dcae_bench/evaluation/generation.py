"""Generated images against the images behind a denoiser's latents: one look at each, then every metric."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from dcae_bench.data.samples import ArrayImages
from dcae_bench.errors import DataError
from dcae_bench.evaluation.distances import as_record, as_tensor, exact, kernel_key, kernel_metric
from dcae_bench.evaluation.features import FeaturePass, Features
from dcae_bench.evaluation.protocols import GenerationProtocol
from dcae_bench.files import sha256_file
from dcae_bench.metrics import intervals
from dcae_bench.metrics.features import FeatureExtractor
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_from_statistics
from dcae_bench.records import Interval, Metric

MANIFOLD = 50_000
"""Reference images at most that precision and recall look at, evenly spaced: both grow with the square of counts."""


@dataclass(frozen=True)
class Gaussian:
    """A reference of which only mean (d,) and covariance (d, d) are known, as ADM publishes them."""

    name: str
    sha256: str
    mean: np.ndarray
    covariance: np.ndarray


def generation_metrics(
    protocol: GenerationProtocol,
    extractors: Mapping[str, FeatureExtractor],
    real: Features,
    fake: Features,
    batch: Gaussian | None = None,
) -> dict[str, Metric]:
    """Metrics of samples with features ``fake`` against a reference with features ``real``.

    ``batch`` is a further reference, by the protocol's network. Raises :class:`DataError` for too few images.
    """
    least = 10 if protocol.inception_score else 4
    for what, count in (("samples", len(fake[protocol.network])), ("reference images", len(real[protocol.network]))):
        if count < least:
            raise DataError(f"{count} {what} cannot be evaluated: {protocol.name} needs at least {least}")
    metrics = {}
    for name in protocol.distances:
        metrics[f"g{extractors[name].key}"] = _distance(protocol, extractors[name], real[name], fake[name])
    extractor, reals, fakes = extractors[protocol.network], real[protocol.network], fake[protocol.network]
    if batch is not None:
        metrics[f"g{extractor.key}_adm"] = _distance_to_batch(protocol, extractor, batch, fakes)
    metrics[kernel_key(extractor)] = kernel_metric(extractor, reals, fakes)
    metrics |= _precision_recall(extractor, reals, fakes)
    if protocol.inception_score:
        metrics |= _inception_score(extractor, fakes)
    return metrics


def reference_batch(path: Path, features: FeaturePass, network: str, folder: Path) -> Gaussian:
    """ADM's reference batch of a resolution: its ``mu`` and ``sigma``, else those of its images ``arr_0``.

    Raises :class:`DataError` for a file that is not such a batch.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in (("mu", "sigma") if "mu" in file else ("arr_0",))}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); get ADM's reference batch") from error
    except (ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error) as error:  # TypeError: of one .npy array
        raise DataError(f"{path}: holds neither mu and sigma nor arr_0 ({error}); get ADM's reference batch") from error
    sha256, dim = sha256_file(path), features.extractors[network].dim
    if "mu" in found:
        mean, covariance = found["mu"].astype(np.float64), found["sigma"].astype(np.float64)
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise DataError(f"{path}: mu {mean.shape} and sigma {covariance.shape} are not of {dim} features")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise DataError(f"{path}: mu or sigma holds values that are not finite; get ADM's reference batch")
        return Gaussian(path.name, sha256, mean, covariance)
    images = ArrayImages(found["arr_0"], name=str(path), sha256=sha256)
    statistics = FeatureStatistics.of(features.of_reference(images, folder / sha256[:12])[network])
    return Gaussian(path.name, sha256, statistics.mean, statistics.covariance)


def _distance(protocol: GenerationProtocol, extractor: FeatureExtractor, real, fake) -> Metric:
    if exact(real, fake):
        value = frechet_distance(real, fake).value
        influence = intervals.frechet_sample_influence_exact(real, fake)
    else:
        reference = FeatureStatistics.of(real)
        value, influence = _of_gaussian(reference.mean, reference.covariance, fake)
    return Metric(
        label=f"g{extractor.distance}",
        value=value,
        better="lower",
        interval=as_record(intervals.frechet_sample_interval(influence, value)),
        notes=intervals.sample_size_notes(min(len(real), len(fake)), extractor.dim, protocol.images),
        weights_sha256=extractor.weights_sha256,
    )


def _distance_to_batch(protocol: GenerationProtocol, extractor: FeatureExtractor, batch: Gaussian, fake) -> Metric:
    value, influence = _of_gaussian(batch.mean, batch.covariance, fake)
    notes = intervals.sample_size_notes(len(fake), extractor.dim, protocol.images)
    return Metric(
        label=f"{extractor.distance}, ADM batch",
        value=value,
        better="lower",
        interval=as_record(intervals.frechet_sample_interval(influence, value)),
        notes=(f"reference: {batch.name}, SHA-256 {batch.sha256[:12]}", *notes),
        weights_sha256=extractor.weights_sha256,
    )


def _of_gaussian(mean: np.ndarray, covariance: np.ndarray, fake: np.ndarray) -> tuple[float, np.ndarray]:
    """Fréchet distance to a Gaussian, and the influence of each image on it."""
    generated = FeatureStatistics.of(fake)
    value = frechet_from_statistics(mean, covariance, generated.mean, generated.covariance)
    return value, intervals.frechet_sample_influence(mean, covariance, fake)


def _precision_recall(extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray) -> dict[str, Metric]:
    from dcae_bench.metrics.precision_recall import precision_recall  # torch-fidelity takes seconds to import

    count, notes = len(real), ()
    if count > MANIFOLD:
        real = real[np.linspace(0, count - 1, MANIFOLD).round().astype(np.int64)]
        notes = (f"{MANIFOLD:,} of {count:,} reference images, evenly spaced",)
    if len(real) != len(fake):
        notes += (f"{len(real):,} reference images and {len(fake):,} samples: compare at equal counts",)
    found = precision_recall(as_tensor(real), as_tensor(fake))
    values = {"precision": (found.precision, len(fake)), "recall": (found.recall, len(real))}
    # Inception's torch-fidelity definition is the field's own; other networks are named.
    network = "" if extractor.key.startswith("fid_") else f" ({extractor.name})"
    suffix = extractor.key.removeprefix("fd_").removeprefix("fid_")
    return {
        f"{key}_{suffix}": Metric(
            label=f"{key}{network}",
            value=share,
            better="higher",
            interval=_of_share(share, images),
            notes=notes,
            weights_sha256=extractor.weights_sha256,
        )
        for key, (share, images) in values.items()
    }


def _of_share(share: float, images: int) -> Interval:
    found = intervals.share_interval(share, images)
    method = f"{found.method}, share of images inside a manifold that is held fixed"
    return Interval(low=found.low, high=found.high, method=method)


def _inception_score(extractor: FeatureExtractor, fake: np.ndarray) -> dict[str, Metric]:
    from dcae_bench.metrics.inception_score import SPLITS, inception_score, unbiased_logits

    found = inception_score(unbiased_logits(fake, extractor.model.classifier))
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
