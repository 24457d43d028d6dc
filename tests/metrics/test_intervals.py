import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.metrics.frechet import frechet_distance, frechet_of_gaussians
from dcae_bench.metrics.intervals import (
    frechet_influence,
    frechet_interval,
    frechet_sample_influence,
    frechet_sample_influence_from_features,
    frechet_sample_interval,
    mean_interval,
    sample_size_notes,
    share_interval,
)


def pairs(rng, n, d, noise=0.3):
    """Features and those of slightly wrong reconstructions, from a Gaussian whose Fréchet distance is known."""
    deviations = np.arange(1, d + 1) ** -0.5
    real = rng.standard_normal((n, d)) * deviations
    return real, 0.9 * real + noise * rng.standard_normal((n, d)) * deviations + 0.2 * deviations


def true_distance(d, noise=0.3):
    deviations = np.arange(1, d + 1) ** -0.5
    fake = np.diag(deviations**2 * (0.81 + noise**2))
    return frechet_of_gaussians(np.zeros(d), np.diag(deviations**2), 0.2 * deviations, fake)


def weighted_distance(real, fake, weights):
    """The distance with image pairs weighted, by definition."""
    weights = weights * len(real) / weights.sum()
    means = [weights @ side / len(side) for side in (real, fake)]
    a, b = (
        (side - mean) * np.sqrt(weights / (len(side) - 1))[:, None]
        for side, mean in zip((real, fake), means, strict=True)
    )
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.square(means[0] - means[1]).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross


def test_mean_interval_is_scipys():
    values = np.random.default_rng(0).gamma(2, size=50)
    expected = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6)
    assert found.level == 0.95 and "normal" in found.method


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0]], [1.0, np.inf]])
def test_means_without_an_interval(values):
    with pytest.raises(ValueError, match="2 finite values"):
        mean_interval(values)


@given(st.integers(1, 5000), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_interval_of_a_share_is_wilsons(count, part):
    hits = round(part * count)
    p, z2 = hits / count, 1.959963984540054**2 / count
    middle, half = (p + z2 / 2) / (1 + z2), np.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    found = share_interval(p, count)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), rel=1e-6, abs=1e-12)
    assert found.low <= p <= found.high and found.high - found.low > 0


def test_a_share_outside_0_to_1_has_no_interval():
    with pytest.raises(ValueError):
        share_interval(1.1, 100)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(40, 25, 5), (25, 40, 5), (30, 12, 20), (12, 30, 20)]))
@settings(max_examples=20, deadline=None)
def test_influence_of_samples_is_the_derivative(seed, shape):
    rng = np.random.default_rng(seed)
    n, m, d = shape
    real, fake = pairs(rng, n, d)[0], pairs(rng, m, d)[1]
    influence = frechet_sample_influence(real.mean(axis=0), np.cov(real, rowvar=False), fake)
    assert frechet_sample_influence_from_features(real, fake) == pytest.approx(
        influence, abs=1e-6 * np.abs(influence).max()
    )
    direction = rng.standard_normal(m)
    step = 1e-4 * (direction - direction.mean())

    def distance(weights):
        mean = weights @ fake / m
        b = (fake - mean) * np.sqrt(weights / (m - 1))[:, None]
        a = (real - real.mean(axis=0)) / np.sqrt(n - 1)
        cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        return np.square(real.mean(axis=0) - mean).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross

    slope = (distance(1 + step) - distance(1 - step)) / 2
    assert slope == pytest.approx(influence @ step / m, abs=1e-4 * np.abs(influence).max() * np.abs(step).mean())


def test_interval_of_samples_tells_their_spread():
    """Over many draws of samples against one reference, the standard error is the distance's standard deviation."""
    rng, d = np.random.default_rng(5), 6
    real = pairs(rng, 500, d)[0]
    mean, covariance = real.mean(axis=0), np.cov(real, rowvar=False)
    values, halves = [], []
    for _ in range(150):
        fake = pairs(rng, 80, d)[1]
        value = frechet_distance(real, fake).value
        found = frechet_sample_interval(frechet_sample_influence(mean, covariance, fake), value)
        values.append(value)
        halves.append((found.high - value) / 1.96)
    assert np.mean(halves) == pytest.approx(np.std(values), rel=0.2)
    assert "reference fixed" in found.method


@given(st.integers(0, 2**32 - 1), st.sampled_from([(40, 5), (12, 30), (30, 30), (31, 30)]))
@settings(max_examples=20, deadline=None)
def test_influence_is_the_derivative(seed, shape):
    rng = np.random.default_rng(seed)
    real, fake = pairs(rng, *shape)
    influence = frechet_influence(real, fake)
    direction = rng.standard_normal(len(real))
    step = 1e-4 * (direction - direction.mean())
    up, down = (weighted_distance(real, fake, 1 + sign * step) for sign in (1, -1))
    scale = np.abs(influence).max() * np.abs(step).sum()
    assert len(real) * (up - down) / 2 == pytest.approx(influence @ step, abs=2e-3 * scale)
    assert influence.sum() == pytest.approx(0, abs=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    real, fake = pairs(np.random.default_rng(0), 100, 8)
    whole = frechet_influence(real, fake)
    monkeypatch.setattr("dcae_bench.metrics.rows.ROWS", 7)
    np.testing.assert_allclose(frechet_influence(real, fake), whole, rtol=1e-8, atol=1e-12)


def test_covers_a_known_distance():
    rng, d, trials = np.random.default_rng(0), 6, 200
    truth = true_distance(d)
    inside = sum((i := frechet_interval(*pairs(rng, 800, d))).low <= truth <= i.high for _ in range(trials))
    # 95 % of 200 is 190; a fair 95 % interval misses these bounds once in about a thousand such tests.
    assert 179 <= inside <= 198


def test_width_is_the_sampling_spread_below_full_rank():
    rng = np.random.default_rng(1)
    found = [
        (frechet_distance(*sides).value, frechet_interval(*sides)) for sides in (pairs(rng, 40, 60) for _ in range(150))
    ]
    spread = np.std([value for value, _ in found], ddof=1)
    error = np.mean([interval.high - interval.low for _, interval in found]) / (2 * 1.96)
    assert 0.8 < error / spread < 1.4


def test_bootstrap_agrees_at_full_rank_and_repeats():
    real, fake = pairs(np.random.default_rng(2), 600, 4)
    exact = frechet_interval(real, fake)
    drawn = frechet_interval(real, fake, resamples=200, seed=5)
    assert drawn == frechet_interval(real, fake, resamples=200, seed=5)
    assert drawn != frechet_interval(real, fake, resamples=200, seed=6)
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.25)
    assert "200 resamples" in drawn.method and "jackknife" in exact.method


@pytest.mark.parametrize("shape", [(50, 8), (20, 40)])
def test_half_precision_and_a_given_value(shape):
    real, fake = pairs(np.random.default_rng(3), *shape)
    value = frechet_distance(real, fake).value
    whole = frechet_interval(real, fake)
    half = frechet_interval(real.astype(np.float16), fake.astype(np.float16), value=value)
    assert (whole.low + whole.high) / 2 == pytest.approx(value)
    assert (half.low, half.high) == pytest.approx((whole.low, whole.high), rel=5e-3)


def test_order_and_identity():
    rng = np.random.default_rng(4)
    real, fake = pairs(rng, 60, 5)
    order = rng.permutation(60)
    found, shuffled = frechet_interval(real, fake), frechet_interval(real[order], fake[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high), rel=1e-9)
    same = frechet_interval(real, real)
    assert (same.low, same.high) == pytest.approx((0, 0), abs=1e-9)


def test_unpaired_features_are_refused():
    with pytest.raises(ValueError, match="paired features"):
        frechet_interval(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="2 resamples or more"):
        frechet_interval(np.zeros((4, 3)), np.zeros((4, 3)), resamples=1)


def test_notes_on_small_sets():
    assert sample_size_notes(2049, 2048) == ()
    (rank,) = sample_size_notes(2000, 2048)
    assert rank.startswith("2000 images for 2048 features") and "biased upwards" in rank
    assert sample_size_notes(50_000, 2048, 50_000) == ()
    assert sample_size_notes(5_000, 2048, 50_000)[0].startswith("5000 images instead of the protocol's 50000")
    assert len(sample_size_notes(20, 2048, 50_000)) == 2
