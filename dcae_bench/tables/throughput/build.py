"""Builder of the throughput table: finds records of timings, merges restarts and pairs each row with its baseline."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import open_regular
from dcae_bench.measurement.record import ThroughputRecord, load, merge, speed_up
from dcae_bench.tables.reported.throughput import ReportedThroughput, load_throughput
from dcae_bench.tables.throughput.judge import is_degraded, judge_ratio
from dcae_bench.tables.throughput.table import BASELINE, ThroughputRow, ThroughputTable, named_batch

MEASURES = "dcae_bench.measurement.session"
"""Module that measures; its fingerprint is the ``code_sha256`` of a timing."""
STATE = "plan.json"
"""Outcomes of a plan's sessions, beside the records."""
WORK_ORDER = (
    *("train", "forward", "sample", "sample_decode", "encode", "decode"),
    *("phase1", "phase2", "phase3"),
)
START = 400
"""Bytes of a file in which a record says what it is."""


def find_records(paths: Iterable[Path]) -> list[ThroughputRecord]:
    """Read records of timings from files and, recursively, from folders.

    Raises :class:`ResultsError` when there are none.
    """
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
    """Whether a JSON file starts like a record of a timing. Raises :class:`ResultsError` if the file is unreadable."""
    try:
        with open_regular(path) as file:
            return b'"kind":"throughput"' in b"".join(file.read(START).split())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); make it readable or remove it") from error


def planned_timings(folders: Iterable[Path]) -> int:
    """Number of timings that the plans in folders ask for.

    Older plans do not state it: their sessions are commands, which name each latent space. Raises
    :class:`ResultsError` for a plan that cannot be read.
    """
    count = 0
    for path in (Path(folder) / STATE for folder in folders):
        if not path.is_file():
            continue
        try:
            state = json.loads(path.read_bytes())
            if "timings" in state:
                count += int(state["timings"])
                continue
            sessions = state.get("sessions", {})
            count += sum(max(session.split().count("--latent"), 1) for session in sessions if _is_session(session))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise ResultsError(f"{path}: is not the state of a plan; remove it, or measure again") from error
    return count


def _is_session(command: str) -> bool:
    return command.split()[:1] == ["measure"]


def build(
    records: Sequence[ThroughputRecord],
    *,
    degraded: bool = False,
    reported: ReportedThroughput | None = None,
    planned: int = 0,
    code: str | None = None,
) -> ThroughputTable:
    """Merge restarts, pair each row with its baseline on the same device, and judge the speed-ups.

    ``degraded`` keeps rows whose measurement is degraded; otherwise they are left out. ``planned`` is the number of
    timings that the records' plan asks for; 0 without a plan. ``code`` is the fingerprint of the code that measures
    now: rows of other code are marked. None compares nothing.
    """
    reported = reported or load_throughput()
    groups: dict[str, list[ThroughputRecord]] = defaultdict(list)
    for record in records:
        groups[record.key].append(record)
    merged = _newest(merge(group) for group in groups.values())
    rows = []
    for record in merged:
        baseline = next((other for other in merged if _is_baseline(other, record)), None)
        model = record.model
        row = reported.find(model.name, model.latent_space, model.resolution)
        base_row = reported.find(model.name, BASELINE, model.resolution)
        ratio = speed_up(record, baseline) if baseline and baseline is not record else None
        judgement = judge_ratio(record, baseline, ratio, row, base_row)
        rows.append(ThroughputRow(record, baseline, ratio, row, base_row, judgement))
    rows.sort(key=_order)
    kept = [row for row in rows if degraded or not is_degraded(row.record)]
    left_out = tuple(row for row in rows if row not in kept)
    return ThroughputTable(tuple(kept), left_out, reported.sources, held=len(records), planned=planned, code=code)


def _device(record: ThroughputRecord) -> str:
    """What identifies the device: the GPU's UUID, or the processor's name."""
    gpu = record.environment.gpu
    return gpu.uuid if gpu else record.environment.processor


def _setting(record: ThroughputRecord) -> tuple:
    """Everything that two rows must share for a speed-up."""
    model = record.model
    # A batch from the authors' map or from a search depends on the latent space, so two such batches may differ.
    batch = named_batch(record)
    return record.protocol, model.name, model.resolution, record.work, record.mode, batch, record.share, _device(record)


def _is_baseline(other: ThroughputRecord, record: ThroughputRecord) -> bool:
    return other.model.latent_space == BASELINE and _setting(other) == _setting(record)


def _newest(records: Iterable[ThroughputRecord]) -> list[ThroughputRecord]:
    """The measurement that ended last, of those that differ in nothing but code or configuration."""
    found: dict[tuple, ThroughputRecord] = {}
    for record in sorted(records, key=lambda one: one.provenance.finished):
        found[(*_setting(record), record.model.latent_space)] = record
    return list(found.values())


def _order(row: ThroughputRow) -> tuple:
    """Sort key of a row: protocol, device, model, resolution, work, then many tokens before few."""
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
