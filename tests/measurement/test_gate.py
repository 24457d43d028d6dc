import numpy as np
import pytest

from dcae_bench.measurement.instruments.energy import energy_of
from dcae_bench.measurement.instruments.gate import foreign_processes, judge
from dcae_bench.measurement.instruments.host import HostActivity
from dcae_bench.measurement.instruments.nvml import GpuProcess
from dcae_bench.measurement.instruments.timing import TimingSchedule, time_in_turn

PID = 42
QUIET = HostActivity(seconds=10, cpus=2, own_cpus=1.9, foreign_cpus=0.02, throttled_s=0.0)


@pytest.fixture
def series(make_clock):
    """A steady series on a GPU; ``device_s`` is the time of the n-th call."""

    def make(device_s=0.105, kind="cuda", **schedule):
        clock = make_clock()
        clock.kind = kind
        schedule = TimingSchedule(**{"warm_up_s": 0, "warm_up_limit_s": 10, **schedule})
        return time_in_turn({"work": clock.workload("work", device_s, issue_s=0.001)}, clock=clock, schedule=schedule)[
            "work"
        ]

    return make


def block(call: int) -> int:
    """Index of the block that a call of :func:`series` falls into: one first call, 20 of warm-up, 11 a block."""
    return (call - 21) // 11


def kinds(gate) -> set[str]:
    return {reason.kind for reason in gate.reasons}


def between(t0: float, t1: float, **fields):
    return lambda t, sample: sample.update(fields) if t0 <= t < t1 else None


def test_normal_run_is_good_and_notes_the_power_cap(series, trace):
    gate = judge([series()], trace=trace(), host=QUIET, pid=PID)
    assert gate.state == "good" and gate.reasons == ()
    assert gate.notes == ("software power cap in 100 % of the samples",)


@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ({"change": between(103, 104, reasons=0x20)}, "thermal"),
        ({"change": between(103, 104, reasons=0x48)}, "thermal"),
        ({"change": between(110, 200, thermal_violation_ns=7_000_000)}, "thermal"),
        ({"change": between(103, 103.2, reasons=0x80)}, "power_brake"),
        ({"change": between(103, 104, reasons=0x8)}, "hardware_slowdown"),
        ({"change": between(103, 106, sm_mhz=1200, reasons=0)}, "clock_drop"),
        ({"change": between(110, 111, processes=[{"pid": p, "memory_mib": 1} for p in (42, 7)])}, "foreign_process"),
        ({"change": between(110, 200, ecc_uncorrected=1)}, "ecc"),
    ],
)  # fmt: skip
def test_disturbed_gpu_degrades(series, trace, keywords, kind):
    gate = judge([series()], trace=trace(**keywords), host=QUIET, pid=PID)
    assert gate.state == "degraded" and kinds(gate) == {kind}
    assert all(reason.text for reason in gate.reasons)


def test_clock_below_the_median_under_the_power_cap_is_a_note(series, trace):
    gate = judge([series()], trace=trace(change=between(103, 106, sm_mhz=1200)), host=QUIET, pid=PID)
    assert gate.state == "good"
    assert any("1200 MHz" in note for note in gate.notes)


def test_idle_samples_at_the_edges_are_no_clock_drop(series, trace):
    gate = judge([series()], trace=trace(change=between(100, 103, sm_mhz=345, reasons=0x1)), host=QUIET, pid=PID)
    assert gate.state == "good"


def test_mig_is_noted(series, trace):
    gate = judge([series()], trace=trace(identity={"mig": True}), host=QUIET, pid=PID)
    assert gate.state == "good" and any(note.startswith("MIG") for note in gate.notes)


def test_unobserved_is_unknown_and_never_good(series, trace):
    assert judge([series()], trace=None, host=QUIET, pid=PID).state == "unknown"
    assert judge([series()], trace=trace(without=("reasons",)), host=QUIET, pid=PID).state == "unknown"
    assert judge([series(kind="cpu")], trace=None, host=None, pid=PID).state == "unknown"
    hot = trace(without=("reasons",), change=between(110, 200, thermal_violation_ns=10**9))
    assert judge([series()], trace=hot, host=QUIET, pid=PID).state == "degraded"


@pytest.mark.parametrize(
    ("device_s", "kind"),
    [
        (lambda n: 0.105 if block(n) < 6 else 0.12, "unstable"),
        (lambda n: 0.105 * (1 + 0.002 * max(n - 25, 0)), "unstable"),
        (lambda n: 0.105 * 1.02**n, "unsettled"),
        (lambda n: 0.105 if block(n) % 3 else 0.2, "unstable"),
    ],
    ids=["step", "drift", "never warm", "many outliers"],
)
def test_unstable_series_degrades(series, trace, device_s, kind):
    gate = judge([series(device_s)], trace=trace(), host=QUIET, pid=PID)
    assert gate.state == "degraded" and kind in kinds(gate)


def test_one_outlier_is_a_note(series, trace):
    gate = judge([series(lambda n: 0.105 if block(n) != 6 else 0.13)], trace=trace(), host=QUIET, pid=PID)
    assert gate.state == "good" and any("outlier" in note for note in gate.notes)


def test_clocks_must_agree(series, trace):
    content = series().model_dump()
    for block in content["blocks"]:
        block["device_s"] *= 0.9
    broken = type(series()).model_validate(content)
    assert kinds(judge([broken], trace=trace(), host=QUIET, pid=PID)) == {"clocks_disagree"}


def test_other_work_degrades_a_cpu_timing_and_is_a_note_beside_a_gpu(series, trace):
    busy = QUIET.model_copy(update={"foreign_cpus": 0.5, "throttled_s": 3.0})
    gate = judge([series(kind="cpu")], trace=None, host=busy, pid=PID)
    assert gate.state == "degraded" and kinds(gate) == {"foreign_load", "quota"}
    assert judge([series(kind="cpu")], trace=None, host=QUIET, pid=PID).state == "good"
    assert judge([series()], trace=trace(), host=busy, pid=PID).state == "good"
    unseen = QUIET.model_copy(update={"foreign_cpus": None})
    assert any("cannot be seen" in note for note in judge([series(kind="cpu")], trace=None, host=unseen, pid=PID).notes)


def test_energy_that_disagrees_is_noted(series, trace):
    odd = trace(change=lambda t, s: s.update(power_w=480.0))
    gate = judge([series()], trace=odd, host=QUIET, pid=PID, energy=energy_of(odd, 101, 112, 1))
    assert any("-20" in note or "-19" in note for note in gate.notes)


@pytest.mark.parametrize(
    ("lists", "others"),
    [
        ([[], [42]], []),
        ([[7], [7, 42]], [7]),
        ([[42], [42, 7], [42]], [7]),
        ([[], [9001]], []),  # ours under the host's id
        ([[7], [7, 9001]], [7]),
        ([[], [9001, 9002]], None),  # one of the two is ours
        ([[7], []], [7]),
        ([[], []], "unseen"),
    ],
)
def test_foreign_processes(trace, lists, others):
    base = trace(seconds=1)
    samples = [
        base.samples[i].model_copy(update={"processes": tuple(GpuProcess(pid=pid, memory_mib=1) for pid in pids)})
        for i, pids in enumerate(lists)
    ]
    found = foreign_processes(base.model_copy(update={"samples": tuple(samples)}), PID)
    if others == "unseen":
        assert found is None
    elif others is None:
        assert len(found) == 1
    else:
        assert [process.pid for process in found] == others


def test_rates_of_the_fixture_are_what_they_say(series):
    found = series()
    assert np.median(found.rates) == pytest.approx(1 / 0.105, rel=0.01)
    assert found.warm_up.iterations == 20 and {block.iterations for block in found.blocks} == {11}
