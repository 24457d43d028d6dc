"""Batches of crops that threads read ahead, while the caller works on earlier batches."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor


class Readable(Protocol):
    """Crops by index, such as :class:`~dcae_bench.data.images.Crops`."""

    def __getitem__(self, index: int) -> Tensor:
        """Return a crop as uint8 (3, R, R). Raises :class:`DataError`."""
        ...


def read_ahead(crops: Readable, batches: Sequence[range], threads: int) -> Iterator[tuple[range, Tensor]]:
    """Yield each batch's indices with its crops, uint8 (n, 3, R, R), in order.

    ``threads`` read the next batches while the caller works on the current one. They run in parallel, because decoding
    and resizing release Python's lock. With 0 threads each batch is read when it is yielded. Raises
    :class:`DataError`.
    """
    if not threads:
        for batch in batches:
            yield batch, torch.stack([crops[index] for index in batch])
        return
    ahead: deque[tuple[range, list[Future[Tensor]]]] = deque()
    waiting = iter(batches)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                # Two batches wait beside the one that the caller works on; more would only cost memory.
                while len(ahead) < 3 and (following := next(waiting, None)) is not None:
                    ahead.append((following, [pool.submit(crops.__getitem__, index) for index in following]))
                if not ahead:
                    return
                batch, reads = ahead.popleft()
                yield batch, torch.stack([read.result() for read in reads])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
