"""Judgements on the paper's generation quality: one metric of a reported row against a denoiser's samples."""

from collections.abc import Iterator

from dcae_bench.specs.diffusion import paper_sampler
from dcae_bench.tables.generation.table import REPORTED_LABELS, Generation
from dcae_bench.tables.reported.generation import GenerationMetric, GenerationRow
from dcae_bench.tables.reported.verdict import Judgement, Training, Verdict, judge_value, training_differences

RECORD_KEY = "gfid_pytorch_fid"
"""Key of a record's metric that measures what the paper prints; other Fréchet distances are other quantities."""
SPREAD = 0.016
"""Relative difference between the authors' own gFIDs of one denoiser.

For UViT-H on DC-AE f64p1 the paper prints 13.96 and the authors' scripts give 13.754 and 13.912; with guidance the
values are 3.01 and 2.963.
"""


def judge(row: GenerationRow, run: Generation | None, metric: GenerationMetric) -> Judgement:
    """Judge one metric of a reported row against samples, or against the absence of samples."""
    if run is None:
        scale = reported_scale(row, metric)
        return Judgement(Verdict.NOT_RUN, f"no samples with guidance{'' if scale is None else f' {scale:g}'}")
    obstacle = next(_obstacles(row, run, metric), None)
    if obstacle is not None:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    values = [value for value in row.metrics[metric] if value.trusted]
    return judge_value(values, run.record.metrics[RECORD_KEY], higher_is_better=False, spread=SPREAD)


def reported_scale(row: GenerationRow, metric: GenerationMetric) -> float | None:
    """Guidance scale s of a reported metric; 1 is the conditional model alone, None a scale that is not stated."""
    return 1.0 if metric == "gfid" else row.guidance


def _obstacles(row: GenerationRow, run: Generation, metric: GenerationMetric) -> Iterator[str]:
    """Reasons why the two numbers do not measure the same quantity, the plainest first."""
    if metric not in row.metrics:
        yield f"no source tells the paper's {REPORTED_LABELS[metric]} of this row"
        return
    if not any(value.trusted for value in row.metrics[metric]):
        yield "the reported value is recalled from memory and was found in no source"
    record, settings = run.record, run.record.settings
    scale = reported_scale(row, metric)
    for what, stated in (
        ("guidance scale", scale),
        ("number of samples", row.samples),
        ("number of reference images", row.reference_images),
    ):
        if stated is None:
            yield f"no source states the {what} of the reported value"
            return
    pairs: list[tuple[str, object, object]] = [
        ("protocol", row.protocol, record.protocol),
        ("weights source of the autoencoder", "released", record.subject.weights_source),
        ("sampler", paper_sampler(row.process).name, settings.get("sampler")),
    ]
    if row.nfe is not None:
        pairs.append(("NFE", str(row.nfe), settings.get("nfe")))
    pairs += [
        ("guidance scale", f"{scale:g}", f"{run.guidance:g}"),
        ("number of samples", f"{row.samples:,}", f"{record.data.images:,}"),
        ("number of reference images", str(row.reference_images), settings.get("reference_images")),
        ("split of the reference", "train", record.data.split),
    ]
    if row.parameters is not None:
        pairs.append(("parameters", f"{row.parameters:,}", f"{run.denoiser.parameters:,}"))
    for what, theirs, ours in pairs:
        if theirs != ours:
            yield f"{what} differs: {theirs} reported, {ours} measured"
    if run.denoiser.weights_source == "retrained":
        reported = Training((row.dataset,), row.training_images)
        if (unequal := training_differences(reported, Training(run.trained_on, run.training_images))) is not None:
            yield unequal
    for clause in record.subject.peculiarities:
        yield f"the autoencoder's training differs: {clause}"
    if run.denoiser.initial is not None:
        yield f"the denoiser's training differs: it started from {run.denoiser.initial}"
    if run.denoiser.frozen:
        yield f"the denoiser's training differs: it froze {', '.join(run.denoiser.frozen)}"
    if RECORD_KEY not in record.metrics:
        yield f"the record holds no {RECORD_KEY}"
