"""The table of ablations: arms of trainings that differ in one thing, and the effect of that thing over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from dcae_bench.records.record import Metric, Record
from dcae_bench.specs.variants import Variant
from dcae_bench.tables.ablation.judge import SeedMean, judge_effect, over_seeds
from dcae_bench.tables.answers import Answer, AnswersTable, ReportedResult
from dcae_bench.tables.reported.ablation import AblationMetric, AblationRow, Study
from dcae_bench.tables.runs import Run

REPORTED_LABELS: dict[AblationMetric, str] = {"rfid": "rFID"}
"""Printed names of the paper's metrics."""
IDEAS = {"residual": "residual autoencoding", "phase 2": "phase 2", "phase 3": "phase 3", "gan": "GAN in every phase"}
"""What two arms may differ in, in the order of rows, with the printed names."""


def variant_of(record: Record) -> Variant:
    """How the measured or trained weights of a record were trained."""
    subject = record.subject
    if subject.variant is not None:
        return subject.variant
    phases = tuple(range(1, (subject.phase or 1) + 1))
    # The profile's own trainings and measurements have one seed.
    return Variant(of=subject.autoencoder, phases=phases, seed=record.provenance.seed)


@dataclass(frozen=True)
class AblationRun(Run):
    """One measured variant on one data set at one resolution."""

    variant: Variant
    trainings: tuple[Record, ...] = ()
    """Records of the trainings behind the weights, one for each phase; empty if one of them is not known."""

    @property
    def seconds(self) -> float | None:
        """Time of all trainings behind the weights; None: not known."""
        return sum(made.provenance.seconds for made in self.trainings) if self.trainings else None

    @property
    def images(self) -> int | None:
        """Images of all trainings behind the weights; None: not known."""
        return sum(made.data.images for made in self.trainings) if self.trainings else None

    @property
    def gan_phases(self) -> tuple[int, ...] | None:
        """Phases with a GAN, which left its loss in the training's record; None: not known."""
        if not self.trainings:
            return None
        return tuple(made.subject.phase or 0 for made in self.trainings if "gan" in made.metrics)

    @property
    def place(self) -> tuple:
        """Everything but the seed that sets a run apart; runs of one place are one arm."""
        subject, data, variant = self.record.subject, self.record.data, self.variant
        measured = (data.name, data.resolution, self.record.profile)
        trained = (not variant.shortcuts, variant.gan_everywhere, variant.phases)
        return (*measured, subject.compression, subject.latent_channels, variant.of, *trained, self.doubts)

    @property
    def order(self) -> tuple:
        """Sort key: place, then seed."""
        return self.place, self.variant.seed


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone."""

    runs: tuple[AblationRun, ...]

    @property
    def first(self) -> AblationRun:
        """The run of the lowest seed; what the runs share is read from it."""
        return self.runs[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the trainings."""
        return tuple(run.variant.seed for run in self.runs)

    def mean(self, key: str) -> SeedMean | None:
        """Mean of a metric over the seeds; None if a run lacks it."""
        values = [run.record.metrics[key].value for run in self.runs if key in run.record.metrics]
        return over_seeds(values) if len(values) == len(self.runs) else None

    @property
    def seconds(self) -> SeedMean | None:
        """Mean time of all trainings behind the weights; None: not known."""
        values = [run.seconds for run in self.runs if run.seconds is not None]
        return over_seeds(values) if len(values) == len(self.runs) else None

    def metric(self, key: str) -> Metric | None:
        """A metric with its mean over the seeds as value and its interval over the seeds; None if a run lacks it."""
        found = self.mean(key)
        if found is None:
            return None
        changes = {"value": found.mean, "interval": found.interval}
        return self.first.record.metrics[key].model_copy(update=changes)


@dataclass(frozen=True)
class Effect:
    """Two arms that differ in one thing."""

    idea: str
    without: Arm
    with_it: Arm

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that both arms have."""
        return tuple(seed for seed in self.without.seeds if seed in self.with_it.seeds)

    @property
    def obstacle(self) -> str | None:
        """Why the two arms cannot be compared; None if they can."""
        ours, theirs = self.with_it.first.record, self.without.first.record
        for what, one, other in (
            ("protocols", ours.protocol, theirs.protocol),
            ("numbers of images", ours.data.images, theirs.data.images),
            ("images", ours.data.sha256, theirs.data.sha256),
            ("settings", ours.settings, theirs.settings),
        ):
            if one != other:
                return f"not compared: the two arms differ in their {what}"
        return None if self.seeds else "not compared: the two arms have no seed in common"

    def difference(self, key: str) -> SeedMean | None:
        """With minus without, seed by seed; None if a run lacks the metric or the arms cannot be compared."""
        pairs = [(self._of(self.with_it, seed), self._of(self.without, seed)) for seed in self.seeds]
        if self.obstacle or not all(key in one.record.metrics and key in other.record.metrics for one, other in pairs):
            return None
        return over_seeds([a.record.metrics[key].value - b.record.metrics[key].value for a, b in pairs])

    def verdict(self, key: str) -> str | None:
        """What the interval of the difference shows; None without a difference, or for a metric without a direction."""
        found, better = self.difference(key), self.with_it.first.record.metrics.get(key)
        return None if found is None or better is None else judge_effect(found, better.better)

    @property
    def cost(self) -> SeedMean | None:
        """Training time with the idea as a multiple of the time without it; None: not known."""
        ratios = []
        for seed in self.seeds:
            one, other = self._of(self.with_it, seed).seconds, self._of(self.without, seed).seconds
            if one is None or not other:
                return None
            ratios.append(one / other)
        return over_seeds(ratios) if ratios else None

    def _of(self, arm: Arm, seed: int) -> AblationRun:
        return next(run for run in arm.runs if run.variant.seed == seed)


AblationAnswer = Answer[AblationRun, AblationMetric]
AblationResult = ReportedResult[AblationRow, AblationRun, AblationMetric]


@dataclass(frozen=True)
class AblationTable(AnswersTable[AblationRow, AblationRun, AblationMetric]):
    """The table of ablations of one profile."""

    COLUMN_ORDER: ClassVar[tuple[str, ...]] = ("rf", "kid", "psnr", "ssim", "lpips")

    arms: tuple[Arm, ...]
    effects: tuple[Effect, ...]
    trainings: Mapping[str, Record] = field(default_factory=dict)
    """Records of trainings by their path as tables print it."""
    not_measured: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reasons by evaluation set, for sets that this machine cannot measure on."""
    answering: tuple[AblationRun, ...] = ()
    """Runs of other profiles that answer reported values."""

    def is_plotted(self, effect: Effect) -> bool:
        """Whether an effect is one of the figure's: on the phases that most autoencoders have, of these the longest."""
        same = [one.with_it.first.variant for one in self.effects if one.idea == effect.idea]
        autoencoders = {
            phases: len({one.of for one in same if one.phases == phases}) for phases in {v.phases for v in same}
        }
        chosen = max(autoencoders, key=lambda phases: (autoencoders[phases], len(phases), phases))
        return effect.with_it.first.variant.phases == chosen

    @property
    def lowest(self) -> int:
        """Lowest resolution that was measured, in pixels; 0 without any."""
        return min((arm.first.record.data.resolution for arm in self.arms), default=0)

    @property
    def beside_runs(self) -> list[AblationRun]:
        """Runs of other profiles that answer reported values: every seed of an arm."""
        return list(self.answering)

    @cached_property
    def reported_effects(self) -> dict[tuple[Study, int], dict[str, str]]:
        """Reported values by arm, of each study and compression."""
        found: dict[tuple[Study, int], dict[str, str]] = {}
        for row in (result.row for result in self.reported):
            if row.compression is not None:
                found.setdefault((row.study, row.compression), {})[row.arm] = row.metrics["rfid"].text
        return found
