"""GPU memory: running out of it as a result, and the largest batch that fits."""

import gc
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import Field

from dcae_bench.measurement.statistics import Value

Result = TypeVar("Result")


class OutOfMemory(Value):
    """The result ``oom``: the GPU's memory did not hold the workload."""

    message: str = Field(description="first line of torch's error")


class Try(Value):
    """One batch that was tried."""

    batch: int
    outcome: Literal["fits", "oom"]
    peak_gib: float | None = Field(description="largest memory that torch had allocated; null on a CPU and after oom")
    message: str | None = Field(default=None, description="of the error, if it was one")


class BatchSearch(Value):
    """The largest batch that fits, and how it was found."""

    batch: int | None = Field(description="null if not even the smallest batch fits")
    limited_by: Literal["memory", "limit"]
    tries: tuple[Try, ...]


def attempt(work: Callable[[], Result]) -> Result | OutOfMemory:
    """Run ``work``; :class:`OutOfMemory` only where torch says that the GPU's memory is used up.

    Every other error goes through: a failed kernel or a full host is not a result.
    """
    try:
        return work()
    except _cuda().OutOfMemoryError as error:
        message = str(error).splitlines()[0] if str(error) else "out of memory"
    # Outside of the handler: the traceback, and with it what the failed call held, is gone only now.
    release()
    return OutOfMemory(message=message)


def release() -> None:
    """Give back the GPU memory that torch holds and nobody uses."""
    if _cuda().is_available():
        gc.collect()
        _cuda().empty_cache()


def largest_batch(run: Callable[[int], object], *, start: int, limit: int, smallest: int = 1) -> BatchSearch:
    """Search the largest batch that ``run(batch)`` does without running out of memory; every try is recorded.

    From ``start`` it doubles or halves, then bisects in steps of an eighth of the batch that fits. ``run`` does what
    needs most memory (two iterations of training: the optimiser's state is there from the second).
    """
    if not 1 <= smallest <= start <= limit:
        raise ValueError(f"a search needs 1 <= smallest <= start <= limit, not {smallest}, {start}, {limit}")
    tries: list[Try] = []

    def fits(batch: int) -> bool:
        tries.append(_try(run, batch))
        return tries[-1].outcome == "fits"

    good, bad = None, None
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
    release()
    cuda = _cuda() if _cuda().is_available() else None
    if cuda:
        cuda.reset_peak_memory_stats()

    def work() -> None:
        run(batch)
        if cuda:
            cuda.synchronize()

    result = attempt(work)
    if isinstance(result, OutOfMemory):
        return Try(batch=batch, outcome="oom", peak_gib=None, message=result.message)
    return Try(batch=batch, outcome="fits", peak_gib=cuda.max_memory_allocated() / 2**30 if cuda else None)


def _cuda() -> Any:
    """torch.cuda, imported late: records hold this module's values and are read without torch."""
    import torch

    return torch.cuda
