"""Ablated profiles: a profile as one variant of its ablations sees it, with one autoencoder, one seed, some phases."""

from typing import Any, Literal

from dcae_bench.base.errors import ConfigError
from dcae_bench.profile.ablations import AblationsSpec
from dcae_bench.profile.profile import Profile
from dcae_bench.specs.autoencoders import DCAESpec
from dcae_bench.specs.variants import Variant


class AblatedProfile(Profile):
    """A profile whose only autoencoder is a variant. Training and evaluation take it like any other profile."""

    variant: Variant
    names: dict[Literal[1, 2, 3], str]
    """Name under which each phase is trained."""

    @property
    def training_seed(self) -> int:
        """The variant's seed; everything but the training keeps the profile's, so that all are measured on one set."""
        return self.variant.seed

    def variant_of(self, autoencoder: str, phase: int | None) -> Variant | None:
        """The variant after a phase."""
        known = (one for one in self.variant.lineage if one.phase == phase)
        return next(known, self.variant) if autoencoder == self.variant.name else None

    def trained_name(self, autoencoder: str, phase: int) -> str:
        """Name under which a phase is trained: trainings that begin alike have their first phases in common."""
        return next((name for number, name in self.names.items() if number == phase), autoencoder)


def of_autoencoder(profile: Profile, name: str) -> Profile:
    """The profile that trains and measures ``name``: for a variant of the ablations its own, else the profile."""
    variant = None if name in profile.autoencoders else variants(profile).get(name)
    return profile if variant is None else ablated(profile, variant)


def variants(profile: Profile) -> dict[str, Variant]:
    """Trainings of the ablations that are none of the profile's own, by name, each after the one it starts from."""
    if profile.ablations is None:
        return {}
    every = profile.ablations.trainings(profile.required_training)
    # Of the variants that share a name, the longest has the phases of the others.
    return {one.name: one for one in sorted(every, key=lambda one: len(one.phases)) if not is_ordinary(profile, one)}


def trained_as(profile: Profile, variant: Variant) -> tuple[str, int]:
    """Autoencoder and phase under which a variant is trained: the profile's own training where it is the same."""
    return (variant.of if is_ordinary(profile, variant) else variant.name), variant.phase


def is_ordinary(profile: Profile, variant: Variant) -> bool:
    """Whether the profile trains a variant anyway: same model, seed, phases and numbers of images."""
    own = profile.autoencoders.get(variant.of)
    training, spec = profile.required_training, required_ablations(profile)
    return (
        own is not None
        and variant.shortcuts
        and not variant.gan_everywhere
        and variant.seed == profile.seed
        and variant.phases == profile.phases[: len(variant.phases)]
        and all(spec.phase(training, variant, number) == training.phase(number) for number in variant.phases)
    )


def ablated(profile: Profile, variant: Variant) -> AblatedProfile:
    """The profile as a variant sees it."""
    spec, training = required_ablations(profile), profile.required_training
    entry = spec.entry(profile.autoencoders, variant.of)
    if not variant.shortcuts and isinstance(entry.model, DCAESpec):
        entry = entry.model_copy(update={"model": entry.model.model_copy(update={"shortcuts": False})})
    phases = {number: spec.phase(training, variant, number) for number in variant.phases}
    sets = tuple(item for item in profile.evaluation.sets if item.label in spec.sets)
    changes: dict[str, Any] = {
        "training": training.model_copy(update={"phases": phases}),
        "evaluation": profile.evaluation.model_copy(update={"sets": sets}),
        "autoencoders": {variant.name: entry},
        "diffusion": None,
        "ablations": None,
        "beside": None,
        "variant": variant,
        "names": {one.phase: trained_as(profile, one)[0] for one in variant.lineage},
    }
    # The parts were checked when the profile was read; phases 1 and 3 alone are a variant's privilege.
    return AblatedProfile.model_construct(**(dict(profile) | changes))


def required_ablations(profile: Profile) -> AblationsSpec:
    """The ablations of a profile. Raises :class:`ConfigError` when it has none."""
    if profile.ablations is None:
        raise ConfigError(f"profile {profile.name}: has no 'ablations'; name a profile that does with --profile")
    return profile.ablations
