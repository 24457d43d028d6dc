"""Judgements on the paper's reconstruction quality: one metric of a reported row against a record."""

from collections.abc import Iterator

from dcae_bench.records.record import Record
from dcae_bench.specs.protocols import SETTINGS
from dcae_bench.tables.reported.reconstruction import ReconstructionMetric, ReconstructionRow
from dcae_bench.tables.reported.verdict import Judgement, Training, Verdict, judge_value, training_differences

RECORD_KEYS: dict[ReconstructionMetric, str] = {
    "rfid": "rfid_pytorch_fid",
    "psnr": "psnr",
    "ssim": "ssim",
    "lpips": "lpips_alex_u8",
}
"""Key of a record's metric that measures what the paper prints; other Fréchet distances are other quantities."""
HIGHER_IS_BETTER: dict[ReconstructionMetric, bool] = {"rfid": False, "psnr": True, "ssim": True, "lpips": False}


def judge(
    reported: ReconstructionRow,
    record: Record | None,
    metric: ReconstructionMetric,
    *,
    not_run_reason: str = "no record of this row in the profile",
) -> Judgement:
    """Judge one metric of a reported row against a record, or against the absence of one.

    Noise is the half-width of the metric's own interval, or zero if the record has no interval. Noise widens the
    range around the reported value beyond the half unit of the last printed decimal that counts as a match.
    """
    if record is None:
        return Judgement(Verdict.NOT_RUN, not_run_reason)
    obstacle = next(_obstacles(reported, record, metric), None)
    if obstacle is not None:
        return Judgement(Verdict.NOT_COMPARABLE, obstacle)
    measured = record.metrics[RECORD_KEYS[metric]]
    return judge_value([reported.metrics[metric]], measured, higher_is_better=HIGHER_IS_BETTER[metric])


def _obstacles(reported: ReconstructionRow, record: Record, metric: ReconstructionMetric) -> Iterator[str]:
    """Reasons why the two numbers do not measure the same quantity, the plainest first."""
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
    if reported.released is not None and reported.released != record.subject.autoencoder:
        yield f"weights differ: {reported.released} reported, {record.subject.autoencoder} measured"
    if record.subject.weights_source == "retrained":
        printed = Training(reported.trained_on, reported.training_images)
        found = Training(record.subject.trained_on, record.subject.training_images)
        if (unequal := training_differences(printed, found)) is not None:
            yield unequal
        for clause in record.subject.peculiarities:
            yield f"the training differs: {clause}"
    usual = SETTINGS.get(reported.protocol, {})
    for switch, value in record.settings.items():
        if value != usual.get(switch):
            theirs = usual.get(switch, "fp32" if switch == "precision" else "none")
            yield f"{switch} differs: {theirs} in {reported.protocol}, {value} measured"
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
