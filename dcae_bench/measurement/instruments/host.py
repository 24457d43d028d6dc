"""The host: how busy its processors were during a measurement, and with whose work, according to Linux."""

import os
import time
from pathlib import Path

from pydantic import Field

from dcae_bench.base.typed import Strict

PROC, SYS = Path("/proc"), Path("/sys")


class HostState(Strict):
    """Counters of the host at one time. A counter that the system does not show is null."""

    t: float = Field(description="monotonic time, s")
    cpus: int = Field(description="processors that this process may run on")
    busy_s: float | None = Field(description="time that these processors worked since boot, for any process")
    own_s: float = Field(description="processor time of this process and of its finished children")
    throttled_s: float | None = Field(description="time that the CPU quota of the container stopped its threads")


class HostActivity(Strict):
    """Use of the processors between two states of the host."""

    seconds: float
    cpus: int
    own_cpus: float = Field(description="processors that this process kept busy, on average")
    foreign_cpus: float | None = Field(
        description="processors that other processes kept busy; null if the system does not show them"
    )
    throttled_s: float | None


def read_state(proc: Path = PROC, sys: Path = SYS) -> HostState:
    """Read the counters now."""
    allowed = os.sched_getaffinity(0)
    times = os.times()
    return HostState(
        t=time.monotonic(),
        cpus=len(allowed),
        busy_s=_busy(proc / "stat", allowed),
        own_s=times.user + times.system + times.children_user + times.children_system,
        throttled_s=_throttled(sys / "fs" / "cgroup"),
    )


def activity_between(before: HostState, after: HostState) -> HostActivity:
    """Use of the processors between two states. They should lie 1 s or more apart: the kernel counts 10 ms ticks."""
    seconds = max(after.t - before.t, 1e-9)
    own = max(after.own_s - before.own_s, 0.0)
    foreign = None
    if before.busy_s is not None and after.busy_s is not None:
        busy = after.busy_s - before.busy_s
        # Some sandboxes show a constant. Without this test they would look like an otherwise idle machine.
        if busy > 0 or own == 0:
            foreign = max(busy - own, 0.0) / seconds
    throttled = None
    if before.throttled_s is not None and after.throttled_s is not None:
        throttled = max(after.throttled_s - before.throttled_s, 0.0)
    return HostActivity(
        seconds=seconds, cpus=after.cpus, own_cpus=own / seconds, foreign_cpus=foreign, throttled_s=throttled
    )


def governor(sys: Path = SYS) -> str | None:
    """The frequency governor of the first processor; None if the system does not show it (virtual machines)."""
    return _read(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor")


def turbo(sys: Path = SYS) -> bool | None:
    """Whether the processor may exceed its nominal clock; None if the system does not show it."""
    if (off := _read(sys / "devices/system/cpu/intel_pstate/no_turbo")) is not None:
        return off == "0"
    on = _read(sys / "devices/system/cpu/cpufreq/boost")
    return None if on is None else on == "1"


def _busy(path: Path, allowed: set[int]) -> float | None:
    """User, nice, system, irq, softirq and steal time of the allowed processors in s. Steal time is work of others."""
    text = _read(path)
    if text is None:
        return None
    ticks, found = 0, 0
    for line in text.splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in allowed:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, columns[:8])
            ticks += user + nice + system + irq + softirq + steal
            found += 1
    return ticks / os.sysconf("SC_CLK_TCK") if found else None


def _throttled(cgroup: Path) -> float | None:
    """Seconds that the CPU quota stopped the container's threads."""
    for line in (_read(cgroup / "cpu.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "throttled_usec":
            return int(value) / 1e6
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
