"""Confidence intervals: how far the choice of images moves a metric (95 %), and notes on small sets of images."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from dcae_bench.metrics.factor import Factor, Float64, factorise, product_svd
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance
from dcae_bench.metrics.rows import chunks, mapped_copy

LEVEL = 0.95
QUANTILE = 1.959964
"""Standard errors on each side of a value that give a 95 % interval of a normal distribution."""

QuadraticForm = Callable[[slice, Float64], Float64]
"""Maps a chunk of images to one number (k,) each: takes the chunk's slice and its centred features (k, d)."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """An interval for the mean of a metric over other sets of images of the same kind and size."""

    low: float
    high: float
    level: float = LEVEL
    method: str = ""


def mean_interval(values: ArrayLike) -> ConfidenceInterval:
    """Interval of the mean of per-image values (n,), from a normal distribution and the sample's standard deviation.

    Raises ValueError for fewer than two values, and for values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs 2 finite values or more, got shape {values.shape}")
    mean, half = float(values.mean()), float(QUANTILE * values.std(ddof=1) / np.sqrt(len(values)))
    return ConfidenceInterval(mean - half, mean + half, method="normal, sample standard deviation over images")


def share_interval(share: float, count: int) -> ConfidenceInterval:
    """Wilson's interval of a share of ``count`` images. Its width is positive even for a share of 0 or 1.

    Raises ValueError for a share outside 0 to 1, and for no images.
    """
    from scipy.stats import binomtest  # takes a second to import

    found = binomtest(round(share * count), count).proportion_ci(LEVEL, method="wilson")
    return ConfidenceInterval(float(found.low), float(found.high), method="Wilson score")


def frechet_interval(
    real: ArrayLike, fake: ArrayLike, *, value: float | None = None, resamples: int = 0, seed: int = 0
) -> ConfidenceInterval:
    """Interval of the Fréchet distance of paired features (n, d), fp16 included: value ± 1.96 standard errors.

    ``real[i]`` and ``fake[i]`` belong to one image. ``value`` is the middle of the interval, for a distance computed
    from features of higher precision; by default the distance is computed here. The infinitesimal jackknife gives the
    standard error. With ``resamples``, that many paired bootstrap resamples give the standard error instead.

    The jackknife needs one decomposition and no random numbers, and its standard error is right even below full rank.
    Below full rank the bootstrap's standard error is up to twice too large, because a resample holds some images twice.
    The bootstrap's mean then also lies far above the distance, which rules out percentiles. Neither method accounts for
    the upward bias of a distance from few images, so compare at equal counts only.

    Raises ValueError for sets of different shape, for fewer than two images, and for values that are not finite.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    if real.shape != fake.shape or real.ndim != 2 or len(real) < 2:
        raise ValueError(
            f"an interval needs paired features (n, d) of 2 images or more, got {real.shape}, {fake.shape}"
        )
    if resamples == 1 or resamples < 0:
        raise ValueError(f"a bootstrap needs 2 resamples or more, got {resamples}")
    if value is None:
        value = frechet_distance(real, fake).value
    if resamples:
        error, method = _bootstrap_error(real, fake, resamples, seed), f"paired bootstrap, {resamples} resamples"
    else:
        influence = frechet_influence(real, fake)
        error, method = influence.std(ddof=1) / np.sqrt(len(influence)), "infinitesimal jackknife over image pairs"
    half = float(QUANTILE * error)
    return ConfidenceInterval(max(0.0, value - half), value + half, method=f"value ± 1.96 standard errors, {method}")


def frechet_influence(real: ArrayLike, fake: ArrayLike) -> Float64:
    """Influence (n,) of each image pair on the Fréchet distance of paired features (n, d), with mean 0.

    The influence is the derivative of the distance by the weight of a pair (Jaeckel, 1972). Let A and B be the centred
    features, scaled so that the covariances are A'A and B'B, and let AB' = U S V' be a singular value decomposition.
    The derivative of the cross term is half the diagonal of U S U' + V S V'. This formula needs no inverse, so it holds
    with and without full rank.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    n = len(real)
    left, right, mean_real, mean_fake = (_few_images if n <= real.shape[1] else _many_images)(real, fake)
    influence = np.empty(n)
    for (rows, of_real), (_, of_fake) in zip(chunks(real), chunks(fake), strict=True):
        a, b = of_real - mean_real, of_fake - mean_fake
        squares = (np.square(a).sum(axis=1) + np.square(b).sum(axis=1)) / (n - 1)
        influence[rows] = 2 * (a - b) @ (mean_real - mean_fake) + n * (squares - left(rows, a) - right(rows, b))
    return influence - influence.mean()


def frechet_sample_interval(influence: ArrayLike, value: float) -> ConfidenceInterval:
    """Interval of the Fréchet distance of generated images to a fixed reference: ``value`` ± 1.96 standard errors.

    ``influence`` (n,) holds the influence of each generated image, from which the infinitesimal jackknife estimates the
    standard error. The interval leaves out the bias of a distance from few images.
    """
    influence = np.asarray(influence, np.float64)
    half = float(QUANTILE * influence.std(ddof=1) / np.sqrt(len(influence)))
    method = "value ± 1.96 standard errors, infinitesimal jackknife over generated images, reference fixed"
    return ConfidenceInterval(max(0.0, value - half), value + half, method=method)


def frechet_sample_influence_from_features(real: ArrayLike, fake: ArrayLike) -> Float64:
    """Like :func:`frechet_sample_influence`, from the reference's features (m, d); cheaper below full rank."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    mean, b = real.mean(axis=0), fake - fake.mean(axis=0)
    n, scale = len(fake), np.sqrt((len(real) - 1) * (len(fake) - 1))
    _, s, v = np.linalg.svd((real - mean) @ b.T / scale, full_matrices=False)
    influence = n * (np.square(b).sum(axis=1) / (n - 1) - np.square(v.T) @ s) - 2 * b @ (mean - fake.mean(axis=0))
    return influence - influence.mean()


def frechet_sample_influence(mean: ArrayLike, covariance: ArrayLike, fake: ArrayLike) -> Float64:
    """Influence (n,) of each generated image on the Fréchet distance to the Gaussian of a reference, with mean 0.

    ``mean`` (d,) and ``covariance`` (d, d) describe the reference; ``fake`` (n, d) are the generated images' features.
    The formula has those terms of :func:`frechet_influence` that depend on the generated images.
    """
    fake, mean = np.asarray(fake), np.asarray(mean, np.float64)
    mean_fake, generated = _gaussian(fake)
    _, s, v = product_svd(factorise(np.asarray(covariance, np.float64)), generated)
    to_v = _to_vectors(generated, v)
    n, influence = len(fake), np.empty(len(fake))
    for rows, of_fake in chunks(fake):
        b = of_fake - mean_fake
        spread = np.square(b).sum(axis=1) - _weighted_squares(b @ to_v, s)
        influence[rows] = n / (n - 1) * spread - 2 * b @ (mean - mean_fake)
    return influence - influence.mean()


def sample_size_notes(images: int, dim: int, protocol_images: int | None = None) -> tuple[str, ...]:
    """Notes on a Fréchet distance of ``images`` features of ``dim`` numbers, if they are fewer than the distance needs.

    ``protocol_images`` is the number of images that the protocol asks for, None where the protocol leaves it open.
    """
    notes = []
    if images <= dim:
        notes.append(
            f"{images} images for {dim} features: the covariances are rank-deficient, the "
            "distance is computed exactly from singular values, and it is biased upwards; compare it only at equal "
            "image counts"
        )
    if protocol_images is not None and images < protocol_images:
        notes.append(
            f"{images} images instead of the protocol's {protocol_images}: a Fréchet distance grows as images fall"
        )
    return tuple(notes)


def _few_images(real: np.ndarray, fake: np.ndarray) -> tuple[QuadraticForm, QuadraticForm, Float64, Float64]:
    """Diagonals of U S U' and V S V', and both means (d,), from the n x n matrix AB'."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    mean_real, mean_fake = real.mean(axis=0), fake.mean(axis=0)
    u, s, v = np.linalg.svd((real - mean_real) @ (fake - mean_fake).T / (len(real) - 1))
    left, right = np.square(u) @ s, np.square(v.T) @ s
    return lambda rows, _: left[rows], lambda rows, _: right[rows], mean_real, mean_fake


def _many_images(real: np.ndarray, fake: np.ndarray) -> tuple[QuadraticForm, QuadraticForm, Float64, Float64]:
    """Like :func:`_few_images`, from d x d matrices and features read in chunks.

    A = Q R, where the eigenvectors of the covariance give R.
    """
    (mean_real, of_real), (mean_fake, of_fake) = _gaussian(real), _gaussian(fake)
    u, s, v = product_svd(of_real, of_fake)
    s /= len(real) - 1
    to_u, to_v = _to_vectors(of_real, u), _to_vectors(of_fake, v)
    return (
        lambda _, a: _weighted_squares(a @ to_u, s),
        lambda _, b: _weighted_squares(b @ to_v, s),
        mean_real,
        mean_fake,
    )


def _weighted_squares(coordinates: Float64, weights: Float64) -> Float64:
    """Weighted sums of squares (n,) of coordinates (n, r). Overwrites the coordinates."""
    return np.square(coordinates, out=coordinates) @ weights


def _gaussian(features: np.ndarray) -> tuple[Float64, Factor]:
    """Mean (d,) and factor of the covariance of features (n, d), read in chunks."""
    statistics = FeatureStatistics.of(features)
    found = factorise(statistics.covariance, overwrite=True)
    # The caller's singular value decomposition takes the most memory, and by then the basis is not needed.
    return statistics.mean, replace(found, basis=mapped_copy(found.basis))


def _to_vectors(side: Factor, vectors: Float64) -> Float64:
    """Matrix (d, r) that maps centred features (n, d) to singular vectors (n, r).

    ``vectors`` (k, r) are the singular vectors in the coordinates of the factor ``side``; the call overwrites them.
    """
    vectors /= side.roots[:, None]
    return side.basis @ vectors


def _bootstrap_error(real: np.ndarray, fake: np.ndarray, resamples: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        chosen = random.integers(0, len(real), len(real))
        values.append(frechet_distance(real[chosen], fake[chosen]).value)
    return float(np.std(values, ddof=1))
