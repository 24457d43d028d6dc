"""Ablation jobs: the trainings and evaluations of a profile's ablations, and the files of each."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from dcae_bench.profile.ablated import ablated, required_ablations, trained_as, variants
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import evaluation_recipe, training_recipe
from dcae_bench.records.places import Places
from dcae_bench.specs.variants import Variant


class AblationJobs:
    """The jobs behind the table of ablations; none for a profile without ablations."""

    def __init__(self, profile: Profile, places: Places, missing: Mapping[str, tuple[str, ...]]):
        """``missing`` says of evaluation sets, by label, why this machine cannot measure on them."""
        self.profile, self.own, self.places, self.missing = profile, places, places.ablations, missing

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Trainings that are none of the profile's own, by name."""
        return variants(self.profile)

    @cached_property
    def measured(self) -> list[tuple[str, int]]:
        """Autoencoder and phase of everything that the table shows; some are the profile's own trainings."""
        if self.profile.ablations is None:
            return []
        every = required_ablations(self.profile).measured(self.profile.required_training)
        return [trained_as(self.profile, variant) for variant in every]

    @cached_property
    def trained(self) -> list[tuple[str, int]]:
        """Autoencoder and phase of every training behind the table, each after the one that it starts from."""
        if self.profile.ablations is None:
            return []
        every = required_ablations(self.profile).trainings(self.profile.required_training)
        return [trained_as(self.profile, variant) for variant in every]

    @cached_property
    def labels(self) -> list[str]:
        """Evaluation sets of the ablations that this machine can measure on."""
        sets = self.profile.ablations.sets if self.profile.ablations else ()
        return [label for label in sets if label not in self.missing]

    @property
    def records(self) -> list[str]:
        """Reconstruction records of the table."""
        return [
            self.of(name).reconstruction(f"{name}@retrained", label, phase)
            for name, phase in self.measured
            for label in self.labels
        ]

    @property
    def training_records(self) -> list[str]:
        """Training records of the table, which tell the cost of each row."""
        return [self.of(name).training(name, phase, "record.json") for name, phase in self.trained]

    @property
    def variant_records(self) -> list[str]:
        """The records of both kinds that are not the profile's own."""
        return [path for path in (*self.training_records, *self.records) if path.startswith(f"{self.places.root}/")]

    def of(self, name: str) -> Places:
        """Places of a training by its name."""
        return self.places if name in self.variants else self.own

    def weights_before(self, name: str, phase: int) -> list[str]:
        """Weights that a phase of a variant starts from; none for its first phase."""
        before = self.before(name, phase)
        return [] if before is None else [self.of(before[0]).weights(*before)]

    def before(self, name: str, phase: int) -> tuple[str, int] | None:
        """Autoencoder and phase that a phase starts from, of a variant or of the profile's own; None for the first."""
        return self._view(name).before(name, phase)

    def recipe(self, name: str, phase: int) -> dict[str, Any]:
        """Everything that shapes the weights of a variant after a phase, except data and code."""
        return training_recipe(self._view(name), name, phase)

    def _view(self, name: str) -> Profile:
        return ablated(self.profile, self.variants[name]) if name in self.variants else self.profile

    @property
    def evaluation_recipe(self) -> dict[str, Any]:
        """Everything that shapes the measurement of a variant, except weights, data and code; the same for all."""
        first = next(iter(self.variants.values()), None)
        return {} if first is None else evaluation_recipe(ablated(self.profile, first), reconstructs=True)
