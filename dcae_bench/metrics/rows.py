"""Features read a part at a time, so that what maps them from a file never holds more than that part in memory."""

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dcae_bench.files import cannot_write

ROWS = 512
"""Feature vectors that are in memory as float64 at a time."""


def parts(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Go through features (n, d) in parts (k, d) of :data:`ROWS`, each with its place."""
    for start in range(0, len(features), ROWS):
        place = slice(start, min(start + ROWS, len(features)))
        yield place, features[place]
        release(features)


def take(features: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Copy the rows ``indices`` (k,) of features (n, d)."""
    rows = np.empty((len(indices), *features.shape[1:]), features.dtype)
    # The system maps a row's neighbours too, up to the whole file for a thousand rows from everywhere.
    for start in range(0, len(indices), ROWS // 4):
        place = slice(start, start + ROWS // 4)
        rows[place] = features[indices[place]]
        release(features)
    return rows


def aside(matrix: np.ndarray) -> np.ndarray:
    """A copy of a matrix in a temporary file, mapped: what :func:`release` gives back is read again when used.

    Raises :class:`ResultsError` when there is no room for it.
    """
    if not matrix.size:  # nothing can be mapped
        return matrix
    turned = matrix.flags.f_contiguous
    rows = np.ascontiguousarray(matrix.T if turned else matrix)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(memoryview(rows).cast("B"))
            file.flush()
            mapped = np.memmap(file, rows.dtype, "r", shape=rows.shape)
    except OSError as error:
        raise cannot_write(Path(tempfile.gettempdir()), error) from error
    return mapped.T if turned else mapped


def release(features: np.ndarray) -> None:
    """Give back the memory in which a mapped file was read; the next access reads it again. Others stay as they are."""
    owner = features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
