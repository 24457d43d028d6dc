"""The processes of one evaluation, and the share of the images that each measures."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

# A process may wait hours for another one, for example when three processes draw the samples of eight random streams.
# Gloo would give up after half an hour. A process that dies closes its connections, so the others still end at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Worker:
    """One process of an evaluation. ``torchrun`` starts several; without it there is one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def share(self, batches: Sequence[range]) -> list[range]:
        """Batches of this process. The batches themselves do not depend on the number of processes."""
        return list(batches[self.rank :: self.count])

    def wait(self) -> None:
        """Wait until every process has made this call."""
        if self.count > 1:
            torch.distributed.barrier()

    def names_everywhere(self, names: Collection[str]) -> list[str]:
        """Sorted names that every process passes; ``names`` may differ, the result is the same in all processes."""
        found: list[Collection[str]] = [names]
        if self.count > 1:
            found = [()] * self.count
            torch.distributed.all_gather_object(found, sorted(names))
        return sorted(set.intersection(*map(set, found)))

    def device(self, chosen: torch.device) -> torch.device:
        """Device of this process. With several processes, each gets its own GPU, which becomes torch's current one."""
        if chosen.type == "cuda" and self.count > 1:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
            torch.cuda.set_device(chosen)  # otherwise every process would also open the first GPU
        return chosen


@contextmanager
def join_processes() -> Iterator[Worker]:
    """Join the processes that ``torchrun`` started. They only wait and exchange names, so gloo is enough."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Worker()
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Worker(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()


def meeting_place() -> "torch.distributed.Store":
    """Notes that the processes of one command leave for each other before they have joined."""
    store, _, _ = next(torch.distributed.rendezvous("env://", timeout=PATIENCE))
    return torch.distributed.PrefixStore("dcae-bench", store)


def batches_of(images: int, size: int) -> list[range]:
    """Indices 0 to ``images`` - 1 in consecutive batches of ``size``."""
    return [range(start, min(start + size, images)) for start in range(0, images, size)]
