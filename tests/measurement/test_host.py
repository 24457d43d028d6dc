import os
import time

import pytest

from dcae_bench.measurement.instruments import host
from dcae_bench.measurement.instruments.host import HostState, activity_between, read_state

TICK = os.sysconf("SC_CLK_TCK")


def put(root, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_the_allowed_processors_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2})
    rows = [f"cpu{i} {TICK * (i + 1)} 0 {TICK} 999999 999999 0 0 {TICK} 0 0" for i in range(3)]
    put(tmp_path, "stat", "cpu  1 1 1 1 1 1 1 1 1 1\n" + "\n".join(rows) + "\nintr 0\n")
    put(tmp_path, "fs/cgroup/cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n")
    found = read_state(tmp_path, tmp_path)
    assert found.cpus == 2
    assert found.busy_s == pytest.approx((1 + 1 + 1) + (3 + 1 + 1))
    assert found.throttled_s == 2.5


def test_silent_system_gives_null(tmp_path):
    found = read_state(tmp_path, tmp_path)
    assert found.busy_s is None and found.throttled_s is None
    assert host.governor(tmp_path) is None and host.turbo(tmp_path) is None


def test_governor_and_turbo_of_both_drivers(tmp_path):
    put(tmp_path, "devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    put(tmp_path, "devices/system/cpu/cpufreq/boost", "1\n")
    assert host.governor(tmp_path) == "powersave" and host.turbo(tmp_path) is True
    put(tmp_path, "devices/system/cpu/intel_pstate/no_turbo", "1\n")
    assert host.turbo(tmp_path) is False


def counters(t: float, busy_s: float | None, own_s: float, throttled_s: float | None = None) -> HostState:
    return HostState(t=t, cpus=4, busy_s=busy_s, own_s=own_s, throttled_s=throttled_s)


def test_others_work_is_what_is_not_ours():
    found = activity_between(counters(0, 100, 10, 1), counters(10, 130, 25, 1.5))
    assert (found.own_cpus, found.foreign_cpus, found.throttled_s) == pytest.approx((1.5, 1.5, 0.5))


def test_counter_that_stands_still_while_we_work_tells_nothing():
    assert activity_between(counters(0, 0, 0), counters(10, 0, 10)).foreign_cpus is None
    assert activity_between(counters(0, None, 0), counters(10, None, 10)).foreign_cpus is None


def test_own_work_is_seen_on_this_machine():
    before = read_state()
    begin = time.process_time()
    while time.process_time() - begin < 0.3:
        pass
    found = activity_between(before, read_state())
    assert found.own_cpus * found.seconds >= 0.25
