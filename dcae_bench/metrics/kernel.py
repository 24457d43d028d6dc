"""Kernel distance of two sets of features: an unbiased squared MMD (Bińkowski et al., 2018), torch-fidelity's way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch_fidelity.metric_kid import kernel_poly, mmd2

from dcae_bench.metrics.rows import parts, take

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020

Estimate = Callable[[np.ndarray, np.ndarray], float]
"""From drawn rows of the first set and of the second to an unbiased estimate of the squared MMD."""


@dataclass(frozen=True)
class KernelResult:
    """A kernel distance with what qualifies it. It may be slightly below 0 where the sets hardly differ."""

    value: float
    spread: float
    """Standard deviation over the subsets: how far their choice moves one subset's distance."""
    images: int  # of the smaller set
    subset_size: int
    notes: tuple[str, ...]


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> KernelResult:
    """Kernel distance of features (n, d) and (m, d): KID where they are Inception's.

    torch-fidelity's definition with its defaults: the kernel (x·y / d + 1)^3, the mean of 100 unbiased estimates from
    subsets of 1,000 drawn with seed 2020, ``fake`` as its first input. Sets smaller than 1,000 give subsets of the
    smaller set's size, and a note. Computed in float32, as there. Raises ValueError for fewer than two features on a
    side, features of different length, or values that are not finite.
    """
    real, fake = np.asarray(real, np.float32), np.asarray(fake, np.float32)
    images = min(len(real), len(fake))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or images < 2:
        raise ValueError(
            f"a kernel distance needs two sets (n, d) of 2 feature vectors or more, got {real.shape} and {fake.shape}"
        )
    if not all(np.isfinite(part).all() for side in (real, fake) for _, part in parts(side)):
        raise ValueError("features hold values that are not finite")
    size = min(SUBSET_SIZE, images)
    # Each subset costs three kernels of size²; of sets not much larger, three kernels of everything are cheaper.
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
    """Estimates from kernels of the drawn rows."""

    def estimate(i: np.ndarray, j: np.ndarray) -> float:
        x, y = take(a, i), take(b, j)
        return mmd2(kernel_poly(x, x), kernel_poly(x, y), kernel_poly(y, y))

    return estimate


def _from_one_kernel(a: np.ndarray, b: np.ndarray) -> Estimate:
    """The same from kernels of whole sets, of which each subset takes rows and columns."""
    aa, ab, bb = kernel_poly(a, a), kernel_poly(a, b), kernel_poly(b, b)
    return lambda i, j: mmd2(aa[np.ix_(i, i)], ab[np.ix_(i, j)], bb[np.ix_(j, j)])
