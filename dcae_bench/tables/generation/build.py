"""Builder of the generation table: arranges records of samples and trainings, and judges the paper's rows."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.planning.meaning import require_kind
from dcae_bench.records.record import Record
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.answers import SOURCES, ReportedResult, WhyNot
from dcae_bench.tables.generation.judge import RECORD_KEY, judge, reported_scale
from dcae_bench.tables.generation.table import DISTANCES, Generation, GenerationAnswer, GenerationTable
from dcae_bench.tables.reported.generation import GenerationMetric, GenerationRow
from dcae_bench.tables.reported.verdict import Judgement, Verdict
from dcae_bench.tables.runs import NOTHING_KNOWN, Holdings


def build(
    profile_name: str,
    records: Mapping[Path, Record],
    reported: Sequence[GenerationRow],
    why_not: WhyNot[GenerationRow],
    *,
    beside: Mapping[Path, Record] | None = None,
    not_measured: Mapping[str, tuple[str, ...]] | None = None,
    holdings: Holdings = NOTHING_KNOWN,
) -> GenerationTable:
    """Arrange the generation and training records of a profile's denoisers and judge the reported rows.

    ``why_not`` says why a row has no result of a weights source. ``beside`` are records of other profiles. They answer
    reported rows that the profile's own records do not answer. ``not_measured`` says why a row of the profile has no
    run. ``holdings`` say what the table should hold; the profile's own records that they doubt stand in the table, but
    answer no row. Raises :class:`ResultsError` for a record of another profile or kind, or two records of one row and
    guidance scale.
    """
    for path, record in records.items():
        if record.profile != profile_name:
            raise ResultsError(
                f"{path}: is of profile {record.profile}, not {profile_name}; pass its folder with --beside"
            )
    runs, others = _runs(records, holdings), _runs(beside or {}, holdings)
    sound = tuple(run for run in runs if not run.doubts)
    results = []
    for row in reported:
        answers = {source: _answer(row, source, reported, (sound, others), why_not) for source in SOURCES}
        results.append(ReportedResult(row, answers))
    measured = {run.denoiser.row for run in sound}
    absent = {row: reasons for row, reasons in (not_measured or {}).items() if row not in measured}
    return GenerationTable(profile_name, runs, tuple(results), absent, holdings=holdings)


def _runs(records: Mapping[Path, Record], holdings: Holdings) -> tuple[Generation, ...]:
    """Generation records, each with the record of the denoiser's training, in the table's order."""
    require_kind(records, "generation", "diffusion_training")
    runs: dict[tuple[str, str, float, bool], Generation] = {}
    trainings = {
        record.denoiser.weights_sha256: record
        for record in records.values()
        if record.kind == "diffusion_training" and record.denoiser
    }
    for path, record in records.items():
        if record.kind != "generation" or record.denoiser is None:
            continue
        training = trainings.get(record.denoiser.weights_sha256)
        run = Generation(Path(path), record, training, doubts=holdings.doubts.get(Path(path), ()))
        before = runs.setdefault((record.profile, run.denoiser.row, run.guidance, bool(run.doubts)), run)
        if before is not run:
            raise ResultsError(f"{path}: is a second record of the row of {before.path}; pass one of them")
    return tuple(sorted(runs.values(), key=lambda run: run.order))


def _answer(
    row: GenerationRow,
    source: WeightsSource,
    rows: Iterable[GenerationRow],
    profiles: Iterable[Sequence[Generation]],
    why_not: WhyNot[GenerationRow],
) -> GenerationAnswer:
    """What one weights source gives for a reported row; runs of the profile itself win over runs of another.

    Each metric is answered by the run with the nearest guidance scale. Only runs without guidance answer the metric
    without guidance.
    """
    metrics = row.metrics or DISTANCES
    fits = _is_released if source == "released" else partial(_is_retrained, rows=rows)
    for runs in profiles:
        candidates = [run for run in runs if fits(run, row)]
        chosen: dict[GenerationMetric, Generation] = {}
        for metric in metrics:
            wanted = reported_scale(row, metric) or 0.0  # of a scale that is not stated, the weakest is taken
            fitting = [run for run in candidates if (run.guidance == 1) == (wanted == 1)]
            if fitting:
                chosen[metric] = min(fitting, key=lambda run: abs(run.guidance - wanted))
        if chosen:
            return GenerationAnswer(
                runs=chosen,
                measured={
                    metric: run.record.metrics[RECORD_KEY]
                    for metric, run in chosen.items()
                    if RECORD_KEY in run.record.metrics
                },
                judgements={metric: judge(row, chosen.get(metric), metric) for metric in metrics},
            )
    missing = why_not(row, source)
    judgement = Judgement(Verdict.NOT_RUN, "; ".join(missing))
    return GenerationAnswer({}, {}, dict.fromkeys(metrics, judgement), missing)


def _is_released(run: Generation, row: GenerationRow) -> bool:
    """Whether a run samples the weights that the authors published for a row's denoiser, on the row's images."""
    weights, data = run.denoiser, run.record.data
    named = weights.weights_source == "released" and weights.released == row.released is not None
    return named and (data.name, data.resolution) == (row.dataset, row.resolution)


def _is_retrained(run: Generation, row: GenerationRow, rows: Iterable[GenerationRow]) -> bool:
    """Whether a run samples a row's denoiser after our training, and no other row fits the training's length better."""
    return run.denoiser.weights_source == "retrained" and _measures(run, row) and _length_fits(run, row, rows)


def _measures(run: Generation, row: GenerationRow) -> bool:
    """Whether a run samples the row's denoiser on the row's latent space and images."""
    subject, data, denoiser = run.record.subject, run.record.data, run.denoiser
    ours = (denoiser.name, denoiser.process, subject.autoencoder, denoiser.patch, data.name, data.resolution)
    return ours == (row.denoiser, row.process, row.autoencoder, row.patch, row.dataset, row.resolution)


def _length_fits(run: Generation, row: GenerationRow, rows: Iterable[GenerationRow]) -> bool:
    """Whether no other row of the same denoiser was trained on exactly as many images as the run."""
    if run.training_images in (None, row.training_images):
        return True
    return not any(_measures(run, other) and other.training_images == run.training_images for other in rows)
