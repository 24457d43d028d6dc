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


@dataclass(frozen=True)
class Training:
    """What a training showed a model, as far as it is known."""

    datasets: tuple[str, ...] | None
    images: int | None
    """Images seen."""


def training_differences(reported: Training, measured: Training) -> str | None:
    """Why two trainings are not, or may not be, equal in data and images seen; None if they are equal."""
    found = []
    for what, theirs, ours in (
        ("training data", _named(reported.datasets), _named(measured.datasets)),
        ("images seen in training", _counted(reported.images), _counted(measured.images)),
    ):
        if theirs is None:
            found.append(f"no source tells the {what} of the reported value")
        elif ours is None:
            found.append(f"the records do not tell the {what} of the measured one")
        if theirs != ours and None not in (theirs, ours):
            found.append(f"{what} differ: {theirs} reported, {ours} measured")
    return "; ".join(found) or None


def _named(datasets: Sequence[str] | None) -> str | None:
    return None if datasets is None else " + ".join(sorted(datasets))


def _counted(images: int | None) -> str | None:
    return None if images is None else f"{images:,}"


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
