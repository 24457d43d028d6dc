"""Statistics of timings: medians and ratios with intervals, combined restarts, and flags of doubtful series.

No function drops a sample. An outlier, a step or a drift is reported as a flag and stays in the estimate.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from dcae_bench.base.typed import Strict

RESAMPLES = 4000
TOLERANCE = 0.01
"""Relative change below which a warm-up counts as settled, and a step, drift or outlier is not reported."""
OUTLIER_SIGMAS = 6.0
"""Deviations of an outlier. Ten blocks estimate their spread badly: a lower limit would flag 1 in 20 quiet series."""
SIGNIFICANCE = 0.01
MIN_SEGMENT = 3
_SIGMA_OF_MAD = 1.4826


class Estimate(Strict):
    """A number with its interval."""

    value: float
    low: float
    high: float
    level: float = 0.95
    method: str = Field(description="how the interval was computed, and over what")
    samples: int = Field(description="number of blocks, rounds or restarts behind the value")

    def times(self, factor: float) -> "Estimate":
        """The estimate multiplied by ``factor``, e.g. to change the unit."""
        scaled = {"value": self.value * factor, "low": self.low * factor, "high": self.high * factor}
        return self.model_copy(update=scaled)


class Flag(Strict):
    """Something unusual in a series of blocks that a reader must know."""

    kind: Literal["outlier", "step", "drift"]
    block: int = Field(description="index of the outlier or of the first block after the step; 0 for a drift")
    size: float = Field(description="size of the outlier, step or drift over the series, relative to the median")

    @property
    def text(self) -> str:
        """The flag in words."""
        size = f"{100 * self.size:+.1f} %"
        if self.kind == "drift":
            return f"drift of {size} over the series"
        return f"{self.kind} of {size} at block {self.block + 1}"


def median_estimate(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Median of the blocks of one process, with a bootstrap interval.

    Blocks count as independent: they last a second or longer, and couplings between iterations (clock control, caches)
    are shorter. The interval does not cover changes from process to process; :func:`combine_restarts` adds those.
    """
    series = _series(values, 2)
    medians = np.median(series[_draws(series.size, seed, resamples)], axis=1)
    return _bootstrap(float(np.median(series)), medians, series.size, "blocks of one process")


def ratio_estimate(a: Sequence[float], b: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Median of ``a[i] / b[i]`` of two series that were timed in turn (A B A B), with a bootstrap interval.

    A disturbance that slows down both blocks of a round cancels in the ratio of the round.
    """
    first, second = _series(a, 2), _series(b, 2)
    if first.size != second.size:
        raise ValueError(f"interleaved series have as many blocks: {first.size} and {second.size} given")
    if not (second > 0).all() or not (first > 0).all():
        raise ValueError("a ratio needs positive values")
    ratios = first / second
    medians = np.median(ratios[_draws(ratios.size, seed, resamples)], axis=1)
    return _bootstrap(float(np.median(ratios)), medians, ratios.size, "rounds of one process")


def combine_restarts(
    restarts: Sequence[Estimate], *, scale: Literal["linear", "log"] = "linear", level: float = 0.95
) -> Estimate:
    """Mean over process restarts, with Student's interval. ``log`` gives the geometric mean, for ratios.

    A bootstrap over three restarts would be far too narrow, because three values have few resamples. Student's t is
    right for few values, and the spread of the restarts' medians includes the spread within each restart. A single
    restart is returned unchanged.
    """
    if len(restarts) == 1:
        return restarts[0]
    values = _series([restart.value for restart in restarts], 2)
    values = np.log(values) if scale == "log" else values
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(values.size)
    reach = stats.t.ppf(0.5 + level / 2, values.size - 1) * error
    low, middle, high = (float(np.exp(x) if scale == "log" else x) for x in (mean - reach, mean, mean + reach))
    name = "geometric mean" if scale == "log" else "mean"
    method = f"Student's t, {name} of {values.size} process restarts"
    return Estimate(value=middle, low=low, high=high, level=level, method=method, samples=values.size)


def drift(values: Sequence[float], window: int) -> tuple[float, float]:
    """Relative change of the median between the last two windows of ``window`` values, and its standard error."""
    series = _series(values, 2 * window)
    before, after = series[-2 * window : -window], series[-window:]
    level = np.median(after)
    # 1.2533: ratio of the standard errors of a median and of a mean, for normal values.
    errors = [1.2533 * _spread(part) / np.sqrt(window) for part in (before, after)]
    return float((level - np.median(before)) / level), float(np.hypot(*errors) / level)


def settled(values: Sequence[float], window: int, tolerance: float = TOLERANCE) -> bool:
    """Whether a warm-up is over: the median drifts by less than ``tolerance``, or by no more than noise explains.

    A steady trend does not pass as noise: over two windows it moves the median by five standard errors.
    """
    if len(values) < 2 * window:
        return False
    change, error = drift(values, window)
    return abs(change) < max(tolerance, 2 * error)


def flags(values: Sequence[float], *, seed: int = 0) -> tuple[Flag, ...]:
    """Outliers of a series of blocks, and its step or drift. Changes below 1 % are not reported.

    A step is found by Pettitt's rank test, a drift by Kendall's rank correlation with time; Theil and Sen's slope gives
    the size of the drift. A step also correlates with time, so only the one that leaves less deviation is reported.
    """
    series = _series(values, 1)
    found: list[Flag] = []
    change = _change(series, seed)
    flat = series
    if change is not None:
        found.append(change)
        flat = series - _fit(series, change) + np.median(series)
    centre = np.median(flat)
    limit = max(OUTLIER_SIGMAS * _spread(flat), TOLERANCE * abs(centre))
    for index in np.flatnonzero(np.abs(flat - centre) > limit):
        found.append(Flag(kind="outlier", block=int(index), size=float((flat[index] - centre) / centre)))
    return tuple(found)


def _change(series: np.ndarray, seed: int) -> Flag | None:
    """The step or drift of a series, if there is one."""
    if series.size < 2 * MIN_SEGMENT or np.ptp(series) == 0:
        return None
    candidates = [flag for flag in (_step(series, seed), _drift(series)) if flag and abs(flag.size) >= TOLERANCE]
    return min(candidates, key=lambda flag: np.abs(series - _fit(series, flag)).sum(), default=None)


def _step(series: np.ndarray, seed: int) -> Flag | None:
    """The step of a series by Pettitt's change point test, if there is one.

    The statistic of each split is divided by its standard deviation, so late and early steps count alike. Permutations
    give the significance, because the usual formula is loose for ten blocks. A step near the end of a short series
    cannot become significant: three blocks of twelve have few permutations. So a step that exceeds
    :data:`OUTLIER_SIGMAS` deviations of the remaining series needs no test.
    """
    ranks = stats.rankdata(series)
    n = series.size
    sizes = np.arange(MIN_SEGMENT, n - MIN_SEGMENT + 1)

    def statistic(order: np.ndarray) -> np.ndarray:
        sums = np.cumsum(order, axis=-1)[..., sizes - 1]
        return np.abs(2 * sums - sizes * (n + 1)) / np.sqrt(sizes * (n - sizes))

    found = statistic(ranks)
    at = int(sizes[found.argmax()])
    size = np.median(series[at:]) - np.median(series[:at])
    flag = Flag(kind="step", block=at, size=float(size / np.median(series)))
    if abs(size) > OUTLIER_SIGMAS * _spread(series - _fit(series, flag)):
        return flag
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (2000, 1)), axis=1)
    chance = np.mean(statistic(shuffled).max(axis=1) >= found.max() - 1e-9)
    return flag if chance < SIGNIFICANCE else None


def _drift(series: np.ndarray) -> Flag | None:
    """The drift of a series, if it is significant."""
    time = np.arange(series.size)
    if stats.kendalltau(time, series).pvalue >= SIGNIFICANCE:
        return None
    slope = stats.theilslopes(series, time).slope
    return Flag(kind="drift", block=0, size=float(slope * (series.size - 1) / np.median(series)))


def _fit(series: np.ndarray, flag: Flag) -> np.ndarray:
    """The series without noise: only the flagged step or drift."""
    if flag.kind == "step":
        parts = (series[: flag.block], series[flag.block :])
        return np.concatenate([np.full(part.size, np.median(part)) for part in parts])
    time = np.arange(series.size)
    line = stats.theilslopes(series, time).slope * time
    return line + np.median(series - line)


def _bootstrap(value: float, resampled: np.ndarray, samples: int, of: str) -> Estimate:
    # A bootstrap of few values is too narrow. Hesterberg (2015, "What teachers should know about the bootstrap") moves
    # the quantiles outwards, by as much as Student's t exceeds the normal distribution.
    tail = stats.norm.cdf(-stats.t.ppf(0.975, samples - 1) * np.sqrt(samples / (samples - 1)))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    method = f"expanded percentile bootstrap of the median over {samples} {of}"
    return Estimate(value=value, low=float(low), high=float(high), method=method, samples=samples)


def _draws(size: int, seed: int, resamples: int) -> np.ndarray:
    """Indices (resamples, size) of bootstrap resamples."""
    return np.random.default_rng(seed).integers(0, size, (resamples, size))


def _spread(values: np.ndarray) -> float:
    """Standard deviation, estimated from the median absolute deviation, which outliers hardly change."""
    return float(_SIGMA_OF_MAD * np.median(np.abs(values - np.median(values))))


def _series(values: Sequence[float], least: int) -> np.ndarray:
    """The values as float64. Raises ValueError for fewer than ``least`` values, and for values that are not finite."""
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or series.size < least:
        raise ValueError(f"at least {least} values are needed, {series.size} given")
    if not np.isfinite(series).all():
        raise ValueError("a timing is not finite")
    return series
