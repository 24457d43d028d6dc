"""Why a row of the paper was not measured, and what it would take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dcae_bench.config import Profile
from dcae_bench.diffusion_plan import ReleasedPlan, TrainedPlan
from dcae_bench.records import WeightsSource
from dcae_bench.tables.reported import ReportedRow
from dcae_bench.tables.reported_diffusion import DiffusionRow


@dataclass(frozen=True)
class Absence:
    """What a profile leaves out on purpose, and what this machine lacks for the rest."""

    profile: Profile
    missing: Mapping[tuple[str, str], tuple[str, ...]]
    """Reasons by autoencoder and label of the evaluation set, as :func:`dcae_bench.availability.missing` finds them."""

    def reasons(self, row: ReportedRow, source: WeightsSource) -> tuple[str, ...]:
        """Why there is no result of one weights source for a row; at least one reason."""
        labels = [
            item.label
            for item in self.profile.evaluation.sets
            if (item.dataset, item.resolution) == (row.dataset, row.resolution)
        ]
        for name in self.profile.named(source):
            for label in [item.label for item in self.profile.sets_of(name) if item.label in labels]:
                if self._concerns(name, label, row):
                    return self.missing.get((name, label), (f"{name} was not measured on {label}: run the workflow",))
        if labels and source == "released" and row.weights_source == "retrained":
            return ("the authors did not publish the weights of this autoencoder",)
        return (self.profile.paper_rows_not_run,)

    def elsewhere(self, rows: Iterable[ReportedRow]) -> dict[tuple[str, str], tuple[str, ...]]:
        """What is missing for measurements that answer none of the paper's ``rows``, as own weights never do."""
        rows = list(rows)
        return {
            (name, label): reasons
            for (name, label), reasons in self.missing.items()
            if name in self.profile.named("own") or not any(self._concerns(name, label, row) for row in rows)
        }

    def _concerns(self, name: str, label: str, row: ReportedRow) -> bool:
        model = self.profile.autoencoders[name].model
        (item,) = (item for item in self.profile.evaluation.sets if item.label == label)
        ours = (model.family, model.compression, model.latent_channels, item.dataset, item.resolution)
        return ours == (row.family, row.compression, row.latent_channels, row.dataset, row.resolution)


@dataclass(frozen=True)
class DenoiserAbsence:
    """What a profile's diffusion part leaves out on purpose, and what this machine lacks for the rest."""

    profile: Profile
    missing: Mapping[str, tuple[str, ...]]
    """Reasons by row, as :func:`dcae_bench.availability.missing_rows` finds them."""

    def reasons(self, reported: DiffusionRow, source: WeightsSource) -> tuple[str, ...]:
        """Why denoisers of one weights source gave no result for a row of the paper; at least one reason."""
        if reported.autoencoder is None:
            return ("no source tells which autoencoder the paper used",)
        plans = [self.profile.row(name) for name in (self.profile.diffusion.rows if self.profile.diffusion else ())]
        for plan in plans:
            if _answers(plan, reported, source):
                return self.missing.get(plan.name, (f"row {plan.name} was not measured: run the workflow",))
        on_its_data = [plan for plan in plans if (plan.data.datasets, plan.data.resolution) == _images(reported)]
        if on_its_data and source == "released" and reported.released is None:
            return ("the authors did not publish the weights of this denoiser",)
        if source == "retrained" and any(isinstance(plan, TrainedPlan) for plan in on_its_data):
            return (f"profile {self.profile.name} does not train this denoiser: it would be a row of its 'diffusion'",)
        return (self.profile.paper_rows_not_run,)


def _answers(plan: TrainedPlan | ReleasedPlan, reported: DiffusionRow, source: WeightsSource) -> bool:
    if (plan.data.datasets, plan.data.resolution) != _images(reported):
        return False
    if isinstance(plan, ReleasedPlan):
        return source == "released" and plan.row.released == reported.released
    ours = (plan.row.denoiser, plan.process, plan.row.latent, plan.row.patch)
    theirs = (reported.denoiser, reported.process, f"{reported.autoencoder}@released", reported.patch)
    return source == "retrained" and ours == theirs and reported.training_images in (None, plan.row.images)


def _images(reported: DiffusionRow) -> tuple[tuple[str, ...], int]:
    return (reported.dataset,), reported.resolution
