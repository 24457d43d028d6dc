"""Builder of the table of ablations: arms of measured variants, effects between arms, and answers to the paper."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from dcae_bench.base.errors import ResultsError
from dcae_bench.planning.meaning import require_kind
from dcae_bench.records.record import Record
from dcae_bench.specs.variants import Variant
from dcae_bench.tables.ablation.table import (
    IDEAS,
    AblationAnswer,
    AblationResult,
    AblationRun,
    AblationTable,
    Arm,
    Effect,
    variant_of,
)
from dcae_bench.tables.answers import WhyNot
from dcae_bench.tables.reported.ablation import AblationMetric, AblationRow
from dcae_bench.tables.reported.verdict import Judgement, Verdict
from dcae_bench.tables.runs import NOTHING_KNOWN, Holdings, shown_path

RECORD_KEY = "rfid_pytorch_fid"
"""Key of a record's metric that measures what the paper plots; other Fréchet distances are other quantities."""
NOT_COMPARABLE = (
    "no source states latent channels, training data and images seen of the autoencoders in the paper's plots; compare "
    "the effects"
)


def build(
    profile_name: str,
    records: Mapping[Path, Record],
    reported: Sequence[AblationRow],
    why_not: WhyNot[AblationRow],
    *,
    beside: Mapping[Path, Record] | None = None,
    not_measured: Mapping[str, tuple[str, ...]] | None = None,
    holdings: Holdings = NOTHING_KNOWN,
) -> AblationTable:
    """Arrange the reconstruction and training records of a profile's ablations.

    Runs that differ in their seed alone are an arm, and two arms that differ in one idea show its effect. ``why_not``
    says why a reported value has no answer. ``beside`` are records of other profiles, which answer the reported values
    that the profile's own records do not answer. ``not_measured`` has reasons by evaluation set. ``holdings`` say what
    the table should hold; records that they doubt stand in the table, but have no effect and answer nothing. Raises
    :class:`ResultsError` for a record of another profile or kind, and for two records of one row.
    """
    for path, record in records.items():
        if record.profile != profile_name:
            raise ResultsError(
                f"{path}: is of profile {record.profile}, not {profile_name}; pass its folder with --beside"
            )
    runs, others = _runs(records, holdings), _runs(beside or {}, holdings)
    arms = _arms(runs)
    sound, theirs = [arm for arm in arms if not arm.first.doubts], _arms(others)
    answering = [_arm_for(row, (sound, theirs)) for row in reported]
    answers = [_answer(row, arm, why_not) for row, arm in zip(reported, answering, strict=True)]
    behind = {run.path: run for arm in answering if arm is not None for run in arm.runs if run.path not in records}
    trainings = {shown_path(path): record for path, record in records.items() if record.kind == "training"}
    return AblationTable(
        profile_name,
        runs,
        tuple(AblationResult(row, {"retrained": one}) for row, one in zip(reported, answers, strict=True)),
        arms,
        tuple(_effects(sound)),
        trainings,
        not_measured or {},
        tuple(behind.values()),
        holdings=holdings,
    )


def _runs(records: Mapping[Path, Record], holdings: Holdings) -> tuple[AblationRun, ...]:
    """Measured variants in the table's order, each with the trainings behind it."""
    require_kind(records, "reconstruction", "training")
    trained = {(record.profile, variant_of(record)): record for record in records.values() if record.kind == "training"}
    runs: dict[tuple, AblationRun] = {}
    for path, record in records.items():
        if record.kind != "reconstruction":
            continue
        variant = variant_of(record)
        behind = [trained.get((record.profile, one)) for one in variant.lineage]
        known = tuple(made for made in behind if made is not None)
        complete = len(known) == len(behind) and known[-1].subject.weights_sha256 == record.subject.weights_sha256
        doubts = holdings.doubts.get(Path(path), ())
        run = AblationRun(Path(path), record, variant, known if complete else (), doubts=doubts)
        before = runs.setdefault(run.order, run)
        if before is not run:
            raise ResultsError(f"{path}: is a second record of the row of {before.path}; pass one of them")
    return tuple(sorted(runs.values(), key=lambda run: run.order))


def _arms(runs: Sequence[AblationRun]) -> tuple[Arm, ...]:
    return tuple(Arm(tuple(group)) for _, group in groupby(runs, key=lambda run: run.place))


def _effects(arms: Sequence[Arm]) -> Iterator[Effect]:
    """All pairs of arms that differ in one idea, by idea."""
    for idea in IDEAS:
        for arm in arms:
            for other in arms:
                if _same_images(arm, other) and _without(arm.first.variant, idea) == _arm_of(other.first.variant):
                    yield Effect(idea, without=other, with_it=arm)


def _same_images(arm: Arm, other: Arm) -> bool:
    ours, theirs = arm.first.record, other.first.record
    return (ours.profile, ours.data.name, ours.data.resolution) == (
        theirs.profile,
        theirs.data.name,
        theirs.data.resolution,
    )


def _arm_of(variant: Variant) -> Variant:
    """A variant without its seed."""
    return variant.model_copy(update={"seed": 0})


def _without(variant: Variant, idea: str) -> Variant | None:
    """The variant with one idea left out; None for a variant that does not have it."""
    arm = _arm_of(variant)
    if idea == "residual":
        return arm.model_copy(update={"shortcuts": False}) if arm.shortcuts else None
    if idea == "gan":
        return arm.model_copy(update={"gan_everywhere": False}) if arm.gan_everywhere else None
    number = int(idea.removeprefix("phase "))
    rest = tuple(phase for phase in arm.phases if phase != number)
    return arm.model_copy(update={"phases": rest}) if number in arm.phases and rest else None


def _arm_for(row: AblationRow, profiles: Sequence[Sequence[Arm]]) -> Arm | None:
    """The arm that answers a reported value; of several in one profile, that with the longest sequence of phases."""
    for arms in profiles:
        fitting = [arm for arm in arms if _measures(arm, row)]
        if fitting:
            return max(fitting, key=lambda arm: len(arm.first.variant.phases))
    return None


def _answer(row: AblationRow, arm: Arm | None, why_not: WhyNot[AblationRow]) -> AblationAnswer:
    """What an arm of retrained autoencoders gives for a reported value."""
    metrics: list[AblationMetric] = list(row.metrics)
    if arm is None:
        missing = why_not(row, "retrained")
        return AblationAnswer({}, {}, dict.fromkeys(metrics, Judgement(Verdict.NOT_RUN, "; ".join(missing))), missing)
    found = arm.metric(RECORD_KEY)
    judgement = Judgement(Verdict.NOT_COMPARABLE, NOT_COMPARABLE)
    measured = {} if found is None else dict.fromkeys(metrics, found)
    return AblationAnswer(dict.fromkeys(metrics, arm.first), measured, dict.fromkeys(metrics, judgement))


def _measures(arm: Arm, row: AblationRow) -> bool:
    """Whether an arm is the row's arm on the row's images; where a source does not name the images, on no others."""
    record, variant = arm.first.record, arm.first.variant
    images = (record.subject.compression, record.data.resolution) == (row.compression, row.resolution)
    if not images or row.dataset not in (None, record.data.name) or variant.gan_everywhere:
        return False
    if record.subject.family != "dc-ae":  # other profiles' records hold the baselines too
        return False
    if row.study == "residual":
        return 2 not in variant.phases and variant.shortcuts == (row.arm == "with")
    return row.study == "high_resolution" and variant.shortcuts and (2 in variant.phases) == (row.arm == "with")
