"""Verdicts: how a measured number compares with the reported one, always with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dcae_bench.records.record import Metric
from dcae_bench.tables.reported.values import ReportedValue


class Verdict(StrEnum):
    """How a measured number compares with the reported one."""

    MATCH = "match"
    WITHIN_NOISE = "within_noise"
    BETTER = "better"
    DEVIATES = "deviates"
    NOT_COMPARABLE = "not_comparable"
    NOT_RUN = "not_run"


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reason, in one sentence."""

    verdict: Verdict
    reason: str


def judge_value(
    reported: Sequence[ReportedValue], measured: Metric, *, higher_is_better: bool, spread: float = 0.0
) -> Judgement:
    """Judge a measured value against the nearest of the printed values.

    A difference of half a unit of the last printed decimal is a match. A larger difference counts as noise up to the
    half-width of the metric's own interval, or up to ``spread`` if that is wider. ``spread`` is the relative
    difference between correct measurements by the authors themselves.
    """
    printed = min(reported, key=lambda value: abs(measured.value - value.value))
    difference = measured.value - printed.value
    noise, band = 0.0, ""
    if measured.interval:
        noise = measured.interval.half_width
        band = f"the {measured.interval.level:.0%} interval of ±{noise:.2g}"
    if spread * printed.value > noise:
        noise, band = spread * printed.value, f"the {spread:.1%} by which the authors' own measurements differ"
    tolerance = 0.5 * 10**-printed.decimals
    # A binary float lies slightly off the decimal that it prints. Without slack, a difference of exactly half a unit
    # would depend on rounding errors.
    slack = 1e-9 * max(1.0, abs(printed.value))
    found = f"{measured.value:.{printed.decimals + 2}f} measured, {printed.text} reported"
    if abs(difference) <= tolerance + slack:
        return Judgement(Verdict.MATCH, f"{found}: equal to the printed decimals")
    if abs(difference) <= tolerance + noise + slack:
        return Judgement(Verdict.WITHIN_NOISE, f"{found}: apart by no more than {band}")
    apart = f"{abs(difference):.{printed.decimals + 2}f}" + (f", beyond {band}" if band else "")
    if (difference > 0) == higher_is_better:
        return Judgement(Verdict.BETTER, f"{found}: better by {apart}")
    return Judgement(Verdict.DEVIATES, f"{found}: worse by {apart}")
