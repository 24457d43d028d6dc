"""Noise for sampling: keyed by sample, or drawn as the authors draw it on eight GPUs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.keyed_random import keyed_generator

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
    steps: int = 0,
    doubled: bool = False,
) -> Iterator[PaperBatch]:
    """Replay, on any number of GPUs, the batches in which the authors sample ``count`` latents on eight.

    Each rank samples a contiguous range of indices in batches of 64. Two generators per rank, both on ``device`` and
    seeded with seed + rank, draw for batch after batch: one the starting noise, the other (the default generator in the
    authors' code) the noise of ``steps`` steps, the last of which adds none of it. Under guidance the authors draw for
    the ``doubled`` batch, whose first half is the samples. The numbers are those of ``device``: each GPU model, and the
    CPU, draws others from the same seed. ``ranks`` are the ranks to replay. A caller takes the batches in order, and
    may leave the noise of any batch undrawn.
    """
    part = -(-count // PAPER_RANKS)
    for rank in ranks:
        start = torch.Generator(device).manual_seed(seed + rank)
        default = torch.Generator(device).manual_seed(seed + rank)
        for first in range(rank * part, (rank + 1) * part, PAPER_BATCH):
            indices = range(first, min(first + PAPER_BATCH, (rank + 1) * part))
            noise = _RankNoise((len(indices), *shape), start, default, doubled=doubled)
            yield PaperBatch(rank, indices, noise)
            noise.skip_to(steps)


class _RankNoise:
    """The noise of one batch of a rank: the start, and then the noise of its steps."""

    def __init__(self, size: Sequence[int], start: torch.Generator, default: torch.Generator, *, doubled: bool) -> None:
        self._start: Tensor | None = torch.randn(tuple(size), generator=start, device=start.device)
        self._drawn, self._default = 0, default
        self._size = (size[0] * (2 if doubled else 1), *size[1:])
        self._count = size[0]

    def __call__(self) -> Tensor:
        if self._start is not None:
            start, self._start = self._start, None
            return start
        return self._draw()[: self._count]

    def skip_to(self, steps: int) -> None:
        """Draw the noise that was not asked for, so that the next batch finds the generator where the authors' does."""
        while self._drawn < steps:
            self._draw()

    def _draw(self) -> Tensor:
        self._drawn += 1
        return torch.randn(self._size, generator=self._default, device=self._default.device)


def paper_labels(count: int, classes: int = 1000, seed: int = 0) -> Tensor:
    """Labels (count,) as the authors draw them: uniformly at random, so that classes differ in number."""
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
