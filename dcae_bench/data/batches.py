"""Training batches, decoded ahead by threads where photographs lie in files."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dcae_bench.data.crops import Crop, normalise, train_batch, train_crop
from dcae_bench.data.photo_sets import PhotoSet

AHEAD = 2


class TrainBatches:
    """Batches by the index of their first image; each image is a function of (seed, index), read ahead or not."""

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
        threads: int = 0,
    ):
        """Batches of ``share`` images, ``stride`` images apart, before ``end``; without ``threads`` none is read ahead.

        Pillow decodes and resizes outside of Python's lock, so threads do it beside each other and beside training.
        """
        self._photos, self._seed, self._resolution, self._crop = photos, seed, resolution, crop
        self._share, self._stride, self._end = share, stride, end
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads else None
        self._ahead: dict[int, list[Future[Tensor]]] = {}

    def __call__(self, first: int) -> Tensor:
        """Images ``first`` to ``first + share`` as float32 (share, 3, R, R). Raises :class:`DataError`."""
        if self._pool is None:
            return train_batch(self._photos, self._seed, first, self._share, self._resolution, self._crop)
        for start in range(first, min(first + (AHEAD + 1) * self._stride, self._end), self._stride):
            if start not in self._ahead:
                self._ahead[start] = [
                    self._pool.submit(train_crop, self._photos, self._seed, index, self._resolution, self._crop)
                    for index in range(start, start + self._share)
                ]
        return normalise(torch.stack([future.result() for future in self._ahead.pop(first)]))

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._ahead.clear()
