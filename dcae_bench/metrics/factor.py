"""Factors of covariances, computed in little memory: one float64 matrix of 2,048 features fills 32 MiB."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcae_bench.metrics.rows import release_pages

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Factor:
    """A covariance (d, d) of rank k, written as F F' with F = basis · roots."""

    roots: Float64
    """Square roots (k,) of the eigenvalues that exceed the rounding error, ascending."""
    basis: Float64
    """Eigenvectors (d, k) of the same eigenvalues, as columns."""
    trace: float
    """Trace of the covariance."""


def factorise(covariance: Float64, *, overwrite: bool = False) -> Factor:
    """Factor a covariance (d, d). With ``overwrite`` the computation reuses the covariance's memory."""
    from scipy.linalg import eigh  # takes a third of a second to import

    # "evr" needs one matrix beside the given one; numpy needs four. LAPACK works in place on the transpose only.
    values, vectors = eigh(covariance.T, driver="evr", overwrite_a=overwrite, check_finite=False)
    # Eigenvalues below the rounding error of the largest one are noise, but their square roots would not be small.
    noise = max(values[-1], 0.0) * values.size * np.finfo(np.float64).eps
    first = int(np.searchsorted(values, noise, side="right"))
    return Factor(np.sqrt(values[first:]), vectors[:, first:], float(values.sum()))


def product_singular_sum(real: Factor, fake: Factor) -> float:
    """Sum the singular values of the product of two factors: Tr (C D)^1/2 for the covariances C and D."""
    from scipy.linalg import svdvals

    product = _product(real, fake)
    return float(svdvals(product.T, overwrite_a=True, check_finite=False).sum()) if product.size else 0.0


def product_svd(real: Factor, fake: Factor) -> tuple[Float64, Float64, Float64]:
    """Decompose the product of two factors of rank k and l into singular vectors and values.

    Returns U (k, r), S (r,) and V (l, r).
    """
    from scipy.linalg import svd

    product = _product(real, fake)
    if not product.size:
        return np.zeros((len(product), 0)), np.zeros(0), np.zeros((product.shape[1], 0))
    v, s, ut = svd(product.T, full_matrices=False, overwrite_a=True, check_finite=False)
    return ut.T, s, v


def _product(real: Factor, fake: Factor) -> Float64:
    product = real.basis.T @ fake.basis
    for side in (real, fake):
        release_pages(side.basis)
    product *= real.roots[:, None]
    product *= fake.roots
    return product
