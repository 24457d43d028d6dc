"""The throughput table: rows from records of timings, their speed-ups over SD-VAE-f8p2, and verdicts on the ratios."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcae_bench.errors import ResultsError
from dcae_bench.measurement.record import ThroughputRecord, load, merge, speed_up
from dcae_bench.measurement.statistics import Estimate
from dcae_bench.tables.throughput_reported import ReportedModel, ReportedSpeed, ReportedThroughput, load_throughput
from dcae_bench.tables.verdict import Judgement, Verdict

BASELINE = "sd-vae-f8c4 p2"
REPORTED_RESOLUTION = 512
WORK_ORDER = (
    *("train", "forward", "sample", "sample_decode", "encode", "decode"),
    *("phase1", "phase2", "phase3"),
)


@dataclass(frozen=True)
class Row:
    """One measurement, merged from its restarts, with what it is compared with."""

    record: ThroughputRecord
    baseline: ThroughputRecord | None
    speed_up: Estimate | None
    reported: ReportedModel | None
    reported_baseline: ReportedModel | None
    judgement: Judgement

    @property
    def mac_ratio(self) -> float | None:
        """Baseline's multiply-accumulates over this row's."""
        return self.baseline.model.gmacs / self.record.model.gmacs if self.baseline else None

    @property
    def reported_value(self) -> ReportedSpeed | None:
        """Images/s that the paper prints for this work: training, or full sampling for one forward pass."""
        return _reported(self.reported, self.record.work)

    @property
    def reported_speed_up(self) -> float | None:
        """The paper's ratio, where it prints both numbers."""
        slow = _reported(self.reported_baseline, self.record.work)
        fast = self.reported_value
        return fast.value / slow.value if fast and slow and self.baseline is not self.record else None

    @property
    def sampled_per_s(self) -> float | None:
        """Images/s of full sampling that follow from one forward pass: forward / (2 NFE)."""
        if self.record.work != "forward" or self.record.derived is None or self.reported is None:
            return None
        return self.record.derived.images_per_s.value / (2 * self.reported.nfe)


@dataclass(frozen=True)
class ThroughputTable:
    """Rows in order, and those that were left out because of their state."""

    rows: tuple[Row, ...]
    left_out: tuple[Row, ...]
    sources: dict[str, str]


def find_records(paths: Iterable[Path]) -> list[ThroughputRecord]:
    """Records of timings in files and, recursively, in folders. Raises :class:`ResultsError` where there are none."""
    paths, found = list(paths), []
    for path in paths:
        if path.is_dir():
            files = sorted(path.rglob("*.json"))
            found += [load(file) for file in files if is_record(file)]
        else:
            found.append(load(path))
    if not found:
        raise ResultsError(f"{', '.join(map(str, paths))}: no records of timings; run `dcae-bench measure` first")
    return found


def is_record(path: Path) -> bool:
    """Whether a JSON file begins as a record of a timing does. Raises :class:`ResultsError`."""
    try:
        with open(path, "rb") as file:
            return b'"kind":"throughput"' in b"".join(file.read(200).split())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); make it readable or remove it") from error


def build(
    records: Sequence[ThroughputRecord], *, degraded: bool = False, reported: ReportedThroughput | None = None
) -> ThroughputTable:
    """Merge restarts, pair each row with its baseline on the same device, and judge. ``degraded`` keeps every row."""
    reported = reported or load_throughput()
    groups: dict[str, list[ThroughputRecord]] = defaultdict(list)
    for record in records:
        groups[record.key].append(record)
    merged = _newest(merge(group) for group in groups.values())
    rows = []
    for record in merged:
        baseline = next((other for other in merged if _is_baseline(other, record)), None)
        at_512 = record.model.resolution == REPORTED_RESOLUTION
        row = reported.find(record.model.name, record.model.latent_space) if at_512 else None
        base_row = reported.find(record.model.name, BASELINE) if at_512 else None
        ratio = speed_up(record, baseline) if baseline and baseline is not record else None
        judgement = judge_ratio(record, baseline, ratio, row, base_row)
        rows.append(Row(record, baseline, ratio, row, base_row, judgement))
    rows.sort(key=_order)
    kept = [row for row in rows if degraded or not is_degraded(row.record)]
    return ThroughputTable(tuple(kept), tuple(row for row in rows if row not in kept), reported.sources)


def judge_ratio(
    record: ThroughputRecord,
    baseline: ThroughputRecord | None,
    ratio: Estimate | None,
    row: ReportedModel | None,
    base_row: ReportedModel | None,
) -> Judgement:
    """Judge a speed-up against the paper's: match within the printed digits, noise within the interval.

    Absolute numbers are never judged: clocks and software moved on.
    """
    obstacle = next(_obstacles(record, baseline, ratio, row, base_row), None)
    if obstacle:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    fast, slow = _reported(row, record.work), _reported(base_row, record.work)
    theirs = fast.value / slow.value
    # Both printed numbers are rounded; what that leaves open of their ratio counts as a match.
    tolerance = theirs * (_half_unit(fast.value) / fast.value + _half_unit(slow.value) / slow.value)
    found = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] measured, {theirs:.2f}x reported"
    if abs(ratio.value - theirs) <= tolerance:
        return Judgement(Verdict.MATCH, f"{found}: equal as far as the printed digits tell")
    if ratio.low - tolerance <= theirs <= ratio.high + tolerance:
        return Judgement(Verdict.WITHIN_NOISE, f"{found}: within the interval")
    if ratio.value > theirs:
        return Judgement(Verdict.BETTER, f"{found}: a larger speed-up")
    return Judgement(Verdict.DEVIATES, f"{found}: a smaller speed-up")


def _obstacles(
    record: ThroughputRecord,
    baseline: ThroughputRecord | None,
    ratio: Estimate | None,
    row: ReportedModel | None,
    base_row: ReportedModel | None,
) -> Iterator[str]:
    """Why a ratio cannot be judged, the plainest reason first."""
    if record.status != "measured":
        yield f"{record.status}: {record.reason}"
    if baseline is record:
        yield "is the baseline of the ratios"
    if record.model.latent_space is None:
        yield "the paper prints no speed of an autoencoder by itself"
        return
    if baseline is None or ratio is None:
        yield f"no measurement on {BASELINE} of the same protocol, work and device"
    if baseline is not None and is_degraded(baseline):
        yield f"the measurement on {BASELINE} is degraded: {reasons(baseline)}"
    if is_degraded(record):
        yield f"is degraded: {reasons(record)}"
    fast, slow = _reported(row, record.work), _reported(base_row, record.work)
    if fast is None or slow is None:
        yield "the paper prints no such pair, or none that is known"
        return
    if "recalled_unverified" in (fast.confidence, slow.confidence):
        yield "a reported value is recalled from memory and was found in no source"
    if record.environment.gpu is None:
        yield "the paper measured on a GPU"


def _reported(row: ReportedModel | None, work: str) -> ReportedSpeed | None:
    names = {"train": "train_images_per_s", "forward": "sample_images_per_s", "sample": "sample_images_per_s"}
    return getattr(row, names[work]) if row and work in names else None


def _half_unit(value: float) -> float:
    """Half a unit of the last printed digit."""
    decimals = len(f"{value:g}".partition(".")[2])
    return 0.5 * 10**-decimals


def _device(record: ThroughputRecord) -> str:
    gpu = record.environment.gpu
    return gpu.uuid if gpu else record.environment.processor


def _setting(record: ThroughputRecord) -> tuple:
    """What two rows must share for a ratio."""
    model = record.model
    named = record.settings.get("batch") == "named by the user"
    batch = record.batch if named else None  # a batch by map or search belongs to the latent space
    return record.protocol, model.name, model.resolution, record.work, record.mode, batch, _device(record)


def _is_baseline(other: ThroughputRecord, record: ThroughputRecord) -> bool:
    return other.model.latent_space == BASELINE and _setting(other) == _setting(record)


def _newest(records: Iterable[ThroughputRecord]) -> list[ThroughputRecord]:
    """Of measurements of the same thing with another code or configuration, the one that ended last."""
    found: dict[tuple, ThroughputRecord] = {}
    for record in sorted(records, key=lambda one: one.provenance.finished):
        found[(*_setting(record), record.model.latent_space)] = record
    return list(found.values())


def is_degraded(record: ThroughputRecord) -> bool:
    """Whether the gate has something against it."""
    return record.derived is not None and record.derived.gate.state == "degraded"


def reasons(record: ThroughputRecord) -> str:
    """What the gate has against a measured record."""
    return "; ".join(reason.text for reason in record.derived.gate.reasons)


def _order(row: Row) -> tuple:
    model = row.record.model
    work = WORK_ORDER.index(row.record.work)
    return (
        row.record.protocol,
        _device(row.record),
        model.name,
        model.resolution,
        work,
        -(model.tokens or 0),
        str(model.latent_space),
    )
