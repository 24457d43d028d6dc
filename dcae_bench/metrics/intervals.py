"""How far the choice of images moves a metric: 95 % intervals, and notes where a set is small."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from dcae_bench.metrics.factor import Factor, Float64, cross, factor
from dcae_bench.metrics.frechet import FeatureStatistics, frechet_distance
from dcae_bench.metrics.rows import aside, parts

LEVEL = 0.95
QUANTILE = 1.959964  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Interval:
    """An interval for what a metric would average over other images of the same kind and number."""

    low: float
    high: float
    level: float = LEVEL
    method: str = ""


def mean_interval(values: ArrayLike) -> Interval:
    """Interval of a mean of per-image values (n,): normal, from the sample's standard deviation.

    Raises ValueError for fewer than two values or values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs 2 finite values or more, got shape {values.shape}")
    mean, half = float(values.mean()), float(QUANTILE * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean - half, mean + half, method="normal, sample standard deviation over images")


def share_interval(share: float, count: int) -> Interval:
    """Interval of a share of ``count`` images: Wilson's, which has a width at 0 and 1 too.

    Raises ValueError for a share outside 0 to 1, or of no images.
    """
    from scipy.stats import binomtest  # takes a second to import

    found = binomtest(round(share * count), count).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high), method="Wilson score")


def frechet_interval(
    real: ArrayLike, fake: ArrayLike, *, value: float | None = None, resamples: int = 0, seed: int = 0
) -> Interval:
    """Interval of the Fréchet distance of paired features (n, d), also fp16 ones: value ± 1.96 standard errors.

    ``real[i]`` and ``fake[i]`` belong to one image. ``value`` is the distance to put in the middle where it was taken
    from features of higher precision. The standard error is the infinitesimal jackknife's, unless ``resamples`` asks
    for that many paired bootstrap resamples. The first needs one decomposition, no random numbers, and tells the
    spread of the distance rightly also below full rank; there, images that a resample holds twice make the bootstrap's
    up to twice too large, and its mean lies far above the distance, which rules out percentiles. Neither accounts for
    the upward bias of a distance from few images: compare at equal counts.

    Raises ValueError for sets of different shape, fewer than two images, or values that are not finite.
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
    return Interval(max(0.0, value - half), value + half, method=f"value ± 1.96 standard errors, {method}")


def frechet_influence(real: ArrayLike, fake: ArrayLike) -> Float64:
    """Influence (n,) of each image pair on the Fréchet distance of paired features (n, d), with mean 0.

    The derivative of the distance by the weight of a pair (Jaeckel, 1972). With centred features scaled to covariances
    A'A and B'B and the singular values S of AB' = U S V', that of the cross term is half the diagonal of
    U S U' + V S V'; it holds with and without full rank, and only singular vectors are needed, no inverse.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    n = len(real)
    left, right, mean_real, mean_fake = (_narrow if n <= real.shape[1] else _tall)(real, fake)
    influence = np.empty(n)
    for (rows, of_real), (_, of_fake) in zip(parts(real), parts(fake), strict=True):
        a, b = of_real - mean_real, of_fake - mean_fake
        squares = (np.square(a).sum(axis=1) + np.square(b).sum(axis=1)) / (n - 1)
        influence[rows] = 2 * (a - b) @ (mean_real - mean_fake) + n * (squares - left(rows, a) - right(rows, b))
    return influence - influence.mean()


def frechet_sample_interval(influence: ArrayLike, value: float) -> Interval:
    """Interval of the Fréchet distance of generated images to a reference that stays as it is.

    ``influence`` (n,) is that of each generated image. Value ± 1.96 standard errors by the infinitesimal jackknife; the
    bias of a distance from few images is not part of it.
    """
    influence = np.asarray(influence, np.float64)
    half = float(QUANTILE * influence.std(ddof=1) / np.sqrt(len(influence)))
    method = "value ± 1.96 standard errors, infinitesimal jackknife over generated images, reference fixed"
    return Interval(max(0.0, value - half), value + half, method=method)


def frechet_sample_influence_exact(real: ArrayLike, fake: ArrayLike) -> Float64:
    """What :func:`frechet_sample_influence` gives, from the reference's features (m, d); cheaper below full rank."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    mean, b = real.mean(axis=0), fake - fake.mean(axis=0)
    n, scale = len(fake), np.sqrt((len(real) - 1) * (len(fake) - 1))
    _, s, v = np.linalg.svd((real - mean) @ b.T / scale, full_matrices=False)
    influence = n * (np.square(b).sum(axis=1) / (n - 1) - np.square(v.T) @ s) - 2 * b @ (mean - fake.mean(axis=0))
    return influence - influence.mean()


def frechet_sample_influence(mean: ArrayLike, covariance: ArrayLike, fake: ArrayLike) -> Float64:
    """Influence (n,) of each generated image on the Fréchet distance to a reference's Gaussian, with mean 0.

    The terms of :func:`frechet_influence` that belong to the generated side.
    """
    fake, mean = np.asarray(fake), np.asarray(mean, np.float64)
    mean_fake, generated = _gaussian(fake)
    _, s, v = cross(factor(np.asarray(covariance, np.float64)), generated)
    to_v = _to_vectors(generated, v)
    n, influence = len(fake), np.empty(len(fake))
    for rows, of_fake in parts(fake):
        b = of_fake - mean_fake
        spread = np.square(b).sum(axis=1) - _form(b @ to_v, s)
        influence[rows] = n / (n - 1) * spread - 2 * b @ (mean - mean_fake)
    return influence - influence.mean()


def sample_size_notes(images: int, dim: int, protocol_images: int | None = None) -> tuple[str, ...]:
    """Notes for a Fréchet distance of ``images`` features of ``dim`` numbers, under a protocol with its own count."""
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


def _narrow(real, fake):
    """Diagonals of U S U' and V S V', and both means, from the n x n matrix AB'."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    mean_real, mean_fake = real.mean(axis=0), fake.mean(axis=0)
    u, s, v = np.linalg.svd((real - mean_real) @ (fake - mean_fake).T / (len(real) - 1))
    left, right = np.square(u) @ s, np.square(v.T) @ s
    return lambda rows, _: left[rows], lambda rows, _: right[rows], mean_real, mean_fake


def _tall(real, fake):
    """The same from d x d matrices, features read in chunks: A = Q R with R from the covariance's eigenvectors."""
    (mean_real, of_real), (mean_fake, of_fake) = _gaussian(real), _gaussian(fake)
    u, s, v = cross(of_real, of_fake)
    s /= len(real) - 1
    to_u, to_v = _to_vectors(of_real, u), _to_vectors(of_fake, v)
    return lambda _, a: _form(a @ to_u, s), lambda _, b: _form(b @ to_v, s), mean_real, mean_fake


def _form(coordinates: Float64, weights: Float64) -> Float64:
    """Weighted sums of squares (n,) of coordinates (n, r), which are overwritten."""
    return np.square(coordinates, out=coordinates) @ weights


def _gaussian(features) -> tuple[Float64, Factor]:
    """Mean and factor of the covariance of features (n, d), read in chunks."""
    statistics = FeatureStatistics.of(features)
    found = factor(statistics.covariance, overwrite=True)
    # The decomposition that comes next takes most memory, and needs no basis.
    return statistics.mean, replace(found, basis=aside(found.basis))


def _to_vectors(side: Factor, vectors: Float64) -> Float64:
    """What takes centred features (n, d) to singular vectors (n, r), given theirs (k, r) in terms of the factor."""
    vectors /= side.roots[:, None]
    return side.basis @ vectors


def _bootstrap_error(real, fake, resamples: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        chosen = random.integers(0, len(real), len(real))
        values.append(frechet_distance(real[chosen], fake[chosen]).value)
    return float(np.std(values, ddof=1))
