"""Judgements on ablations: the mean over seeds with its interval, and whether an effect is there."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dcae_bench.records.record import Interval

LEVEL = 0.95
METHOD = "Student's t over seeds"

EffectVerdict = Literal["better", "worse", "not there", "not judged"]
"""``not there``: the interval of the difference holds 0. ``not judged``: one seed has no interval."""


@dataclass(frozen=True)
class SeedMean:
    """Mean of one value per seed, with its interval; None: one seed has none."""

    mean: float
    interval: Interval | None
    count: int


def over_seeds(values: Sequence[float]) -> SeedMean:
    """Mean of one value per seed, with the interval of Student's t for 95 %. Raises ValueError for no values."""
    if not values:
        raise ValueError("a mean over seeds needs a value")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return SeedMean(mean, None, len(values))
    from scipy.stats import t  # takes a second to import

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return SeedMean(mean, Interval(low=mean - half, high=mean + half, level=LEVEL, method=METHOD), len(values))


def judge_effect(difference: SeedMean, better: str) -> EffectVerdict | None:
    """Whether an effect is there: the interval of the difference does not hold 0. None: no direction is better."""
    if better not in ("higher", "lower"):
        return None
    if difference.interval is None:
        return "not judged"
    if difference.interval.low <= 0 <= difference.interval.high:
        return "not there"
    return "better" if (difference.mean > 0) == (better == "higher") else "worse"
