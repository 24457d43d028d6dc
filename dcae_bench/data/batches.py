"""Training batches of crops, which threads decode ahead where photographs are files."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dcae_bench.data.crops import Crop, train_batch, train_crop
from dcae_bench.data.photo_sets import PhotoSet
from dcae_bench.data.pixels import normalise

AHEAD = 2
"""Batches that threads decode while an earlier batch is in use."""


class TrainBatches:
    """Training batches by the index of their first image.

    Each image is a function of (seed, index) alone, whether threads read it ahead or not.
    """

    def __init__(
        self,
        photos: PhotoSet,
        seed: int,
        *,
        share: int,
        stride: int,
        end: int,
        resolution: int,
        crop: Crop,
        flips: bool = False,
        threads: int = 0,
    ):
        """Make batches of ``share`` images that start ``stride`` images apart; the last one starts before ``end``.

        With 0 ``threads`` nothing is read ahead. Pillow releases Python's lock while it decodes and resizes, so threads
        run beside each other and beside training.
        """
        self._drawn = (resolution, crop, flips)
        self._photos, self._seed = photos, seed
        self._share, self._stride, self._end = share, stride, end
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads else None
        self._ahead: dict[int, list[Future[Tensor]]] = {}

    def __call__(self, first: int) -> Tensor:
        """Return images ``first`` to ``first + share`` as float32 (share, 3, R, R). Raises :class:`DataError`."""
        if self._pool is None:
            return train_batch(self._photos, self._seed, first, self._share, *self._drawn)
        for start in range(first, min(first + (AHEAD + 1) * self._stride, self._end), self._stride):
            if start not in self._ahead:
                self._ahead[start] = [
                    self._pool.submit(train_crop, self._photos, self._seed, index, *self._drawn)
                    for index in range(start, start + self._share)
                ]
        return normalise(torch.stack([future.result() for future in self._ahead.pop(first)]))

    def close(self) -> None:
        """Stop the threads that read ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._ahead.clear()
