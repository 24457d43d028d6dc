"""GPU memory: running out of memory as a result, and the search for the largest batch that fits."""

import gc
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import Field

from dcae_bench.base.typed import Strict

Result = TypeVar("Result")


class OutOfMemory(Strict):
    """The result ``oom``: the workload did not fit into the GPU's memory."""

    message: str = Field(description="first line of torch's error")


class Try(Strict):
    """Outcome of one batch size."""

    batch: int
    outcome: Literal["fits", "oom"]
    peak_gib: float | None = Field(description="peak of the memory that torch allocated; null on a CPU and after oom")
    message: str | None = Field(default=None, description="first line of torch's error; null if the batch fits")


class BatchSearch(Strict):
    """The largest batch that fits, with every batch that was tried."""

    batch: int | None = Field(description="null if not even the smallest batch fits")
    limited_by: Literal["memory", "limit"]
    tries: tuple[Try, ...]


def catch_out_of_memory(work: Callable[[], Result]) -> Result | OutOfMemory:
    """Run ``work``. Returns :class:`OutOfMemory` if torch says that the GPU's memory is used up.

    No other error is caught: a failed kernel or a full host is not a result.
    """
    try:
        return work()
    except _cuda().OutOfMemoryError as error:
        message = str(error).splitlines()[0] if str(error) else "out of memory"
    # Outside of the handler: only now is the traceback gone, and with it the tensors of the failed call.
    release_memory()
    return OutOfMemory(message=message)


def release_memory() -> None:
    """Free the GPU memory that torch reserves and does not use."""
    if _cuda().is_available():
        gc.collect()
        _cuda().empty_cache()


def largest_batch(run: Callable[[int], object], *, start: int, limit: int, smallest: int = 1) -> BatchSearch:
    """Search the largest batch for which ``run(batch)`` does not run out of memory.

    The search doubles or halves from ``start``, then bisects until the uncertainty is an eighth of the batch that fits.
    ``run`` must reach the peak of memory: two training iterations, because the first creates the optimiser's state.
    """
    if not 1 <= smallest <= start <= limit:
        raise ValueError(f"a search needs 1 <= smallest <= start <= limit, not {smallest}, {start}, {limit}")
    tries: list[Try] = []

    def fits(batch: int) -> bool:
        tries.append(_try(run, batch))
        return tries[-1].outcome == "fits"

    good: int | None = None
    bad: int | None = None
    batch = start
    if fits(start):
        good = start
        while good < limit and bad is None:
            batch = min(2 * good, limit)
            if fits(batch):
                good = batch
            else:
                bad = batch
    else:
        bad = start
        while good is None and bad > smallest:
            batch = max(bad // 2, smallest)
            if fits(batch):
                good = batch
            else:
                bad = batch
    while good is not None and bad is not None and bad - good > max(good // 8, 1):
        batch = (good + bad) // 2
        if fits(batch):
            good = batch
        else:
            bad = batch
    return BatchSearch(batch=good, limited_by="limit" if bad is None else "memory", tries=tuple(tries))


def _try(run: Callable[[int], object], batch: int) -> Try:
    release_memory()
    cuda = _cuda() if _cuda().is_available() else None
    if cuda:
        cuda.reset_peak_memory_stats()

    def work() -> None:
        run(batch)
        if cuda:
            cuda.synchronize()

    result = catch_out_of_memory(work)
    if isinstance(result, OutOfMemory):
        return Try(batch=batch, outcome="oom", peak_gib=None, message=result.message)
    return Try(batch=batch, outcome="fits", peak_gib=cuda.max_memory_allocated() / 2**30 if cuda else None)


def _cuda() -> Any:
    """``torch.cuda``, imported late: records use this module's types, and reading a record must not need torch."""
    import torch

    return torch.cuda
