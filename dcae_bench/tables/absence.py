"""Why a row of the paper was not measured, and what it would take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dcae_bench.config import Profile
from dcae_bench.records import WeightsSource
from dcae_bench.tables.reported import ReportedRow


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
        for name in self.profile.named(source) if source != "own" else ():
            for label in [item.label for item in self.profile.sets_of(name) if item.label in labels]:
                if self._concerns(name, label, row):
                    return self.missing.get((name, label), (f"{name} was not measured on {label}: run the workflow",))
        if labels and source == "released" and row.weights_source == "retrained":
            return ("the authors did not publish the weights of this autoencoder",)
        return (self.profile.paper_rows_not_run,)

    def elsewhere(self, rows: Iterable[ReportedRow]) -> dict[tuple[str, str], tuple[str, ...]]:
        """What is missing for measurements that answer none of the paper's ``rows``."""
        rows = list(rows)
        return {
            (name, label): reasons
            for (name, label), reasons in self.missing.items()
            if not any(self._concerns(name, label, row) for row in rows)
        }

    def _concerns(self, name: str, label: str, row: ReportedRow) -> bool:
        model = self.profile.autoencoders[name].model
        (item,) = (item for item in self.profile.evaluation.sets if item.label == label)
        ours = (model.family, model.compression, model.latent_channels, item.dataset, item.resolution)
        return ours == (row.family, row.compression, row.latent_channels, row.dataset, row.resolution)
