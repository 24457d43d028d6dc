"""Verdicts: how a measured number stands to the reported one, always with the reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dcae_bench.protocols import SETTINGS
from dcae_bench.records import Metric, Record
from dcae_bench.tables.markdown import Footnotes
from dcae_bench.tables.reported import ReportedMetric, ReportedRow, ReportedValue

# The record's key that measures what the paper prints; other Fréchet distances are other quantities.
RECORD_KEYS: dict[ReportedMetric, str] = {
    "rfid": "rfid_pytorch_fid",
    "psnr": "psnr",
    "ssim": "ssim",
    "lpips": "lpips_alex_u8",
}
HIGHER_IS_BETTER: dict[ReportedMetric, bool] = {"rfid": False, "psnr": True, "ssim": True, "lpips": False}


class Verdict(StrEnum):
    """How a measured number stands to the reported one."""

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


def judge(
    reported: ReportedRow,
    record: Record | None,
    metric: ReportedMetric,
    *,
    not_run_reason: str = "no record of this row in the profile",
) -> Judgement:
    """Judge one metric of a reported row against a record, or its absence.

    Noise is the half-width of the metric's own interval, none where the record has no interval; it widens the half
    unit of the last printed decimal that counts as a match.
    """
    if record is None:
        return Judgement(Verdict.NOT_RUN, not_run_reason)
    obstacle = next(_obstacles(reported, record, metric), None)
    if obstacle is not None:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    measured = record.metrics[RECORD_KEYS[metric]]
    return compare([reported.metrics[metric]], measured, higher_is_better=HIGHER_IS_BETTER[metric])


def _obstacles(reported: ReportedRow, record: Record, metric: ReportedMetric) -> Iterator[str]:
    """Reasons why the two numbers do not measure the same thing, the plainest first."""
    if metric not in reported.metrics:
        yield f"the paper prints no {metric} for this row" if reported.metrics else "the paper has no such row"
        return
    if not reported.metrics[metric].trusted:
        yield "the reported value is recalled from memory and was found in no source"
    if record.kind != "reconstruction":
        yield f"the record is of a {record.kind}, not of a reconstruction"
    pairs = (
        ("family", reported.family, record.subject.family),
        ("compression", f"f{reported.compression}", f"f{record.subject.compression}"),
        ("latent channels", f"c{reported.latent_channels}", f"c{record.subject.latent_channels}"),
        ("data set", reported.dataset, record.data.name),
        ("split", reported.split, record.data.split),
        ("resolution", f"{reported.resolution} px", f"{record.data.resolution} px"),
        ("protocol", reported.protocol, record.protocol),
        ("weights source", reported.weights_source, record.subject.weights_source),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            yield f"{what} differs: {theirs} reported, {ours} measured"
    usual = SETTINGS.get(reported.protocol, {})
    for switch, value in record.settings.items():
        if value != usual.get(switch):
            yield f"{switch} differs: {usual.get(switch, 'none')} in {reported.protocol}, {value} measured"
    parameters = record.subject.parameters
    if reported.parameters is not None and parameters != reported.parameters:
        yield f"parameters differ: {reported.parameters:,} reported, {parameters:,} measured"
    if reported.parameters_min is not None and parameters < reported.parameters_min:
        yield f"parameters differ: at least {reported.parameters_min:,} reported, {parameters:,} measured"
    if reported.images is None:
        yield "how many images the reported value was measured on is not known"
    elif reported.images != record.data.images:
        yield f"sample count differs: {reported.images:,} images reported, {record.data.images:,} measured"
    if RECORD_KEYS[metric] not in record.metrics:
        yield f"the record holds no {RECORD_KEYS[metric]}"


def compare(
    reported: Sequence[ReportedValue], measured: Metric, *, higher_is_better: bool, spread: float = 0.0
) -> Judgement:
    """Judge a measured value against the printed one, the nearest where there are several.

    ``spread`` is how far apart, relative to the value, two right measurements by the authors themselves have been.
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
    # Binary floats sit a hair off the decimal they print, so an exact half unit must not fall to rounding errors.
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


class Judged(Protocol):
    """What one weights source gave for a reported row."""

    @property
    def judgements(self) -> Mapping[str, Judgement]:
        """By reported metric."""

    @property
    def missing(self) -> Sequence[str]:
        """Why nothing was measured; empty where something was."""


def verdict_cell(answers: Mapping[str, Judged], labels: Mapping[str, str], footnotes: Footnotes) -> str:
    """The verdict on each weights source, or the one that all share; reasons as footnotes.

    ``labels`` are the metrics' names.
    """
    found = {source: _of_one_source(answer, labels, footnotes) for source, answer in answers.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{source}: {verdict}" for source, verdict in found.items())


def _of_one_source(answer: Judged, labels: Mapping[str, str], footnotes: Footnotes) -> str:
    """One verdict where all metrics share verdict and reason, else one for each metric."""
    judgements = answer.judgements
    if len(set(judgements.values())) == 1:
        judgement = next(iter(judgements.values()))
        return f"{judgement.verdict}{footnotes.mark(answer.missing or [judgement.reason])}"
    return ", ".join(
        f"{labels[metric]} {judgement.verdict}{footnotes.mark([judgement.reason])}"
        for metric, judgement in judgements.items()
    )
