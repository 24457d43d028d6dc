"""Kernel distance of two sets of features: torch-fidelity's unbiased squared MMD (Bińkowski et al., 2018)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch_fidelity.metric_kid import kernel_poly, mmd2

from dcae_bench.metrics.rows import chunks, take_rows

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020

Estimate = Callable[[np.ndarray, np.ndarray], float]
"""Maps row numbers drawn from the first set and from the second set to an unbiased estimate of the squared MMD."""


@dataclass(frozen=True)
class KernelResult:
    """A kernel distance, and the facts that say how far to trust the value.

    The value may be slightly below 0 where the two sets hardly differ, because the estimate is unbiased.
    """

    value: float
    spread: float
    """Standard deviation of the estimates from the subsets."""
    images: int
    """Images in the smaller set."""
    subset_size: int
    notes: tuple[str, ...]


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> KernelResult:
    """Kernel distance of features (n, d) and (m, d). The distance of Inception features is called KID.

    The definition and defaults are torch-fidelity's: the kernel (x·y / d + 1)^3 in float32, and the mean of 100
    unbiased estimates from subsets of 1,000 features drawn with seed 2020; ``fake`` is torch-fidelity's first input.
    If a set has fewer than 1,000 features, the subsets have the smaller set's size, and the result carries a note.
    Raises ValueError for fewer than two features on a side, for features of different length, and for values that are
    not finite.
    """
    real, fake = np.asarray(real, np.float32), np.asarray(fake, np.float32)
    images = min(len(real), len(fake))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or images < 2:
        raise ValueError(
            f"a kernel distance needs two sets (n, d) of 2 feature vectors or more, got {real.shape} and {fake.shape}"
        )
    if not all(np.isfinite(part).all() for side in (real, fake) for _, part in chunks(side)):
        raise ValueError("features hold values that are not finite")
    size = min(SUBSET_SIZE, images)
    # Each subset costs three kernels of size². For sets not much larger, three kernels of the whole sets cost less.
    small = max(len(real), len(fake)) <= 2 * SUBSET_SIZE
    estimate = _from_one_kernel(fake, real) if small else _from_rows(fake, real)
    random = np.random.RandomState(SEED)
    estimates = [
        estimate(random.choice(len(fake), size, replace=False), random.choice(len(real), size, replace=False))
        for _ in range(SUBSETS)
    ]
    value, spread = float(np.mean(estimates)), float(np.std(estimates))
    notes = (f"subsets of {size} instead of {SUBSET_SIZE} images: there are no more",) if size < SUBSET_SIZE else ()
    return KernelResult(value, spread, images, size, notes)


def _from_rows(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Estimator that computes the kernels of the drawn rows of ``a`` and ``b``."""

    def estimate(i: np.ndarray, j: np.ndarray) -> float:
        x, y = take_rows(a, i), take_rows(b, j)
        return mmd2(kernel_poly(x, x), kernel_poly(x, y), kernel_poly(y, y))

    return estimate


def _from_one_kernel(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Estimator that computes the kernels of the whole sets once; each subset selects rows and columns of a kernel."""
    aa, ab, bb = kernel_poly(a, a), kernel_poly(a, b), kernel_poly(b, b)
    return lambda i, j: mmd2(aa[np.ix_(i, i)], ab[np.ix_(i, j)], bb[np.ix_(j, j)])
