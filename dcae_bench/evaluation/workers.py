"""Who measures which images: the processes of one evaluation, and the threads that read for each."""

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from dcae_bench.data.images import Crops

# Shares of work are hours apart where three processes have the noise of eight; gloo's own limit is half an hour. A
# process that dies closes its connections, which ends the others at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Process:
    """One of the processes of an evaluation; ``torchrun`` starts several, otherwise there is one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def share(self, batches: Sequence[range]) -> list[range]:
        """The batches of this process. Batches are the same for every number of processes."""
        return list(batches[self.rank :: self.count])

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def common(self, names: Collection[str]) -> list[str]:
        """Those of ``names``, which may differ between processes, that every process has; the same for all, sorted."""
        found: list[Collection[str]] = [names]
        if self.count > 1:
            found = [()] * self.count
            torch.distributed.all_gather_object(found, sorted(names))
        return sorted(set.intersection(*map(set, found)))

    def device(self, chosen: torch.device) -> torch.device:
        """The chosen kind of device, a GPU of its own for each process, which becomes torch's current one."""
        if chosen.type == "cuda" and self.count > 1:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
            torch.cuda.set_device(chosen)  # or every process would open the first GPU too
        return chosen


@contextmanager
def processes() -> Iterator[Process]:
    """Join the processes that ``torchrun`` started. They only wait for each other, so gloo serves on GPUs too."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Process()
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Process(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()


def batches_of(images: int, size: int) -> list[range]:
    """Consecutive images 0 to ``images`` in batches."""
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


def read_ahead(crops: Crops, batches: Sequence[range], threads: int) -> Iterator[tuple[range, Tensor]]:
    """Yield each batch with its crops, uint8 (n, 3, R, R), read by ``threads`` while earlier ones are worked on.

    Decoding and resizing leave Python's lock, so threads serve. With 0 threads a batch is read when its turn comes.
    Raises :class:`DataError`.
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
                # Two batches wait beside the one that is worked on; more would only cost memory.
                while len(ahead) < 3 and (batch := next(waiting, None)) is not None:
                    ahead.append((batch, [pool.submit(crops.__getitem__, index) for index in batch]))
                if not ahead:
                    return
                batch, reads = ahead.popleft()
                yield batch, torch.stack([read.result() for read in reads])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
