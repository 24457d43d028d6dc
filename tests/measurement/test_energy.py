import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.instruments.energy import Energy, energy_of, measure_energy, no_energy
from dcae_bench.measurement.instruments.nvml import Replay, Trace, read_trace
from dcae_bench.measurement.instruments.recorder import Recorder


def test_counter_and_integrated_trace_agree(trace):
    found = energy_of(trace(), 101, 112, 500)
    assert found.energy_j == pytest.approx(600 * 11, rel=0.02) and found.reason is None
    assert found.integrated_j == pytest.approx(600 * 11)
    assert abs(found.discrepancy) < 0.02
    assert found.power_w == pytest.approx(600, rel=0.02)
    assert found.counter_period_s == pytest.approx(0.1, abs=0.001)
    assert found.temperature_c == (60, 60)


@pytest.mark.parametrize(
    ("keywords", "window", "reason"),
    [
        ({"identity": {"mig": True}}, (101, 112), "MIG is on"),
        ({"without": ("energy_mj",)}, (101, 112), "does not answer: Not Supported"),
        ({}, (101, 105), "shorter than the 10 s"),
        ({}, (101, 130), "does not reach"),
        ({}, (200, 212), "no samples"),
        ({"energy_mj": 0}, (101, 112), "did not move"),
        (
            {"change": lambda t, s: s.update(energy_mj=s["energy_mj"] - (3_000_000 if t > 106 else 0))},
            (101, 112),
            "back",
        ),
    ],
    ids=["mig", "missing counter", "short", "too long", "elsewhere", "dead counter", "reset"],
)
def test_energy_is_null_with_a_reason(trace, keywords, window, reason):
    found = energy_of(trace(**keywords), *window, 500)
    assert found.energy_j is None and found.power_w is None and found.discrepancy is None
    assert reason in found.reason


def test_energy_is_never_zero_or_without_reason():
    for wrong in (
        {"energy_j": 0.0, "reason": None},
        {"energy_j": None, "reason": None},
        {"energy_j": 1.0, "reason": "x"},
    ):
        with pytest.raises(ValidationError):
            Energy(**wrong, seconds=10, iterations=1)
    assert no_energy("no GPU").energy_j is None


def test_a_counter_that_lies_shows_beside_the_integrated_trace(trace):
    found = energy_of(trace(change=lambda t, s: s.update(power_w=480.0)), 101, 112, 1)
    assert found.discrepancy == pytest.approx(-0.2, abs=0.02)


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"without": ("power_w",)}, "Not Supported"),
        ({"change": lambda t, s: s.update(power_w=None if 104 < t < 106 else 600.0)}, "pauses for 2"),
    ],
)
def test_cross_check_is_left_out_with_a_reason(trace, keywords, reason):
    found = energy_of(trace(**keywords), 101, 112, 1)
    assert found.energy_j is not None and found.integrated_j is None
    assert reason in found.integrated_reason


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(power=st.floats(50, 1000), start=st.floats(100, 102), length=st.floats(10.1, 12))
def test_counter_is_right_within_its_period(trace, power, start, length):
    found = energy_of(trace(power_w=power), start, start + length, 1)
    # Each edge may be off by a period of the counter and one of the trace.
    assert found.energy_j == pytest.approx(power * length, abs=power * 0.3)
    assert found.integrated_j == pytest.approx(power * length, rel=1e-6)


def test_measured_window_is_long_enough_and_counts_its_iterations(trace, clock):
    replay = Replay(trace(seconds=40), clock.now)
    call = clock.workload("a", 0.02)
    with Recorder(replay, period_s=3600) as recorder:
        found = measure_energy(call, clock=clock, recorder=recorder, iterations=25, sleep=clock.sleep)
    assert 10 <= found.seconds <= 10.51 and found.iterations == round(found.seconds / 0.02)
    assert found.energy_j == pytest.approx(600 * found.seconds, rel=0.02)
    assert len(clock.calls) == found.iterations + 25  # once before the window


def test_cool_down_waits_for_the_band_but_not_for_ever(trace, clock):
    cooling = trace(seconds=60, change=lambda t, s: s.update(temperature_c=80 if t < 120 else 50))
    with Recorder(Replay(cooling, clock.now), period_s=3600) as recorder:
        keywords = {"clock": clock, "recorder": recorder, "iterations": 10, "sleep": clock.sleep}
        measure_energy(clock.workload("a", 0.1), cool_to_c=55, **keywords)
        assert 130 <= clock.now() <= 133
        begin = clock.now()
        measure_energy(clock.workload("a", 0.1), cool_to_c=20, cool_down_s=5, **keywords)
        assert 15 <= clock.now() - begin <= 18


def test_recorder_samples_in_its_thread_and_its_trace_can_be_replayed(trace, tmp_path):
    import time

    with Recorder(Replay(trace(), lambda: 105.0), period_s=0.001) as recorder:
        time.sleep(0.1)
    assert len(recorder.trace.samples) > 5
    (tmp_path / "again.json").write_text(recorder.trace.model_dump_json())
    assert read_trace(tmp_path / "again.json") == recorder.trace


def test_error_in_the_recorders_thread_is_not_lost(trace):
    import time

    class Lost(Replay):
        reads = 0

        def sample(self, *, full=True):
            self.reads += 1
            if self.reads > 2:
                raise MeasurementError("NVML: GPU is lost")
            return super().sample(full=full)

    with pytest.raises(MeasurementError, match="lost"), Recorder(Lost(trace(), lambda: 105.0), period_s=0.001):
        time.sleep(0.1)


@pytest.mark.parametrize("content", ["", "[]", '{"samples": 3}', json.dumps({"origin": "x", "samples": []})])
def test_what_is_no_trace_is_refused(tmp_path, content):
    path = tmp_path / "trace.json"
    with pytest.raises(MeasurementError, match=r"trace\.json: trace cannot be read"):
        read_trace(path)
    path.write_text(content)
    with pytest.raises(MeasurementError, match=r"trace\.json: is not a trace"):
        read_trace(path)


def test_replay_needs_samples(trace):
    empty = Trace(origin="synthetic", identity=trace().identity, samples=())
    with pytest.raises(MeasurementError, match="no samples"):
        Replay(empty, lambda: 0.0)
