"""Absences: why no run answers a row of the paper, and what a run would need."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dcae_bench.profile.profile import Profile
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.tables.reported.generation import GenerationRow
from dcae_bench.tables.reported.reconstruction import ReconstructionRow


@dataclass(frozen=True)
class ReconstructionAbsence:
    """Reasons for missing reconstructions: what the profile leaves out on purpose, and what this machine lacks."""

    profile: Profile
    missing: Mapping[tuple[str, str], tuple[str, ...]]
    """What this machine lacks, by autoencoder and evaluation set; see :mod:`dcae_bench.planning.availability`."""

    def reasons(self, row: ReconstructionRow, source: WeightsSource) -> tuple[str, ...]:
        """Why no autoencoder of a weights source has a result for a row of the paper; at least one reason."""
        labels = [
            item.label
            for item in self.profile.evaluation.sets
            if (item.dataset, item.resolution) == (row.dataset, row.resolution)
        ]
        for name in sorted(
            self.profile.with_weights(source), key=lambda name: -row.shared_data(self._trained_on(name))
        ):
            for label in [item.label for item in self.profile.sets_of(name) if item.label in labels]:
                if self._measures(name, label, row):
                    return self.missing.get((name, label), (f"{name} was not measured on {label}: run the workflow",))
        if labels and source == "released" and row.weights_source == "retrained":
            return ("the authors did not publish the weights of this autoencoder",)
        return (self.profile.paper_rows_not_run,)

    def beyond_paper(self, rows: Iterable[ReconstructionRow]) -> dict[tuple[str, str], tuple[str, ...]]:
        """The part of ``missing`` for measurements that answer none of the paper's ``rows``.

        Own weights never answer a row.
        """
        rows = list(rows)
        return {
            (name, label): reasons
            for (name, label), reasons in self.missing.items()
            if name in self.profile.with_weights("own") or not any(self._measures(name, label, row) for row in rows)
        }

    def _measures(self, name: str, label: str, row: ReconstructionRow) -> bool:
        """Whether an autoencoder on an evaluation set is the row's autoencoder on the row's images."""
        model = self.profile.autoencoders[name].model
        if name in self.profile.with_weights("released") and row.released not in (None, name):
            return False
        (item,) = (item for item in self.profile.evaluation.sets if item.label == label)
        ours = (model.family, model.compression, model.latent_channels, item.dataset, item.resolution)
        return ours == (row.family, row.compression, row.latent_channels, row.dataset, row.resolution)

    def _trained_on(self, name: str) -> tuple[str, ...] | None:
        """Data sets that the profile trains an autoencoder on; None for one that it does not train."""
        if name not in self.profile.with_weights("retrained"):
            return None
        phases = self.profile.phases_of(name)
        return tuple({data for number in phases for data in self.profile.training_sets(name, number)})


@dataclass(frozen=True)
class GenerationAbsence:
    """Reasons for missing samples: what the profile leaves out on purpose, and what this machine lacks."""

    profile: Profile
    missing: Mapping[str, tuple[str, ...]]
    """What this machine lacks, by row of the profile; see :mod:`dcae_bench.planning.availability`."""

    def reasons(self, reported: GenerationRow, source: WeightsSource) -> tuple[str, ...]:
        """Why no denoiser of a weights source has a result for a row of the paper; at least one reason."""
        if reported.not_run is not None:
            return (reported.not_run,)
        if reported.autoencoder is None:
            return ("no source tells which autoencoder the paper used",)
        resolved_rows = [
            self.profile.row(name) for name in (self.profile.diffusion.rows if self.profile.diffusion else ())
        ]
        for resolved in resolved_rows:
            if _answers(resolved, reported, source):
                return self.missing.get(resolved.name, (f"row {resolved.name} was not measured: run the workflow",))
        on_its_data = [
            resolved
            for resolved in resolved_rows
            if (resolved.data.datasets, resolved.data.resolution) == _images(reported)
        ]
        measures_released = any(isinstance(resolved, ReleasedRow) for resolved in resolved_rows)
        if source == "released" and reported.released is None and (on_its_data or measures_released):
            return ("the authors did not publish the weights of this denoiser",)
        if source == "retrained" and any(isinstance(resolved, TrainedRow) for resolved in on_its_data):
            return (f"profile {self.profile.name} does not train this denoiser: it would be a row of its 'diffusion'",)
        return (self.profile.paper_rows_not_run,)


def _answers(resolved: TrainedRow | ReleasedRow, reported: GenerationRow, source: WeightsSource) -> bool:
    """Whether a row of the profile, once measured, answers the reported row."""
    if (resolved.data.datasets, resolved.data.resolution) != _images(reported):
        return False
    if isinstance(resolved, ReleasedRow):
        return source == "released" and resolved.spec.released == reported.released
    ours = (resolved.spec.denoiser, resolved.process, resolved.spec.latent, resolved.spec.patch)
    theirs = (reported.denoiser, reported.process, f"{reported.autoencoder}@released", reported.patch)
    return source == "retrained" and ours == theirs and reported.training_images in (None, resolved.spec.images)


def _images(reported: GenerationRow) -> tuple[tuple[str, ...], int]:
    """Data sets and resolution of the reported row's images, as a profile's row names them."""
    return (reported.dataset,), reported.resolution
