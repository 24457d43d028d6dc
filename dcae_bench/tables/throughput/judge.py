"""Judgements on speed-ups: a measured ratio of images/s against the paper's."""

from collections.abc import Iterator

from dcae_bench.measurement.instruments.statistics import Estimate
from dcae_bench.measurement.record import ThroughputRecord
from dcae_bench.tables.reported.throughput import ReportedModel, ReportedSpeed
from dcae_bench.tables.reported.verdict import Judgement, Verdict
from dcae_bench.tables.throughput.table import BASELINE


def judge_ratio(
    record: ThroughputRecord,
    baseline: ThroughputRecord | None,
    ratio: Estimate | None,
    row: ReportedModel | None,
    base_row: ReportedModel | None,
) -> Judgement:
    """Judge a speed-up against the paper's: a match within the printed digits, noise within the interval.

    Absolute numbers are never judged, because clocks and software have changed since the paper. ``row`` and
    ``base_row`` are the paper's rows of the record and of the baseline.
    """
    fast, slow = reported_pair(record.work, row, base_row)
    obstacle = next(_obstacles(record, baseline, ratio, fast, slow), None)
    if obstacle is not None:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    if ratio is None or fast is None or slow is None:
        raise ValueError("a speed-up without an obstacle has a measured and a reported ratio")
    theirs = fast.value / slow.value
    # The paper rounds both speeds, so their true ratio is uncertain by this much. A difference within it is a match.
    tolerance = theirs * (_half_unit(fast.value) / fast.value + _half_unit(slow.value) / slow.value)
    found = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] measured, {theirs:.2f}x reported"
    if abs(ratio.value - theirs) <= tolerance:
        return Judgement(Verdict.MATCH, f"{found}: equal as far as the printed digits tell")
    if ratio.low - tolerance <= theirs <= ratio.high + tolerance:
        return Judgement(Verdict.WITHIN_NOISE, f"{found}: within the interval")
    if ratio.value > theirs:
        return Judgement(Verdict.BETTER, f"{found}: a larger speed-up")
    return Judgement(Verdict.DEVIATES, f"{found}: a smaller speed-up")


def reported_pair(
    work: str, row: ReportedModel | None, base_row: ReportedModel | None
) -> tuple[ReportedSpeed | None, ReportedSpeed | None]:
    """The paper's images/s of a row and of its baseline, both in one convention: as printed, where both are printed."""
    if work == "forward" and row and base_row and row.forward_images_per_s and base_row.forward_images_per_s:
        return row.forward_images_per_s, base_row.forward_images_per_s
    return row.images_per_s(work) if row else None, base_row.images_per_s(work) if base_row else None


def _obstacles(
    record: ThroughputRecord,
    baseline: ThroughputRecord | None,
    ratio: Estimate | None,
    fast: ReportedSpeed | None,
    slow: ReportedSpeed | None,
) -> Iterator[str]:
    """Why a speed-up cannot be judged, the plainest reason first."""
    if record.status != "measured":
        yield f"{record.status}: {record.reason}"
    if baseline is record:
        yield "is the baseline of the ratios"
    if record.model.latent_space is None:
        yield "the paper prints no speed of an autoencoder by itself"
        return
    if baseline is None or ratio is None:
        yield f"no measurement on {BASELINE} of the same protocol, work and device"
    if baseline is not None and baseline.provenance.code_sha256 != record.provenance.code_sha256:
        yield f"the measurement on {BASELINE} is of other code"
    if baseline is not None and is_degraded(baseline):
        yield f"the measurement on {BASELINE} is degraded: {degraded_because(baseline)}"
    if is_degraded(record):
        yield f"is degraded: {degraded_because(record)}"
    if fast is None or slow is None:
        yield "the paper prints no such pair, or none that is known"
        return
    if "recalled_unverified" in (fast.confidence, slow.confidence):
        yield "a reported value is recalled from memory and was found in no source"
    if record.environment.gpu is None:
        yield "the paper measured on a GPU"


def is_degraded(record: ThroughputRecord) -> bool:
    """Whether the state gate found the measurement degraded."""
    return record.derived is not None and record.derived.gate.state == "degraded"


def degraded_because(record: ThroughputRecord) -> str:
    """The state gate's reasons against a record; empty without a measurement."""
    return "; ".join(reason.text for reason in record.derived.gate.reasons) if record.derived else ""


def _half_unit(value: float) -> float:
    """Half a unit of the last printed digit."""
    decimals = len(f"{value:g}".partition(".")[2])
    return 0.5 * 10**-decimals
