"""Distances between two sets of kept features, as reconstructions and generated images are both measured by."""

import warnings
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from dcae_bench.metrics import intervals
from dcae_bench.metrics.features import FeatureExtractor
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_of_statistics
from dcae_bench.records import Interval, Metric

EXACT = 1 << 24
"""Up to this product of both counts, sets below full rank go through the singular values of their features."""


def exact(real: np.ndarray, fake: np.ndarray) -> bool:
    """Whether the distance of two sets is found from the features themselves: below full rank, where they are small."""
    return min(len(real), len(fake)) <= real.shape[1] and len(real) * len(fake) <= EXACT


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of features (n, d) and (m, d) in float64, in memory that does not grow with either count.

    From covariances, or below full rank from singular values of the features.
    """
    if exact(real, fake):
        return frechet_distance(real, fake).value
    return frechet_of_statistics(FeatureStatistics.of(real), FeatureStatistics.of(fake)).value


def kernel_key(extractor: FeatureExtractor) -> str:
    """Key of a kernel distance in records."""
    return f"k{extractor.key.removeprefix('f')}"


def kernel_metric(extractor: FeatureExtractor, real: np.ndarray, fake: np.ndarray) -> Metric:
    """Kernel distance of features (n, d) and (m, d): KID for Inception's with FID's weights."""
    from dcae_bench.metrics.kernel import kernel_distance  # torch-fidelity takes seconds to import

    found = kernel_distance(real, fake)
    return Metric(
        label=extractor.distance.replace("FID", "KID").replace("FD", "KD"),
        value=found.value,
        better="lower",
        notes=(f"standard deviation of its subsets {found.spread:.2g}", *found.notes),
        weights_sha256=extractor.weights_sha256,
    )


def as_record(interval: intervals.Interval) -> Interval:
    """An interval as records hold it."""
    return Interval(**asdict(interval))


def as_tensor(features: np.ndarray) -> Tensor:
    """Features as a tensor of the same memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the mapped file is read-only, and so is what is done with it
        return torch.from_numpy(features)
