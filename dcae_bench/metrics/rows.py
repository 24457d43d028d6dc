"""Rows of features, read a chunk at a time: an array that maps a file never holds more than one chunk in memory."""

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dcae_bench.base.files import cannot_write

ROWS = 512
"""Feature vectors in a chunk."""


def chunks(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield features (n, d) in chunks (k, d) of up to :data:`ROWS` rows, each with its slice of the rows."""
    for start in range(0, len(features), ROWS):
        place = slice(start, min(start + ROWS, len(features)))
        yield place, features[place]
        release_pages(features)


def take_rows(features: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Copy the rows ``indices`` (k,) of features (n, d)."""
    rows = np.empty((len(indices), *features.shape[1:]), features.dtype)
    # The system also maps the neighbours of a row. A thousand scattered rows could bring in the whole file.
    for start in range(0, len(indices), ROWS // 4):
        place = slice(start, start + ROWS // 4)
        rows[place] = features[indices[place]]
        release_pages(features)
    return rows


def mapped_copy(matrix: np.ndarray) -> np.ndarray:
    """Copy a matrix into a temporary file and map the file; :func:`release_pages` can then free the copy's memory.

    Raises :class:`ResultsError` when the file cannot be written.
    """
    if not matrix.size:  # an empty file cannot be mapped
        return matrix
    turned = matrix.flags.f_contiguous
    rows = np.ascontiguousarray(matrix.T if turned else matrix)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(rows.data.cast("B"))
            file.flush()
            mapped = np.memmap(file, rows.dtype, "r", shape=rows.shape)
    except OSError as error:
        raise cannot_write(Path(tempfile.gettempdir()), error) from error
    return mapped.T if turned else mapped


def release_pages(features: np.ndarray) -> None:
    """Free the memory of an array that maps a file; the next access reads the file again. Leave other arrays alone."""
    owner: object = features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
