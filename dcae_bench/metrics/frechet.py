"""Fréchet distance of two sets of features, each set taken as a Gaussian (Heusel et al., 2017, equation 6)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from dcae_bench.metrics.factor import Factor, Float64, factorise, product_singular_sum
from dcae_bench.metrics.rows import chunks


@dataclass(frozen=True)
class FrechetResult:
    """A Fréchet distance, and the facts that say how far to trust the value."""

    value: float
    images: int
    """Images in the smaller set."""
    dim: int
    rank_deficient: bool
    """Whether there are fewer than dim + 1 images. The covariance then lacks full rank: a strongly biased distance."""


class FeatureStatistics:
    """Running mean and covariance, in float64, of features that arrive in batches."""

    def __init__(self, dim: int):
        """Start empty, for features of ``dim`` numbers each."""
        self.count = 0
        self._shift: Float64 | None = None
        self._sum = np.zeros(dim)
        self._products = np.zeros((dim, dim))

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Compute the statistics of features (n, dim), in memory that does not grow with n."""
        statistics = cls(features.shape[1])
        for _, part in chunks(features):
            statistics.update(part)
        return statistics

    def update(self, features: ArrayLike) -> None:
        """Add features (n, dim)."""
        batch = _matrix(features, self._sum.size)
        if not len(batch):
            return
        if self._shift is None:
            # A large common mean would cost digits, so the sums hold differences from a typical vector.
            self._shift = batch.mean(axis=0)
        batch = batch - self._shift
        self.count += len(batch)
        self._sum += batch.sum(axis=0)
        self._products += batch.T @ batch

    def merge(self, other: "FeatureStatistics") -> None:
        """Add all features that ``other`` has seen. The order of merges changes only rounding.

        Raises ValueError when the features of ``other`` have another length.
        """
        if other._sum.size != self._sum.size:
            raise ValueError(
                f"features have {self._sum.size} and {other._sum.size} numbers; use one extractor for both"
            )
        if other._shift is None:
            return
        if self._shift is None:
            self._shift = other._shift
        step = other._shift - self._shift
        across = np.outer(other._sum, step)
        self.count += other.count
        self._sum += other._sum + other.count * step
        self._products += other._products + across + across.T + other.count * np.outer(step, step)

    @property
    def mean(self) -> Float64:
        """Mean (dim,) of the added features. Raises ValueError when no features were added."""
        if self._shift is None:
            raise ValueError("no features were added")
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> Float64:
        """Unbiased covariance (dim, dim). Raises ValueError for fewer than two features."""
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 feature vectors, got {self.count}")
        found = np.outer(self._sum, self._sum)
        found /= self.count
        np.subtract(self._products, found, out=found)
        found /= self.count - 1
        return found


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> FrechetResult:
    """Fréchet distance of features (n, d) and (m, d), in float64 with unbiased covariances.

    The distance is exact even for sets smaller than d, where the usual matrix square root fails. Raises ValueError for
    fewer than two features on a side, for features of different length, and for values that are not finite.
    """
    real, fake = _matrix(real), _matrix(fake)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features have {real.shape[1]} and {fake.shape[1]} numbers; use one extractor for both")
    images, dim = min(len(real), len(fake)), real.shape[1]
    if images < 2:
        raise ValueError(f"a Fréchet distance needs 2 feature vectors on each side, got {images}")
    if images <= dim:
        a, b = _scaled_deviations(real), _scaled_deviations(fake)
        # With covariances A'A and B'B, Tr (A'A B'B)^1/2 is the sum of the singular values of AB' (n x m).
        cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        value = _from_terms(real.mean(axis=0) - fake.mean(axis=0), np.square(a).sum(), np.square(b).sum(), cross)
    else:
        value = frechet_of_gaussians(
            real.mean(axis=0), np.cov(real, rowvar=False), fake.mean(axis=0), np.cov(fake, rowvar=False)
        )
    return FrechetResult(value, images, dim, rank_deficient=images <= dim)


def frechet_of_statistics(real: FeatureStatistics, fake: FeatureStatistics) -> FrechetResult:
    """Fréchet distance of two running statistics, in float64; equals :func:`frechet_distance` of the same features.

    Where the covariances lack full rank, keep the features and call :func:`frechet_distance`, which loses fewer digits.
    Raises ValueError for fewer than two features on a side, and for features of different length.
    """
    images, dim = min(real.count, fake.count), real.mean.size
    if fake.mean.size != dim:
        raise ValueError(f"features have {dim} and {fake.mean.size} numbers; use one extractor for both")
    factors = (factorise(side.covariance, overwrite=True) for side in (real, fake))
    return FrechetResult(_distance(real.mean - fake.mean, *factors), images, dim, rank_deficient=images <= dim)


def frechet_of_gaussians(mean1: ArrayLike, covariance1: ArrayLike, mean2: ArrayLike, covariance2: ArrayLike) -> float:
    """Fréchet distance of two Gaussians, given by means (d,) and covariances (d, d), in float64.

    Raises ValueError when the shapes of the statistics do not match.
    """
    mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    dim = mean1.size
    covariance1, covariance2 = (
        np.asarray(c, np.float64).reshape(1, 1) if dim == 1 else np.asarray(c, np.float64)
        for c in (covariance1, covariance2)
    )
    if mean1.shape != mean2.shape or covariance1.shape != (dim, dim) or covariance2.shape != (dim, dim):
        raise ValueError(
            f"statistics do not fit: means {mean1.shape} and {mean2.shape}, "
            f"covariances {covariance1.shape} and {covariance2.shape}"
        )
    return _distance(mean1 - mean2, factorise(covariance1), factorise(covariance2))


def _distance(difference: Float64, real: Factor, fake: Factor) -> float:
    return _from_terms(difference, real.trace, fake.trace, product_singular_sum(real, fake))


def _from_terms(difference: Float64, trace1: float, trace2: float, cross: float) -> float:
    # Rounding may push a distance of exactly 0 below 0.
    return max(0.0, float(difference @ difference + trace1 + trace2 - 2 * cross))


def _scaled_deviations(features: Float64) -> Float64:
    return (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)


def _matrix(features: ArrayLike, dim: int | None = None) -> Float64:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or (dim is not None and matrix.shape[1] != dim):
        raise ValueError(f"features must have shape (n, {dim or 'd'}), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("features hold values that are not finite")
    return matrix
