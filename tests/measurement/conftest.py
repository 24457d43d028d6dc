"""A clock that tests turn by hand."""

from collections.abc import Callable, Sequence

import pytest


class FakeClock:
    """Host and device with their own time: a call takes ``issue_s`` of the host and ``device_s`` of the device."""

    kind = "cuda"

    def __init__(self, start: float = 100.0):
        self.host = start
        self.device_free = start
        self.synchronisations = 0
        self.calls: list[str] = []

    def now(self) -> float:
        return self.host

    def sleep(self, seconds: float) -> None:
        self.host += seconds

    def synchronize(self) -> None:
        self.synchronisations += 1
        self.host = max(self.host, self.device_free)

    def mark(self) -> float:
        return max(self.host, self.device_free)

    def gaps(self, marks: Sequence[float]) -> list[float]:
        return [b - a for a, b in zip(marks, marks[1:], strict=False)]

    def workload(self, name: str, device_s: Callable[[int], float] | float, issue_s: float = 0.0):
        """A workload whose n-th call takes ``device_s(n)``."""
        count = 0

        def call() -> None:
            nonlocal count
            self.calls.append(name)
            self.host += issue_s
            seconds = device_s(count) if callable(device_s) else device_s
            self.device_free = max(self.host, self.device_free) + seconds
            count += 1

        return call


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_clock() -> type[FakeClock]:
    return FakeClock
