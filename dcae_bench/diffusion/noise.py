"""Random numbers of sampling: keyed by sample, or as the authors draw them on eight GPUs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dcae_bench.keyed_random import digest, keyed

PAPER_RANKS = 8
PAPER_BATCH = 64


class Noise(Protocol):
    """A source of standard normal numbers for a batch of samples."""

    def __call__(self) -> Tensor:
        """Draw the next (n, c, h, w) in float32: the start, then one for each step that needs noise."""


class SampleNoise:
    """Noise of samples by index: each has a stream of its own, so that it does not depend on those beside it.

    The numbers are drawn on the CPU (Philox), which makes them the same for every device, batch size and world size.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self._streams = [keyed(seed, index, "sample") for index in indices]
        self._shape = tuple(shape)
        self._device = device

    def __call__(self) -> Tensor:
        """Draw the next numbers of every sample."""
        drawn = np.empty((len(self._streams), *self._shape), np.float32)
        for stream, out in zip(self._streams, drawn, strict=True):
            stream.standard_normal(dtype=np.float32, out=out)
        return torch.from_numpy(drawn).to(self._device)


@dataclass(frozen=True)
class PaperBatch:
    """One batch of one of the authors' ranks."""

    rank: int
    indices: range
    """Of the samples; those past the count repeat the first ones, where the ranks do not divide the count."""
    noise: Noise


def paper_batches(
    count: int,
    seed: int,
    shape: Sequence[int],
    device: torch.device | str,
    *,
    ranks: Sequence[int] = range(PAPER_RANKS),
) -> Iterator[PaperBatch]:
    """Replay the batches in which the authors sample ``count`` latents on eight GPUs, on any number of them.

    Each rank takes a contiguous part in batches of 64, and draws the starting noise of one after the other from a
    generator of its device seeded with seed + rank: the numbers are the authors' on a CUDA device only. ``ranks`` are
    those to replay here; their batches come in order, and none may be left out. Noise between the steps (ancestral
    sampling) comes from a second generator of the rank; which one the authors use for it is not known.
    """
    part = -(-count // PAPER_RANKS)
    for rank in ranks:
        start = torch.Generator(device).manual_seed(seed + rank)
        steps = torch.Generator(device).manual_seed(_key(seed, rank, "steps"))
        for first in range(rank * part, (rank + 1) * part, PAPER_BATCH):
            indices = range(first, min(first + PAPER_BATCH, (rank + 1) * part))
            size = (len(indices), *shape)
            yield PaperBatch(rank, indices, _RankNoise(torch.randn(size, generator=start, device=device), steps))


class _RankNoise:
    def __init__(self, start: Tensor, generator: torch.Generator) -> None:
        self._start: Tensor | None = start
        self._size = start.shape
        self._generator = generator

    def __call__(self) -> Tensor:
        if self._start is not None:
            start, self._start = self._start, None
            return start
        return torch.randn(self._size, generator=self._generator, device=self._generator.device)


def paper_labels(count: int, classes: int = 1000, seed: int = 0) -> Tensor:
    """Labels (count,) as the authors draw them: uniform, not the same number of each class."""
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


def _key(*parts: int | str) -> int:
    return int.from_bytes(digest(*parts)[:8], "little") >> 1
