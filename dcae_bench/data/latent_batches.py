"""Training batches of cached latents, read ahead, with their noise, times and dropped labels."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.keyed_random import keyed_generator
from dcae_bench.data.latents import Latents


class LatentBatch(NamedTuple):
    """One batch: latents ``x0`` (n, c, h, w), labels (n,), ``uniform`` in [0, 1) for times (n,), noise (n, c, h, w)."""

    x0: Tensor
    labels: Tensor | None
    uniform: Tensor
    noise: Tensor

    def chunk(self, count: int) -> "list[LatentBatch]":
        """Split the batch into equal parts."""
        labels: Sequence[Tensor | None] = [None] * count if self.labels is None else self.labels.chunk(count)
        fields = self.x0.chunk(count), labels, self.uniform.chunk(count), self.noise.chunk(count)
        return [LatentBatch(*part) for part in zip(*fields, strict=True)]

    def to(self, device: torch.device) -> "LatentBatch":
        """Copy the batch to a device."""
        return self.map(lambda field: field.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "LatentBatch":
        """Apply a function to every field."""
        labels = None if self.labels is None else change(self.labels)
        return LatentBatch(change(self.x0), labels, change(self.uniform), change(self.noise))


class LatentBatches:
    """Batches by the index of their first image; an epoch uses each latent once.

    A latent's noise, time and label dropout depend on the seed, the latent and the epoch alone. Batches, processes and
    denoisers do not change them, so all denoisers of the same latents see the same noise.
    """

    def __init__(
        self,
        latents: Latents,
        seed: int,
        *,
        share: int,
        stride: int,
        end: int,
        label_dropout: float = 0.0,
        pin: bool = False,
        threads: int = 1,
    ):
        """Let ``threads`` make batches of ``share`` images that start ``stride`` images apart, before ``end``.

        If the latents have classes, a share ``label_dropout`` of the labels becomes the null class. ``pin`` puts
        batches into pinned memory, so that copies to a GPU run while the GPU computes.
        """
        self._latents, self._seed, self._dropout, self._pin = latents, seed, label_dropout, pin
        self._share, self._stride, self._end = share, stride, end
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="latents")
        self._depth = threads + 1
        self._ahead: dict[int, Future[LatentBatch]] = {}
        self.waited_s = 0.0
        """Seconds that callers have waited for batches."""

    def __call__(self, first: int) -> LatentBatch:
        """Return images ``first`` to ``first + share``. Raises :class:`DataError`."""
        for start in range(first, min(first + (self._depth + 1) * self._stride, self._end), self._stride):
            if start not in self._ahead:
                self._ahead[start] = self._pool.submit(self.make, start)
        asked = time.perf_counter()
        try:
            return self._ahead.pop(first).result()
        finally:
            self.waited_s += time.perf_counter() - asked

    def make(self, first: int) -> LatentBatch:
        """Make the batch of images ``first`` to ``first + share`` without the threads. Raises :class:`DataError`."""
        count, classes = len(self._latents), self._latents.manifest.classes
        places = [divmod(index, count) for index in range(first, first + self._share)]
        rows = np.array([_epoch_order(count, self._seed, epoch)[position] for epoch, position in places])
        uniform, dropped = np.empty(self._share, np.float32), np.empty(self._share, np.bool_)
        noise = np.empty((self._share, *self._latents.manifest.shape), np.float32)
        for number, ((epoch, _), row) in enumerate(zip(places, rows, strict=True)):
            random = keyed_generator(self._seed, "denoise", int(row), epoch)
            uniform[number] = random.random(dtype=np.float32)
            dropped[number] = random.random() < self._dropout
            random.standard_normal(dtype=np.float32, out=noise[number])
        labels = None if classes is None else torch.from_numpy(np.where(dropped, classes, self._latents.labels[rows]))
        x0 = torch.from_numpy(self._latents.read(rows))
        batch = LatentBatch(x0, labels, torch.from_numpy(uniform), torch.from_numpy(noise))
        return batch.map(Tensor.pin_memory) if self._pin else batch

    def close(self) -> None:
        """Stop the threads that read ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return keyed_generator(seed, "latent order", epoch).permutation(count)
