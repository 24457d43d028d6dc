"""Kernel distance of two sets of features: an unbiased squared MMD (Bińkowski et al., 2018), torch-fidelity's way."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kernel_poly,
    kid_features_to_metric,
    mmd2,
)

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


@dataclass(frozen=True)
class KernelResult:
    """A kernel distance with what qualifies it. It may be slightly below 0 where the sets hardly differ."""

    value: float
    spread: float
    """Standard deviation over the subsets: how far their choice moves one subset's distance."""
    images: int  # of the smaller set
    subset_size: int
    notes: tuple[str, ...]


def kernel_distance(real: Tensor, fake: Tensor) -> KernelResult:
    """Kernel distance of features (n, d) and (m, d): KID where they are Inception's.

    torch-fidelity's definition with its defaults: the kernel (x·y / d + 1)^3, the mean of 100 unbiased estimates from
    subsets of 1,000 drawn with seed 2020, ``fake`` as its first input. Sets smaller than 1,000 give subsets of the
    smaller set's size, and a note. Computed in float32, as there. Raises ValueError for fewer than two features on a
    side, features of different length, or values that are not finite.
    """
    real, fake = real.float().cpu(), fake.float().cpu()
    images = min(len(real), len(fake))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or images < 2:
        raise ValueError(
            f"a kernel distance needs two sets (n, d) of 2 feature vectors or more, "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features hold values that are not finite")
    size = min(SUBSET_SIZE, images)
    # Each subset costs three kernels of size²; of sets not much larger, three kernels of everything are cheaper.
    small = max(len(real), len(fake)) <= 2 * SUBSET_SIZE
    value, spread = _of_one_kernel(real, fake, size) if small else _of_subsets(real, fake, size)
    notes = (f"subsets of {size} instead of {SUBSET_SIZE} images: there are no more",) if size < SUBSET_SIZE else ()
    return KernelResult(value, spread, images, size, notes)


def _of_subsets(real: Tensor, fake: Tensor, size: int) -> tuple[float, float]:
    found = kid_features_to_metric(
        fake, real, kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=SEED, kid_kernel="poly", verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def _of_one_kernel(real: Tensor, fake: Tensor, size: int) -> tuple[float, float]:
    """The same from kernels of whole sets, of which each subset takes rows and columns."""
    a, b = fake.numpy(), real.numpy()
    kernels = kernel_poly(a, a), kernel_poly(a, b), kernel_poly(b, b)
    random = np.random.RandomState(SEED)
    estimates = []
    for _ in range(SUBSETS):
        i, j = random.choice(len(a), size, replace=False), random.choice(len(b), size, replace=False)
        rows = ((i, i), (i, j), (j, j))
        estimates.append(mmd2(*(kernel[np.ix_(*chosen)] for kernel, chosen in zip(kernels, rows, strict=True))))
    return float(np.mean(estimates)), float(np.std(estimates))
