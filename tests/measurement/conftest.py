"""A clock that tests turn by hand, and traces of a GPU that never was."""

import itertools
import json
from collections.abc import Callable, Sequence

import pytest

from dcae_bench.measurement.instruments.nvml import Trace, read_trace


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
        return [b - a for a, b in itertools.pairwise(marks)]

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


def synthetic(
    seconds: float = 14.0,
    *,
    power_w: float = 600.0,
    reasons: int = 0x4,
    sm_mhz: int = 1700,
    without: tuple[str, ...] = (),
    change: Callable[[float, dict], None] | None = None,
    identity: dict | None = None,
    **constant,
) -> dict:
    """A trace as JSON, from NVML's documentation: steady work at ``power_w``, a counter in mJ that moves every 0.1 s.

    ``without`` are fields that NVML does not answer, ``change(t, sample)`` alters a sample, ``constant`` sets fields.
    """
    samples = []
    for step in range(round(seconds / 0.05) + 1):
        t = 100 + 0.05 * step
        sample = {
            "t": t,
            "energy_mj": 5_000_000 + round(power_w * 1000 * (step // 2) * 0.1),
            "power_w": power_w,
            "power_average_w": power_w,
            "temperature_c": 60,
            "memory_temperature_c": 70,
            "sm_mhz": sm_mhz,
            "memory_mhz": 2619,
            "reasons": reasons,
            "power_violation_ns": 10_000_000 * step,
            "thermal_violation_ns": 0,
            "ecc_uncorrected": 0,
            "processes": [{"pid": 42, "memory_mib": 30_000}],
            **constant,
        }
        if change:
            change(t, sample)
        for field in without:
            sample[field] = None
        sample["unavailable"] = dict.fromkeys(without, "Not Supported")
        samples.append(sample)
    return {
        "origin": "synthetic: written from NVML's documentation",
        "identity": {
            "uuid": "GPU-00000000-0000-0000-0000-000000000001",
            "name": "NVIDIA H100 80GB HBM3",
            "mig": False,
            "power_limit_w": 700.0,
            **(identity or {}),
        },
        "samples": samples,
    }


@pytest.fixture
def trace(tmp_path):
    """Writes a synthetic trace as a file and reads it as a recorded one."""

    def make(**keywords) -> Trace:
        path = tmp_path / "trace.json"
        path.write_text(json.dumps(synthetic(**keywords)))
        return read_trace(path)

    return make
