"""Noise for sampling: keyed by sample, or drawn as the authors draw it on eight GPUs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.keyed_random import key_digest, keyed_generator

PAPER_RANKS = 8
PAPER_BATCH = 64


class Noise(Protocol):
    """A source of standard normal noise for a batch of samples."""

    def __call__(self) -> Tensor:
        """Draw the next noise (n, c, h, w) in float32.

        The first call gives the start of the sampling, each later call the noise of one step that needs some.
        """


class SampleNoise:
    """Noise keyed by sample index: each sample has a random stream of its own and depends on no other sample.

    The CPU draws the numbers (Philox), so that they are equal for every device, batch size and number of processes.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self._streams = [keyed_generator(seed, index, "sample") for index in indices]
        self._shape = tuple(shape)
        self._device = device

    def __call__(self) -> Tensor:
        """Draw the next noise of every sample (n, c, h, w)."""
        drawn = np.empty((len(self._streams), *self._shape), np.float32)
        for stream, out in zip(self._streams, drawn, strict=True):
            stream.standard_normal(dtype=np.float32, out=out)
        return torch.from_numpy(drawn).to(self._device)


@dataclass(frozen=True)
class PaperBatch:
    """One batch that one of the authors' eight ranks samples."""

    rank: int
    indices: range
    """Indices of the batch's samples. Indices past the sample count only fill up the last rank's share."""
    noise: Noise


def paper_batches(
    count: int,
    seed: int,
    shape: Sequence[int],
    device: torch.device | str,
    *,
    ranks: Sequence[int] = range(PAPER_RANKS),
) -> Iterator[PaperBatch]:
    """Replay, on any number of GPUs, the batches in which the authors sample ``count`` latents on eight.

    Each rank samples a contiguous range of indices in batches of 64. One generator per rank, on ``device`` and seeded
    with seed + rank, draws the starting noise of batch after batch; only a CUDA device gives the authors' numbers.
    ``ranks`` are the ranks to replay. A caller must take the batches in order and skip none. A second generator per
    rank draws the noise between the steps of ancestral sampling; which generator the authors use there is not known.
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
    """Labels (count,) as the authors draw them: uniformly at random, so that classes differ in number."""
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


def _key(*parts: int | str) -> int:
    return int.from_bytes(key_digest(*parts)[:8], "little") >> 1
