import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.measurement.instruments.memory import OutOfMemory, catch_out_of_memory, largest_batch


def fits_up_to(capacity: int):
    def run(batch: int) -> None:
        if batch > capacity:
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory. Tried to hold {batch}.\nmore lines")

    return run


def test_only_the_gpus_memory_is_a_result():
    assert catch_out_of_memory(lambda: 7) == 7
    assert catch_out_of_memory(lambda: fits_up_to(0)(3)) == OutOfMemory(message="CUDA out of memory. Tried to hold 3.")
    for other in (
        RuntimeError("CUDA error: an illegal memory access"),
        MemoryError("host"),
        ValueError("out of memory"),
    ):

        def fail(error=other):
            raise error

        with pytest.raises(type(other)):
            catch_out_of_memory(fail)


def test_what_the_failed_call_held_is_let_go():
    held = []

    class Large:
        pass

    def work():
        large = Large()
        held.append(weakref.ref(large))
        raise torch.cuda.OutOfMemoryError("full")

    gc.disable()
    try:
        assert isinstance(catch_out_of_memory(work), OutOfMemory)
        assert held[0]() is None
    finally:
        gc.enable()


@given(st.integers(0, 3000), st.integers(1, 512), st.integers(512, 2048))
def test_search_finds_what_fits_within_an_eighth(capacity, start, limit):
    search = largest_batch(fits_up_to(capacity), start=start, limit=limit)
    for one in search.tries:
        assert one.outcome == ("fits" if one.batch <= capacity else "oom")
        assert (one.message is None) == (one.outcome == "fits")
    assert len({one.batch for one in search.tries}) == len(search.tries) <= 25
    if capacity == 0:
        assert search.batch is None and search.limited_by == "memory"
    elif capacity >= limit:
        assert search.batch == limit and search.limited_by == "limit"
    else:
        assert search.batch <= capacity <= search.batch + max(search.batch // 8, 1)
        assert search.limited_by == "memory"


def test_search_lets_other_errors_through_and_refuses_a_wrong_range():
    with pytest.raises(RuntimeError, match="kernel"):
        largest_batch(lambda batch: (_ for _ in ()).throw(RuntimeError("kernel")), start=1, limit=2)
    with pytest.raises(ValueError, match="smallest"):
        largest_batch(fits_up_to(1), start=8, limit=4)
