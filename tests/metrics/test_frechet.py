import numpy as np
import pytest
import scipy.linalg
import torch
from cleanfid.fid import frechet_distance as cleanfid_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_statistics_to_metric

from dcae_bench.metrics.frechet import (
    FeatureStatistics,
    frechet_distance,
    frechet_of_gaussians,
    frechet_of_statistics,
)
from dcae_bench.metrics.intervals import frechet_interval

seeds = st.integers(0, 2**32 - 1)


def features(seed, n, d):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def statistics(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 8), (500, 120, 30)])
def test_agrees_with_the_matrix_square_root(n, m, d):
    x, y = features(1, n, d), features(2, m, d)
    (mean1, cov1), (mean2, cov2) = statistics(x), statistics(y)
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = np.square(mean1 - mean2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-9)
    assert cleanfid_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-9)
    theirs = fid_statistics_to_metric({"mu": mean1, "sigma": cov1}, {"mu": mean2, "sigma": cov2}, False)
    assert frechet_distance(x, y).value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_gaussians_with_commuting_covariances():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    a, b = rng.uniform(0.1, 4, 6), rng.uniform(0.1, 4, 6)
    mean1, mean2 = rng.standard_normal(6), rng.standard_normal(6)
    expected = np.square(mean1 - mean2).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    found = frechet_of_gaussians(mean1, basis * a @ basis.T, mean2, basis * b @ basis.T)
    assert found == pytest.approx(expected, rel=1e-12)


def test_one_dimension():
    x, y = np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]])  # means 1 and 7, variances 2 and 8
    assert frechet_distance(x, y).value == pytest.approx(36 + (8**0.5 - 2**0.5) ** 2)


def test_few_images_of_many_numbers_are_exact():
    # In an orthonormal frame of the span, the small problem is regular and has the same distance.
    d, n = 400, 12
    frame, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((d, 5)))
    x, y = features(4, n, 5), features(5, n, 5)
    assert frechet_distance(x @ frame.T, y @ frame.T).value == pytest.approx(frechet_distance(x, y).value, rel=1e-10)


@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_both_ways_agree(seed, n, m, d):
    x, y = features(seed, n, d), features(seed + 1, m, d)
    scale = np.trace(np.atleast_2d(np.cov(x, rowvar=False))) + np.trace(np.atleast_2d(np.cov(y, rowvar=False)))
    found = frechet_distance(x, y).value
    assert frechet_of_gaussians(*statistics(x), *statistics(y)) == pytest.approx(found, abs=1e-6 * scale)


@given(seeds, st.integers(2, 40), st.integers(2, 40), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_properties(seed, n, m, d):
    rng = np.random.default_rng(seed)
    x, y = features(seed, n, d), features(seed + 1, m, d)
    value = frechet_distance(x, y).value
    tolerance = 1e-9 * (np.square(x).sum() + np.square(y).sum())
    rotation, _ = np.linalg.qr(rng.standard_normal((d, d)))
    shift = rng.standard_normal(d)
    assert value > 0
    assert frechet_distance(y, x).value == pytest.approx(value, abs=tolerance)
    assert frechet_distance(x @ rotation, y @ rotation).value == pytest.approx(value, abs=tolerance)
    assert frechet_distance(rng.permutation(x), y).value == pytest.approx(value, abs=tolerance)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=tolerance)
    assert frechet_distance(x, x + shift).value == pytest.approx(shift @ shift, abs=tolerance)


@pytest.mark.parametrize(("n", "deficient"), [(8, True), (9, False)])
def test_result_says_what_qualifies_it(n, deficient):
    result = frechet_distance(features(0, 50, 8), features(1, n, 8))
    assert (result.images, result.dim, result.rank_deficient) == (n, 8, deficient)


def test_takes_tensors():
    x, y = features(0, 20, 4), features(1, 20, 4)
    assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == frechet_distance(x, y)


def test_running_statistics_do_not_depend_on_batches():
    x = features(0, 57, 5).astype(np.float32) * 1e-2 + 1e4  # a mean that would drown the variance in float32
    whole, parts = FeatureStatistics(5), FeatureStatistics(5)
    whole.update(x)
    for start in (0, 1, 20, 57):
        parts.update(x[start : {0: 1, 1: 20, 20: 57, 57: 57}[start]])
    assert parts.count == 57
    mean, covariance = statistics(x.astype(np.float64))
    for found in (whole, parts):
        np.testing.assert_allclose(found.mean, mean, rtol=1e-14)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-7, atol=1e-12)


def running(*parts, d=5):
    found = FeatureStatistics(d)
    for part in parts:
        found.update(part)
    return found


@given(seeds, st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(lambda sizes: sum(sizes) > 1))
@settings(max_examples=50, deadline=None)
def test_merged_statistics_are_those_of_all(seed, sizes):
    a, b, c = parts = [features(seed + i, n, 5) + 100 * i for i, n in enumerate(sizes)]
    left, right, tail = running(a), running(a), running(b)
    left.merge(running(b))
    left.merge(running(c))
    tail.merge(running(c))
    right.merge(tail)
    mean, covariance = statistics(np.concatenate(parts))
    for merged in (left, right):
        assert merged.count == sum(sizes)
        np.testing.assert_allclose(merged.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(merged.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_merging_keeps_the_other_and_its_length():
    one, other = running(features(0, 9, 5)), running(features(1, 4, 5))
    before = other.covariance
    one.merge(other)
    assert other.count == 4 and np.array_equal(other.covariance, before)
    with pytest.raises(ValueError, match="5 and 3 numbers"):
        one.merge(running(features(0, 9, 3), d=3))


@pytest.mark.parametrize("n", [200, 4])
def test_distance_of_running_statistics(n):
    x, y = features(1, n, 5), features(2, 50, 5)
    found, expected = frechet_of_statistics(running(x), running(y)), frechet_distance(x, y)
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    assert (found.images, found.dim, found.rank_deficient) == (n if n < 50 else 50, 5, n == 4)


@pytest.mark.parametrize("d", [1, 3])
def test_features_that_never_vary(d):
    x, constant = features(0, 20, d), np.full((20, d), 2.0)
    apart = np.square(x.mean(axis=0) - 2).sum()
    assert frechet_distance(constant, x).value == pytest.approx(apart + x.var(axis=0, ddof=1).sum())
    assert frechet_interval(constant, x).high > frechet_interval(constant, x).low
    assert frechet_distance(constant, constant).value == 0
    assert frechet_interval(constant, constant).high == 0


def test_given_statistics_stay_as_they_are():
    sides = [statistics(features(seed, 20, 4)) for seed in (0, 1)]
    before = [(mean.copy(), covariance.copy()) for mean, covariance in sides]
    frechet_of_gaussians(*sides[0], *sides[1])
    one = running(features(0, 9, 5))
    covariance = one.covariance
    frechet_of_statistics(one, running(features(1, 9, 5)))
    np.testing.assert_equal(sides, before)
    np.testing.assert_array_equal(one.covariance, covariance)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "got 1"),
        (np.zeros((4, 3)), np.zeros((5, 4)), "3 and 4 numbers"),
        (np.full((4, 3), np.nan), np.zeros((5, 3)), "not finite"),
        (np.zeros(4), np.zeros((5, 3)), "shape"),
    ],
)
def test_unusable_features_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


def test_statistics_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        frechet_of_gaussians(np.zeros(3), np.eye(3), np.zeros(3), np.eye(4))
    with pytest.raises(ValueError, match="5 and 3 numbers"):
        frechet_of_statistics(running(features(0, 9, 5)), running(features(0, 9, 3), d=3))
    with pytest.raises(ValueError, match="no features"):
        _ = FeatureStatistics(3).mean
    with pytest.raises(ValueError, match="needs 2"):
        _ = FeatureStatistics(3).covariance
