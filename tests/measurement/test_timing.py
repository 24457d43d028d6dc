import functools
import itertools
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcae_bench.measurement.instruments.statistics import flags, median_estimate, ratio_estimate
from dcae_bench.measurement.instruments.timing import HostClock, Series, TimingSchedule, time_in_turn, time_of


def test_blocks_are_long_enough_in_turn_and_warmed_up(clock):
    found = time_in_turn(
        {"a": clock.workload("a", 0.01), "b": clock.workload("b", 0.03)}, clock=clock, schedule=TimingSchedule()
    )
    for name, seconds in (("a", 0.01), ("b", 0.03)):
        series = found[name]
        assert [block.round for block in series.blocks] == list(range(10))
        assert all(block.host_s >= 1 for block in series.blocks)
        assert series.rates == pytest.approx([1 / seconds] * 10)
        assert series.warm_up.iterations >= 20 and series.warm_up.seconds >= 2 and series.warm_up.settled
        assert series.device_over_host == pytest.approx(1)
    starts = [(block.started_s, name) for name in "ab" for block in found[name].blocks]
    assert "".join(name for _, name in sorted(starts)) == "ab" * 10
    # Each block that follows another workload starts with an untimed iteration.
    after_warm_up = clock.calls[1 + found["a"].warm_up.iterations + 1 + found["b"].warm_up.iterations :]
    blocks = sum(block.iterations for name in "ab" for block in found[name].blocks)
    assert len(after_warm_up) == blocks + 20


def test_one_workload_alone_has_no_lead_in_and_one_synchronisation_per_block(clock):
    schedule = TimingSchedule(blocks=4, warm_up_s=0)
    series = time_in_turn({"a": clock.workload("a", 0.1)}, clock=clock, schedule=schedule)["a"]
    blocks = sum(block.iterations for block in series.blocks)
    assert len(clock.calls) == 1 + series.warm_up.iterations + blocks
    # The first call, two windows of warm-up, and each block: an idle device before, one synchronisation after.
    assert clock.synchronisations == 1 + 2 + 2 * 4


def test_setup_is_told_apart(clock):
    call = clock.workload("a", lambda n: 30.0 if n == 0 else 0.05)
    series = time_in_turn({"a": call}, clock=clock)["a"]
    assert series.warm_up.setup_s == pytest.approx(30)
    assert series.rates == pytest.approx([20] * 10)


def test_a_first_call_before_the_warm_up_is_not_repeated(clock):
    call = clock.workload("a", 0.5)
    before = time_of(call, clock)
    found = time_in_turn({"a": call}, clock=clock, schedule=TimingSchedule(blocks=2), setup_s={"a": before})["a"]
    assert found.warm_up.setup_s == before == 0.5
    assert len(clock.calls) == 1 + found.warm_up.iterations + found.timed_iterations


def test_warm_up_lasts_until_the_times_stop_to_fall(clock):
    call = clock.workload("a", lambda n: 0.01 * (1 + 3 * np.exp(-n / 50)))
    series = time_in_turn({"a": call}, clock=clock, schedule=TimingSchedule(warm_up_s=0))["a"]
    assert series.warm_up.settled and series.warm_up.iterations > 150
    assert max(series.rates) < 1.03 * min(series.rates)
    assert median_estimate(series.rates).value == pytest.approx(100, rel=0.02)


def test_warm_up_that_never_settles_is_given_up_and_says_so(clock):
    call = clock.workload("a", lambda n: 0.01 * 1.01**n)
    series = time_in_turn({"a": call}, clock=clock, schedule=TimingSchedule(warm_up_limit_s=5, blocks=2))["a"]
    assert not series.warm_up.settled and 5 <= series.warm_up.seconds < 10


def test_ratio_is_right_while_the_machine_slows_down(clock):
    def slowing(seconds: float):
        return lambda _n: seconds * (1 + (clock.now() - 100) / 200)

    calls = {"a": clock.workload("a", slowing(0.01)), "b": clock.workload("b", slowing(0.03))}
    found = time_in_turn(calls, clock=clock, schedule=TimingSchedule(warm_up_limit_s=5))
    ratio = ratio_estimate(found["a"].rates, found["b"].rates)
    assert ratio.low <= ratio.value <= ratio.high and ratio.value == pytest.approx(3, rel=0.01)
    assert [flag.kind for flag in flags(found["a"].rates)] == ["drift"]


def test_short_block_is_done_again_with_more_iterations(clock):
    call = clock.workload("a", lambda n: 0.1 if n < 40 else 0.01)
    series = time_in_turn({"a": call}, clock=clock, schedule=TimingSchedule(warm_up_iterations=20, warm_up_s=0))["a"]
    assert series.short_blocks >= 1
    assert all(block.host_s >= 1 for block in series.blocks)


def test_slow_host_is_seen(clock):
    schedule = TimingSchedule(blocks=2)
    launch_bound = clock.workload("slow host", 0.001, issue_s=0.01)
    queued = clock.workload("fast host", 0.01, issue_s=0.001)
    assert time_in_turn({"a": launch_bound}, clock=clock, schedule=schedule)["a"].wait_iterations < 0.2
    assert time_in_turn({"a": queued}, clock=clock, schedule=schedule)["a"].wait_iterations > 10


def test_clocks_that_disagree_are_seen(clock):
    clock.gaps = lambda marks: [0.9 * (b - a) for a, b in itertools.pairwise(marks)]
    series = time_in_turn({"a": clock.workload("a", 0.01)}, clock=clock, schedule=TimingSchedule(blocks=2))["a"]
    assert series.device_over_host == pytest.approx(0.9)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.floats(1e-4, 5), marks=st.integers(1, 300), block_s=st.floats(0.1, 2))
def test_samples_add_up(make_clock, seconds, marks, block_s):
    clock = make_clock()
    schedule = TimingSchedule(blocks=2, block_s=block_s, marks_per_block=marks, warm_up_s=0, warm_up_limit_s=1)
    series = time_in_turn({"a": clock.workload("a", seconds)}, clock=clock, schedule=schedule)["a"]
    for block in series.blocks:
        assert len(block.iteration_s) <= marks
        whole, rest = divmod(block.iterations, block.stride)
        sizes = [block.stride] * whole + [rest] * bool(rest)
        assert (
            sum(np.multiply(block.iteration_s, sizes)) == pytest.approx(block.device_s) == pytest.approx(block.host_s)
        )
        assert block.host_s >= block_s
    assert Series.model_validate_json(series.model_dump_json()) == series


def test_on_this_machine_a_longer_wait_takes_longer():
    """Waits and not work: what else the machine does may lengthen them, but never shorten."""
    schedule = TimingSchedule(blocks=2, block_s=0.02, warm_up_iterations=2, warm_up_s=0, window=2, warm_up_limit_s=0.2)
    waits = {"short": 0.002, "long": 0.02}
    workloads = {name: functools.partial(time.sleep, seconds) for name, seconds in waits.items()}
    found = time_in_turn(workloads, clock=HostClock(), schedule=schedule)
    for name, series in found.items():
        assert series.clock == "cpu"
        assert 0 < max(series.rates) <= 1 / waits[name]
        assert series.device_over_host <= 1


def test_nothing_to_measure_and_a_workload_that_fails(clock):
    with pytest.raises(ValueError, match="nothing"):
        time_in_turn({}, clock=clock)

    def fail():
        raise RuntimeError("kernel failed")

    with pytest.raises(RuntimeError, match="kernel failed"):
        time_in_turn({"a": fail}, clock=clock)
