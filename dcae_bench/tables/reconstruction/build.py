"""Builder of the reconstruction table: arranges records, pairs autoencoders and judges the paper's rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, pairwise, product
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.planning.meaning import require_kind
from dcae_bench.records.record import Record
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.answers import SOURCES, ReportedResult, WhyNot
from dcae_bench.tables.reconstruction.judge import RECORD_KEYS, judge
from dcae_bench.tables.reconstruction.table import (
    REPORTED_LABELS,
    Pair,
    Reconstruction,
    ReconstructionAnswer,
    ReconstructionTable,
)
from dcae_bench.tables.reported.reconstruction import ReconstructionMetric, ReconstructionRow
from dcae_bench.tables.runs import NOTHING_KNOWN, Holdings


def build(
    profile_name: str,
    records: Mapping[Path, Record],
    reported: Sequence[ReconstructionRow],
    why_not: WhyNot[ReconstructionRow],
    *,
    beside: Mapping[Path, Record] | None = None,
    not_measured: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    holdings: Holdings = NOTHING_KNOWN,
) -> ReconstructionTable:
    """Arrange the reconstruction records of a profile and judge the reported rows.

    ``why_not`` says why a row has no result of a weights source. ``beside`` are records of other profiles. They answer
    reported rows that the profile's own records do not answer. ``not_measured`` has reasons, by autoencoder and
    evaluation set, for the profile's measurements that answer no row; those that have a record are left out.
    ``holdings`` say what the table should hold; the profile's own records that they doubt stand in the table, but they
    answer no row and are compared with nothing. Raises :class:`ResultsError` when a record is of another profile or
    kind, or two records claim the same row.
    """
    runs, others = _runs(records, holdings), _runs(beside or {}, holdings)
    sound = tuple(run for run in runs if not run.doubts)
    for run in runs:
        if run.record.profile != profile_name:
            raise ResultsError(
                f"{run.path}: is of profile {run.record.profile}, not {profile_name}; pass it with --beside"
            )
    results = []
    for row in reported:
        answers = {source: _answer(row, source, sound, others, why_not) for source in SOURCES}
        results.append(ReportedResult(row, answers))
    measured = {
        (run.record.subject.autoencoder, f"{run.record.data.name}-{run.record.data.resolution}") for run in sound
    }
    absent = {key: reasons for key, reasons in (not_measured or {}).items() if key not in measured}
    return ReconstructionTable(profile_name, runs, tuple(results), tuple(_pairs(sound)), absent, holdings=holdings)


def _runs(records: Mapping[Path, Record], holdings: Holdings) -> tuple[Reconstruction, ...]:
    """Reconstruction records in the table's order.

    Raises :class:`ResultsError` for a second record of one row, and for a record of another kind.
    """
    require_kind(records, "reconstruction")

    def place(run: Reconstruction) -> tuple:
        return run.order, run.record.profile, bool(run.doubts)

    chosen = [
        Reconstruction(Path(path), record, doubts=holdings.doubts.get(Path(path), ()))
        for path, record in records.items()
    ]
    runs = tuple(sorted(chosen, key=place))
    for before, run in pairwise(runs):
        if place(before) == place(run):
            raise ResultsError(f"{run.path}: is a second record of the row of {before.path}; pass one of them")
    return runs


def _pairs(runs: Sequence[Reconstruction]) -> Iterator[Pair]:
    for _, group in groupby(runs, key=lambda run: run.setting):
        members = list(group)
        last = max(run.record.subject.phase or 0 for run in members)
        final = [run for run in members if (run.record.subject.phase or 0) == last]
        sides = ([run for run in final if run.record.subject.family == family] for family in ("dc-ae", "sd-vae"))
        for dc_ae, sd_vae in product(*sides):
            yield Pair(dc_ae, sd_vae)


def _answer(
    row: ReconstructionRow,
    source: WeightsSource,
    own: Sequence[Reconstruction],
    others: Sequence[Reconstruction],
    why_not: WhyNot[ReconstructionRow],
) -> ReconstructionAnswer:
    """What one weights source gives for a reported row.

    A run of the profile itself wins over a run of another profile. Among several runs, those that were trained on the
    row's data win, and among these the last phase.
    """
    metrics = _metrics(row)
    for runs in (own, others):
        candidates = [run for run in runs if run.record.subject.weights_source == source and _measures(run, row)]
        run = max(
            candidates,
            key=lambda run: (row.shared_data(run.record.subject.trained_on), run.record.subject.phase or 0),
            default=None,
        )
        if run is not None:
            found = run.record.metrics
            return ReconstructionAnswer(
                runs=dict.fromkeys(metrics, run),
                measured={metric: found[RECORD_KEYS[metric]] for metric in metrics if RECORD_KEYS[metric] in found},
                judgements={metric: judge(row, run.record, metric) for metric in metrics},
            )
    missing = why_not(row, source)
    judgement = judge(row, None, "rfid", not_run_reason="; ".join(missing))
    return ReconstructionAnswer({}, {}, dict.fromkeys(metrics, judgement), missing)


def _measures(run: Reconstruction, row: ReconstructionRow) -> bool:
    """Whether a run measures the row's autoencoder, or its released weights, on the row's images."""
    subject, data = run.record.subject, run.record.data
    if row.released is not None and subject.weights_source == "released" and subject.autoencoder != row.released:
        return False
    theirs = (row.dataset, row.resolution, row.family, row.compression, row.latent_channels)
    return theirs == (data.name, data.resolution, subject.family, subject.compression, subject.latent_channels)


def _metrics(row: ReconstructionRow) -> Collection[ReconstructionMetric]:
    """The reported metrics of a row; for a row without any, all metrics that the paper reports elsewhere."""
    return row.metrics or REPORTED_LABELS
