import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.measurement.instruments.statistics import (
    Estimate,
    combine_restarts,
    drift,
    flags,
    median_estimate,
    ratio_estimate,
    settled,
)

rates = st.lists(st.floats(1, 1e4), min_size=2, max_size=30)


def noise(seed: int, size: int, sigma: float = 1.0, level: float = 100.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, sigma, size)


def kinds(values, seed: int = 0) -> list[str]:
    return [flag.kind for flag in flags(values, seed=seed)]


def covered(truth: float, estimates) -> float:
    found = list(estimates)
    return np.mean([estimate.low <= truth <= estimate.high for estimate in found])


@pytest.mark.parametrize("size", [10, 20])
@pytest.mark.parametrize("shape", ["normal", "lognormal", "exponential", "student"])
def test_interval_of_the_median_covers_95_percent(shape, size):
    random = np.random.default_rng(size)
    draw, truth = {
        "normal": (lambda: random.normal(100, 1, size), 100),
        "lognormal": (lambda: np.exp(random.normal(5, 0.05, size)), np.exp(5)),
        "exponential": (lambda: 100 + random.exponential(1, size), 100 + np.log(2)),
        "student": (lambda: 100 + random.standard_t(3, size), 100),
    }[shape]
    # 400 series: the standard error of the share is 1.1 percentage points.
    assert 0.925 <= covered(truth, (median_estimate(draw(), seed=i, resamples=400) for i in range(400))) <= 0.985


def test_interval_of_a_ratio_covers_95_percent_although_the_machine_slows_down():
    random = np.random.default_rng(1)

    def one(seed: int) -> Estimate:
        machine = np.linspace(1, 0.7, 10) * random.normal(1, 0.05, 10)
        a, b = (speed * machine * random.normal(1, 0.01, 10) for speed in (300, 100))
        return ratio_estimate(a, b, seed=seed, resamples=400)

    found = [one(seed) for seed in range(300)]
    assert 0.92 <= covered(3, found) <= 0.985
    # The common slowdown of 30 % cancels: the intervals are as narrow as the blocks' own 1 % makes them.
    assert np.median([estimate.high - estimate.low for estimate in found]) < 0.1


def test_interval_over_restarts_covers_what_changes_from_process_to_process():
    random = np.random.default_rng(2)
    alone, together = [], []
    for seed in range(300):
        restarts = [
            median_estimate(random.normal(100 + random.normal(0, 2), 1, 10), seed=seed, resamples=200) for _ in range(3)
        ]
        alone.append(restarts[0])
        together.append(combine_restarts(restarts))
    assert 0.92 <= covered(100, together) <= 0.98
    assert covered(100, alone) < 0.6  # one process does not know of it


def test_restarts_of_a_ratio_are_averaged_as_logarithms():
    parts = [Estimate(value=value, low=value, high=value, method="", samples=10) for value in (2.0, 8.0)]
    both = combine_restarts(parts, scale="log")
    assert both.value == pytest.approx(4) and both.samples == 2
    assert both.low * both.high == pytest.approx(16)
    assert combine_restarts(parts).value == pytest.approx(5)
    assert combine_restarts(parts[:1]) == parts[0]


@given(rates, st.floats(0.01, 100))
def test_median_estimate_scales_and_holds_the_median(values, factor):
    plain = median_estimate(values, resamples=50)
    scaled = median_estimate([factor * value for value in values], resamples=50)
    assert plain.value == np.median(values)
    assert min(values) <= plain.low <= plain.high <= max(values)
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (factor * plain.value, factor * plain.low, factor * plain.high)
    )


@given(rates)
def test_estimates_repeat_bit_for_bit(values):
    assert median_estimate(values, seed=3, resamples=50) == median_estimate(values, seed=3, resamples=50)
    assert flags(values, seed=3) == flags(values, seed=3)


@given(rates)
def test_ratio_to_itself_is_one(values):
    ratio = ratio_estimate(values, values, resamples=50)
    assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


@pytest.mark.parametrize("bad", [[1.0], [], [1.0, float("nan")], [1.0, float("inf")]])
def test_too_few_or_non_finite_values_are_refused(bad):
    with pytest.raises(ValueError):
        median_estimate(bad)


def test_series_of_a_ratio_must_pair_up_and_be_positive():
    with pytest.raises(ValueError, match="as many blocks: 3 and 2"):
        ratio_estimate([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="positive"):
        ratio_estimate([1, 2], [1, 0])


def test_quiet_series_raise_no_flags():
    alarms = [kinds(noise(seed, 10, sigma=2), seed) for seed in range(200)]
    assert sum("step" in found or "drift" in found for found in alarms) <= 8
    assert sum("outlier" in found for found in alarms) <= 16
    assert kinds([5.0] * 10) == []
    assert kinds(100 + noise(0, 10, sigma=0.001, level=0)) == []  # below 1 %: nothing worth a word


@pytest.mark.parametrize("at", [4, 6, 9])
def test_step_is_found_with_its_place_and_size(at):
    right = 0
    for seed in range(50):
        values = noise(seed, 12)
        values[at:] *= 0.9
        changes = [flag for flag in flags(values, seed=seed) if flag.kind != "outlier"]
        assert len(changes) == 1
        right += changes[0].kind == "step" and abs(changes[0].block - at) <= 1 and abs(changes[0].size + 0.1) < 0.03
    assert right >= 45


def test_drift_is_found_with_its_size_and_told_from_a_step():
    right = 0
    for seed in range(50):
        values = noise(seed, 12) + np.linspace(0, 12, 12)
        changes = [flag for flag in flags(values, seed=seed) if flag.kind != "outlier"]
        right += [flag.kind for flag in changes] == ["drift"] and abs(changes[0].size - 0.113) < 0.04
    assert right >= 46


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 11), st.sampled_from([0.5, 0.8, 1.2, 2.0]))
def test_one_outlier_is_an_outlier_and_moves_the_median_little(seed, at, factor):
    values = noise(seed, 12, sigma=0.5)
    spoilt = values.copy()
    spoilt[at] *= factor
    found = [flag for flag in flags(spoilt) if flag.kind == "outlier" and flag.block == at]
    assert len(found) == 1 and found[0].size == pytest.approx(factor - 1, abs=0.05)
    assert median_estimate(spoilt).value == pytest.approx(median_estimate(values).value, rel=0.01)


def test_outlier_is_seen_beside_a_step():
    values = noise(0, 16, sigma=0.5)
    values[8:] *= 0.8
    values[3] *= 1.5
    assert sorted((flag.kind, flag.block) for flag in flags(values)) == [("outlier", 3), ("step", 8)]


def test_flags_in_words():
    values = [100.0] * 6 + [80.0] * 6
    assert [flag.text for flag in flags(values)] == ["step of -22.2 % at block 7"]


@settings(deadline=None)
@given(st.floats(0.01, 10), st.integers(5, 20), st.booleans())
def test_a_steady_trend_is_never_settled(slope, window, falling):
    series = 100 + slope * np.arange(2 * window)
    change, _ = drift(series, window)
    assert settled(series[::-1] if falling else series, window) == (abs(change) < 0.01)


def test_warm_up_settles_when_the_decay_is_over():
    series = 100 * (1 + np.exp(-np.arange(200) / 10)) * np.random.default_rng(0).normal(1, 0.003, 200)
    first = next(n for n in range(1, 200) if settled(series[:n], 10))
    assert 40 <= first <= 80  # the decay is below 1 % of a window's change after about 50
    assert not settled(series[:19], 10)


def test_warm_up_settles_in_noise_larger_than_the_tolerance():
    assert np.mean([settled(noise(seed, 20, sigma=8), 10) for seed in range(200)]) > 0.85
