"""Distances between two sets of features; reconstructions and generated samples are both measured by them."""

import warnings
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.metrics import intervals
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_of_statistics
from dcae_bench.records.record import Interval, Metric

MAX_PRODUCT = 1 << 24
"""Largest product of both image counts for which a distance is computed from singular values of the features."""


def use_singular_values(real: np.ndarray, fake: np.ndarray) -> bool:
    """Whether to compute a distance from singular values of the features instead of from covariances.

    True where a set has at most as many images as features, so that its covariance is singular, and both are small.
    """
    return min(len(real), len(fake)) <= real.shape[1] and len(real) * len(fake) <= MAX_PRODUCT


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of features (n, d) and (m, d) in float64.

    Covariances, or singular values of the features (:func:`use_singular_values`), give the distance. The memory that
    this function needs has a bound that does not depend on n or m.
    """
    if use_singular_values(real, fake):
        return frechet_distance(real, fake).value
    return frechet_of_statistics(FeatureStatistics.of(real), FeatureStatistics.of(fake)).value


def kernel_key(extractor: FeatureExtractor) -> str:
    """Key of a kernel distance in records, e.g. ``kid_torch_fidelity`` for the key ``fid_torch_fidelity``."""
    return f"k{extractor.key.removeprefix('f')}"


def kernel_metric(extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray) -> Metric:
    """Kernel distance of features (n, d) and (m, d), called KID only with FID's network and weights."""
    from dcae_bench.metrics.kernel import kernel_distance  # torch-fidelity takes seconds to import

    found = kernel_distance(real, fake)
    return Metric(
        label=extractor.distance.replace("FID", "KID").replace("FD", "KD"),
        value=found.value,
        better="lower",
        notes=(f"standard deviation of its subsets {found.spread:.2g}", *found.notes),
        weights_sha256=extractor.weights_sha256,
    )


def interval_for_record(interval: intervals.ConfidenceInterval) -> Interval:
    """Convert a computed interval to the type that records hold."""
    return Interval(**asdict(interval))


def as_tensor(features: np.ndarray) -> Tensor:
    """Wrap features in a tensor that shares their memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch warns of read-only arrays; nobody writes to this one
        return torch.from_numpy(features)
