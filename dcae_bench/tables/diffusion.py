"""What the generation table holds: denoisers with their samples' metrics, and the reported rows they answer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dcae_bench.diffusion_specs import paper_sampler
from dcae_bench.errors import ResultsError
from dcae_bench.records import Denoiser, Metric, Record, WeightsSource
from dcae_bench.tables.reconstruction import FAMILIES, SOURCES, made_by, shown
from dcae_bench.tables.reported_diffusion import DiffusionRow, GenerationMetric
from dcae_bench.tables.verdict import Judgement, Verdict, compare

REPORTED_LABELS: dict[GenerationMetric, str] = {"gfid": "gFID", "gfid_cfg": "gFID, guided"}
RECORD_KEY = "gfid_pytorch_fid"
"""What the paper prints; other Fréchet distances are other quantities."""
SPREAD = 0.016
"""Relative difference of the authors' own gFIDs of one denoiser: 13.96 in the paper, 13.754 and 13.912 by their
scripts (UViT-H on DC-AE f64p1), and 3.01 beside 2.963."""

WhyNot = Callable[[DiffusionRow, WeightsSource], tuple[str, ...]]


@dataclass(frozen=True)
class Generation:
    """Samples of one denoiser at one guidance scale: the record of their metrics, and that of the training."""

    path: Path
    record: Record
    training: Record | None

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser that was sampled."""
        assert self.record.denoiser is not None
        return self.record.denoiser

    @property
    def guidance(self) -> float:
        """Scale s; 1 is the conditional model alone."""
        return float(self.record.settings.get("guidance", "1"))

    @property
    def latent_space(self) -> str:
        """Autoencoder and patch size, e.g. dc-ae-f64c128 p1."""
        return f"{self.record.subject.autoencoder} p{self.denoiser.patch}"

    @property
    def training_images(self) -> int | None:
        """Images seen in training."""
        return self.training.data.images if self.training else None

    @property
    def training_flops(self) -> float | None:
        """Floating-point operations of the whole training, matrix products only."""
        return self._of_training("training_flops")

    @property
    def loss(self) -> float | None:
        """Mean loss at the end of the training."""
        return self._of_training("loss")

    def _of_training(self, key: str) -> float | None:
        metric = self.training.metrics.get(key) if self.training else None
        return metric.value if metric else None

    @property
    def order(self) -> tuple:
        """Sort key: data, denoiser, compression, SD-VAE before DC-AE, length of training, guidance."""
        subject, data, families = self.record.subject, self.record.data, list(FAMILIES)
        family = families.index(subject.family) if subject.family in families else len(families)
        latent = (subject.compression, subject.latent_channels, family, subject.autoencoder, self.denoiser.patch)
        denoiser = (self.denoiser.process, self.denoiser.name)
        return (
            data.name,
            data.resolution,
            *denoiser,
            *latent,
            self.training_images or 0,
            self.denoiser.row,
            self.guidance,
        )

    @property
    def shown_path(self) -> str:
        """Path as tables print it."""
        return shown(self.path)


@dataclass(frozen=True)
class Answer:
    """What denoisers of one weights source gave for a row of the paper: a judgement per metric, or why none."""

    runs: dict[GenerationMetric, Generation]
    judgements: dict[GenerationMetric, Judgement]
    missing: tuple[str, ...] = ()

    def reproduced(self, metric: GenerationMetric) -> Metric | None:
        """The measured metric, or None where it was not measured."""
        return self.runs[metric].record.metrics.get(RECORD_KEY) if metric in self.runs else None


@dataclass(frozen=True)
class ReportedResult:
    """A row of the paper with what each weights source gave for it."""

    row: DiffusionRow
    answers: dict[WeightsSource, Answer]


@dataclass(frozen=True)
class DiffusionTable:
    """The generation table of one profile."""

    profile: str
    runs: tuple[Generation, ...]
    reported: tuple[ReportedResult, ...]
    not_measured: Mapping[str, tuple[str, ...]]
    """Reasons by row of the profile, where there is no run of it."""

    @property
    def first_line(self) -> str:
        """Profile, commit and hardware, as the records hold them."""
        return f"Profile `{self.profile}` · {made_by(self.runs) if self.runs else 'no record yet'}"

    @property
    def beside(self) -> dict[str, list[Generation]]:
        """Runs of other profiles that answer rows of the paper, by profile."""
        found: dict[str, list[Generation]] = {}
        for answer in (answer for result in self.reported for answer in result.answers.values()):
            for run in answer.runs.values():
                if run.record.profile != self.profile:
                    found.setdefault(run.record.profile, []).append(run)
        return found

    @property
    def columns(self) -> dict[str, Metric]:
        """A specimen of every metric the runs hold, Fréchet distances first: the table's metric columns."""
        found: dict[str, Metric] = {}
        for run in self.runs:
            for key, metric in run.record.metrics.items():
                if found.setdefault(key, metric).label != metric.label:
                    raise ResultsError(f"{run.path}: calls {key} {metric.label!r}, others do not; measure it again")
        habit = ("gf", "k", "inception", "precision", "recall")
        rank = {key: next((i for i, start in enumerate(habit) if key.startswith(start)), len(habit)) for key in found}
        return {key: found[key] for key in sorted(found, key=rank.__getitem__)}


def build(
    profile: str,
    records: Mapping[Path, Record],
    reported: Sequence[DiffusionRow],
    why_not: WhyNot,
    *,
    beside: Mapping[Path, Record] | None = None,
    not_measured: Mapping[str, tuple[str, ...]] | None = None,
) -> DiffusionTable:
    """Arrange the generation and training records of a profile's denoisers and judge the reported rows.

    ``why_not`` says why denoisers of a weights source gave nothing for a reported row; ``beside`` are records of other
    profiles, which answer reported rows that the profile's own do not; ``not_measured`` says why a row of the profile
    has no run. Raises :class:`ResultsError` for a record of another profile, or two of one row and guidance.
    """
    for path, record in records.items():
        if record.profile != profile:
            raise ResultsError(f"{path}: is of profile {record.profile}, not {profile}; pass its folder with --beside")
    runs, others = _runs(records), _runs(beside or {})
    results = []
    for row in reported:
        answers = {source: _answer(row, source, reported, (runs, others), why_not) for source in SOURCES}
        results.append(ReportedResult(row, answers))
    absent = {row: why for row, why in (not_measured or {}).items() if row not in {run.denoiser.row for run in runs}}
    return DiffusionTable(profile, runs, tuple(results), absent)


def _runs(records: Mapping[Path, Record]) -> tuple[Generation, ...]:
    """Generation records with the trainings behind them, in the table's order."""
    runs: dict[tuple[str, str, float], Generation] = {}
    trainings = {
        r.denoiser.weights_sha256: r for r in records.values() if r.kind == "diffusion_training" and r.denoiser
    }
    for path, record in records.items():
        if record.kind != "generation" or record.denoiser is None:
            continue
        run = Generation(Path(path), record, trainings.get(record.denoiser.weights_sha256))
        before = runs.setdefault((record.profile, run.denoiser.row, run.guidance), run)
        if before is not run:
            raise ResultsError(f"{path}: is a second record of the row of {before.path}; pass one of them")
    return tuple(sorted(runs.values(), key=lambda run: run.order))


def _answer(
    row: DiffusionRow,
    source: WeightsSource,
    rows: Iterable[DiffusionRow],
    profiles: Iterable[Sequence[Generation]],
    why_not: WhyNot,
) -> Answer:
    """What one weights source gave for a reported row: the profile's own runs before another's."""
    metrics = row.metrics or REPORTED_LABELS
    fits = _is_released if source == "released" else partial(_is_retrained, rows=rows)
    for runs in profiles:
        candidates = [run for run in runs if fits(run, row)]
        chosen: dict[GenerationMetric, Generation] = {}
        for metric in metrics:
            wanted = _scale(row, metric)
            fitting = [run for run in candidates if (run.guidance == 1) == (wanted == 1)]
            if fitting:
                chosen[metric] = min(fitting, key=lambda run: abs(run.guidance - wanted))
        if chosen:
            return Answer(chosen, {metric: judge(row, chosen.get(metric), metric) for metric in metrics})
    missing = why_not(row, source)
    return Answer({}, dict.fromkeys(metrics, Judgement(Verdict.NOT_RUN, "; ".join(missing))), missing)


def _is_released(run: Generation, row: DiffusionRow) -> bool:
    """Whether a run is of the very weights that the authors published of a row's denoiser, on the row's images."""
    weights, data = run.denoiser, run.record.data
    named = weights.weights_source == "released" and weights.released == row.released is not None
    return named and (data.name, data.resolution) == (row.dataset, row.resolution)


def _is_retrained(run: Generation, row: DiffusionRow, rows: Iterable[DiffusionRow]) -> bool:
    """Whether a run is of a row's denoiser, and of no other row's by the length of its training."""
    return run.denoiser.weights_source == "retrained" and _concerns(run, row) and _length_fits(run, row, rows)


def _concerns(run: Generation, row: DiffusionRow) -> bool:
    subject, data, denoiser = run.record.subject, run.record.data, run.denoiser
    ours = (denoiser.name, denoiser.process, subject.autoencoder, denoiser.patch, data.name, data.resolution)
    return ours == (row.denoiser, row.process, row.autoencoder, row.patch, row.dataset, row.resolution)


def _length_fits(run: Generation, row: DiffusionRow, rows: Iterable[DiffusionRow]) -> bool:
    """Whether no other row of the same denoiser was trained on just as many images as the run."""
    if run.training_images in (None, row.training_images):
        return True
    return not any(_concerns(run, other) and other.training_images == run.training_images for other in rows)


def _scale(row: DiffusionRow, metric: GenerationMetric) -> float:
    return 1.0 if metric == "gfid" else row.guidance


def judge(row: DiffusionRow, run: Generation | None, metric: GenerationMetric) -> Judgement:
    """Judge one metric of a reported row against samples, or their absence."""
    if run is None:
        return Judgement(Verdict.NOT_RUN, f"no samples with guidance {_scale(row, metric):g}")
    obstacle = next(_obstacles(row, run, metric), None)
    if obstacle is not None:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    values = [value for value in row.metrics[metric] if value.trusted]
    return compare(values, run.record.metrics[RECORD_KEY], higher_is_better=False, spread=SPREAD)


def _obstacles(row: DiffusionRow, run: Generation, metric: GenerationMetric) -> Iterator[str]:
    """Reasons that forbid comparing, the plainest first."""
    if metric not in row.metrics:
        yield f"no source tells the paper's {REPORTED_LABELS[metric]} of this row"
        return
    if not any(value.trusted for value in row.metrics[metric]):
        yield "the reported value is recalled from memory and was found in no source"
    record, settings = run.record, run.record.settings
    pairs: list[tuple[str, object, object]] = [
        ("protocol", row.protocol, record.protocol),
        ("weights source of the autoencoder", "released", record.subject.weights_source),
        ("sampler", paper_sampler(row.process).name, settings.get("sampler")),
    ]
    if row.nfe is not None:
        pairs.append(("NFE", str(row.nfe), settings.get("nfe")))
    pairs += [
        ("guidance scale", f"{_scale(row, metric):g}", f"{run.guidance:g}"),
        ("number of samples", f"{row.samples:,}", f"{record.data.images:,}"),
        ("number of reference images", str(row.reference_images), settings.get("reference_images")),
        ("split of the reference", "train", record.data.split),
    ]
    if row.parameters is not None:
        pairs.append(("parameters", f"{row.parameters:,}", f"{run.denoiser.parameters:,}"))
    if row.training_images is not None and run.training_images is not None:
        pairs.append(("training images", f"{row.training_images:,}", f"{run.training_images:,}"))
    for what, theirs, ours in pairs:
        if theirs != ours:
            yield f"{what} differs: {theirs} reported, {ours} measured"
    if RECORD_KEY not in record.metrics:
        yield f"the record holds no {RECORD_KEY}"
