"""Features read a part at a time, so that what maps them from a file never holds more than that part in memory."""

import mmap
from collections.abc import Iterator

import numpy as np

ROWS = 1024
"""Feature vectors that are in memory as float64 at a time."""


def parts(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Go through features (n, d) in parts (k, d) of :data:`ROWS`, each with its place."""
    for start in range(0, len(features), ROWS):
        place = slice(start, min(start + ROWS, len(features)))
        yield place, features[place]
        release(features)


def take(features: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Copy the rows ``indices`` (k,) of features (n, d)."""
    rows = features[indices]
    release(features)
    return rows


def release(features: np.ndarray) -> None:
    """Give back the memory in which a mapped file was read; the next access reads it again. Others stay as they are."""
    owner = features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
