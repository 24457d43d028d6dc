"""Training batches of cached latents, read ahead, with all that chance adds to them."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcae_bench.data.latents import Latents
from dcae_bench.keyed_random import keyed


class LatentBatch(NamedTuple):
    """Latents (n, c, h, w), labels (n,), numbers in [0, 1) for times (n,), and noise (n, c, h, w)."""

    x0: Tensor
    labels: Tensor | None
    uniform: Tensor
    noise: Tensor

    def chunk(self, count: int) -> "list[LatentBatch]":
        """The batch in equal parts."""
        parts = [[None] * count if field is None else field.chunk(count) for field in self]
        return [LatentBatch(*part) for part in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> "LatentBatch":
        """The batch on a device."""
        return LatentBatch(*(None if field is None else field.to(device, non_blocking=True) for field in self))


class LatentBatches:
    """Batches by the index of their first image.

    What an image meets depends on seed, latent and epoch alone: neither on the batch, nor on the process, nor on the
    denoiser, so that every denoiser of some latents sees the same noise. Each latent is used once in an epoch.
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
        """Batches of ``share`` images, ``stride`` images apart, before ``end``, made ahead by ``threads``.

        A share ``label_dropout`` of the labels becomes the null class, if the latents have classes. ``pin`` makes
        copies to a GPU run beside its work.
        """
        self._latents, self._seed, self._dropout, self._pin = latents, seed, label_dropout, pin
        self._share, self._stride, self._end = share, stride, end
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="latents")
        self._depth = threads + 1
        self._ahead: dict[int, Future[LatentBatch]] = {}
        self.waited_s = 0.0
        """Seconds in which a batch was asked for and not there yet."""

    def __call__(self, first: int) -> LatentBatch:
        """Images ``first`` to ``first + share``. Raises :class:`DataError`."""
        for start in range(first, min(first + (self._depth + 1) * self._stride, self._end), self._stride):
            if start not in self._ahead:
                self._ahead[start] = self._pool.submit(self.make, start)
        asked = time.perf_counter()
        try:
            return self._ahead.pop(first).result()
        finally:
            self.waited_s += time.perf_counter() - asked

    def make(self, first: int) -> LatentBatch:
        """The same without reading ahead."""
        count, classes = len(self._latents), self._latents.manifest.classes
        places = [divmod(index, count) for index in range(first, first + self._share)]
        rows = np.array([_order(count, self._seed, epoch)[position] for epoch, position in places])
        uniform, dropped = np.empty(self._share, np.float32), np.empty(self._share, np.bool_)
        noise = np.empty((self._share, *self._latents.manifest.shape), np.float32)
        for number, ((epoch, _), row) in enumerate(zip(places, rows, strict=True)):
            random = keyed(self._seed, "denoise", int(row), epoch)
            uniform[number] = random.random(dtype=np.float32)
            dropped[number] = random.random() < self._dropout
            random.standard_normal(dtype=np.float32, out=noise[number])
        labels = None if classes is None else np.where(dropped, classes, self._latents.labels[rows])
        fields = (self._latents.read(rows), labels, uniform, noise)
        batch = LatentBatch(*(None if field is None else torch.from_numpy(field) for field in fields))
        return LatentBatch(*(f if f is None else f.pin_memory() for f in batch)) if self._pin else batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return keyed(seed, "latent order", epoch).permutation(count)
