"""The ablations of a profile: which of the paper's ideas are left out, of which autoencoders, with which seeds."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from dcae_bench.base.typed import Name, Strict
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.profile.evaluation import EvaluationSpec
from dcae_bench.profile.training import PhaseSpec, TrainingSpec
from dcae_bench.specs.autoencoders import DCAESpec, PCASpec
from dcae_bench.specs.variants import Variant

Names = Annotated[tuple[Name, ...], Field(description="names in 'autoencoders' of the profile or of the ablations")]
STUDIES = ("residual", "high_resolution", "phases", "gan")


class AblationsSpec(Strict):
    """The paper's ablations (Figure 3), and what each phase and the GAN add."""

    seeds: tuple[NonNegativeInt, ...] = Field(
        min_length=1, description="each training is repeated with each seed; intervals need two, three are usual"
    )
    low: tuple[str, ...] = Field(min_length=1, description="labels of the evaluation sets of low resolution")
    high: tuple[str, ...] = Field(default=(), description="labels of the evaluation sets of high resolution")
    images: dict[Literal[1, 2, 3], PositiveInt] = Field(
        default={},
        description="images of a phase in these trainings, where it is shorter than the profile's; the warm-up shrinks "
        "with it. A training that is as long as the profile's own is not done twice",
    )
    plotted_phases: tuple[Literal[1, 2, 3], ...] = Field(
        default=(), description="phases of the trainings of 'residual' and 'high_resolution'; by default all"
    )
    autoencoders: dict[Name, AutoencoderEntry] = Field(
        default={}, description="autoencoders that only the ablations train"
    )
    residual: Names = Field(default=(), description="DC-AE to train with and without residual autoencoding")
    high_resolution: Names = Field(default=(), description="autoencoders to train with and without phase 2")
    phases: Names = Field(default=(), description="autoencoders to measure after each sequence of phases")
    gan: Names = Field(default=(), description="autoencoders to train with the GAN in every phase")

    @field_validator("seeds", "low", "high", "plotted_phases", *STUDIES)
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value} is listed {values.count(value)} times; list it once")
        return values

    @model_validator(mode="after")
    def _has_studies(self) -> Self:
        if not any(getattr(self, study) for study in STUDIES):
            raise ValueError(f"ablations name no autoencoder; name some under {', '.join(STUDIES)}")
        return self

    @property
    def sets(self) -> tuple[str, ...]:
        """Labels of all evaluation sets of the ablations."""
        return tuple(dict.fromkeys((*self.low, *self.high)))

    def check(
        self,
        entries: Mapping[str, AutoencoderEntry],
        training: TrainingSpec | None,
        evaluation: EvaluationSpec,
    ) -> None:
        """Check the ablations against the other parts of the profile. Raises ValueError, which names the remedy."""
        if training is None:
            raise ValueError("ablations are trainings, but the profile has no 'training'; add one")
        self._check_sets(evaluation)
        self._check_autoencoders(entries)
        self._check_studies(entries, training)
        self._check_images(training)
        self._check_resolutions(entries, training, evaluation)
        taken = {variant.name for variant in self.trainings(training)} & {*entries, *self.autoencoders}
        if taken:
            raise ValueError(f"{min(taken)} is the name of a training of the ablations; give the autoencoder another")

    def entry(self, entries: Mapping[str, AutoencoderEntry], name: str) -> AutoencoderEntry:
        """Entry of an autoencoder of the ablations; ``entries`` are those of the profile."""
        return self.autoencoders[name] if name in self.autoencoders else entries[name]

    def phase(self, training: TrainingSpec, variant: Variant, number: int) -> PhaseSpec:
        """A phase as a variant is trained through it."""
        phase = training.phase(number)
        changes: dict[str, Any] = {}
        last = training.phase(max(training.phases))
        whole, gan = (last, last.gan) if variant.gan_everywhere else (phase, phase.gan)
        seen = _get(self.images, number) or phase.images
        if gan is not None and gan.start_images:
            # The discriminator keeps its share of the phase too, in whole lines of the log.
            start = gan.start_images * seen // whole.images // training.log_images * training.log_images
            gan = gan.model_copy(update={"start_images": start})
        changes["gan"] = gan
        if (images := _get(self.images, number)) is not None:
            # A warm-up keeps its share of the phase: the whole of a short phase must not be one.
            warmup = round(phase.optimizer.warmup_images * images / phase.images)
            optimizer = phase.optimizer.model_copy(update={"warmup_images": warmup})
            changes |= {"images": images, "optimizer": optimizer}
        return phase.model_copy(update=changes)

    def measured(self, training: TrainingSpec) -> tuple[Variant, ...]:
        """The variants that are measured, each once."""
        found = [
            one.model_copy(update={"seed": seed}) for seed in self.seeds for one in self._of_one_seed(training, seed)
        ]
        return tuple(dict.fromkeys(found))

    def trainings(self, training: TrainingSpec) -> tuple[Variant, ...]:
        """The trainings behind all measured variants, each once, and each after the one that it starts from."""
        return tuple(dict.fromkeys(one for variant in self.measured(training) for one in variant.lineage))

    def _of_one_seed(self, training: TrainingSpec, seed: int) -> Iterator[Variant]:
        every = tuple(sorted(training.phases))
        plotted = tuple(number for number in every if number in (self.plotted_phases or every))
        low = self._low(training)
        for name in self.residual:
            yield from (Variant(of=name, shortcuts=on, phases=low, seed=seed) for on in (True, False))
        for name in self.high_resolution:
            yield from (Variant(of=name, phases=phases, seed=seed) for phases in (low, plotted))
        for name in self.phases:
            for phases in sequences(every):
                yield Variant(of=name, phases=phases, seed=seed)
        for name in self.gan:
            yield from (Variant(of=name, gan_everywhere=on, phases=every, seed=seed) for on in (False, True))

    def _low(self, training: TrainingSpec) -> tuple[int, ...]:
        """Plotted phases at the resolution of phase 1: the training without Decoupled High-Resolution Adaptation."""
        low = training.phase(1).resolution
        plotted = self.plotted_phases or tuple(training.phases)
        return tuple(number for number in sorted(plotted) if training.phase(number).resolution == low)

    def _check_sets(self, evaluation: EvaluationSpec) -> None:
        known = [item.label for item in evaluation.sets]
        for label in self.sets:
            if label not in known:
                raise ValueError(f"ablations have the evaluation set '{label}'; the sets are {', '.join(known)}")

    def _check_autoencoders(self, entries: Mapping[str, AutoencoderEntry]) -> None:
        for name, entry in self.autoencoders.items():
            if name in entries:
                raise ValueError(f"autoencoder {name} of the ablations is in 'autoencoders' too; write it once")
            if entry.weights != "retrained":
                raise ValueError(f"autoencoder {name} of the ablations has weights '{entry.weights}'; remove 'weights'")
        for study in STUDIES:
            for name in getattr(self, study):
                found = self.autoencoders.get(name) or entries.get(name)
                if found is None:
                    known = ", ".join([*entries, *self.autoencoders])
                    raise ValueError(f"ablations.{study} has '{name}', which is no autoencoder; choose from {known}")
                if found.weights != "retrained":
                    raise ValueError(f"ablations.{study} has {name}, whose weights are {found.weights}; remove it")
                if isinstance(found.model, PCASpec):
                    raise ValueError(f"ablations.{study} has {name}, which is fitted without phases; remove it")

    def _check_studies(self, entries: Mapping[str, AutoencoderEntry], training: TrainingSpec) -> None:
        for name in self.residual:
            model = self.entry(entries, name).model
            if not isinstance(model, DCAESpec) or not model.shortcuts:
                raise ValueError(f"ablations.residual has {name}, which has no residual autoencoding; name a DC-AE")
        if self.plotted_phases and (1 not in self.plotted_phases or not {*self.plotted_phases} <= {*training.phases}):
            raise ValueError(
                f"ablations.plotted_phases is {list(self.plotted_phases)}; name phase 1 and others of 'training', "
                f"which has {sorted(training.phases)}"
            )
        if self.high_resolution and len(self._low(training)) == len(self.plotted_phases or training.phases):
            raise ValueError("ablations.high_resolution needs a phase of another resolution than phase 1; remove it")
        if self.phases and len(training.phases) == 1:
            raise ValueError("ablations.phases needs more than one phase in 'training'; remove it")
        if not self.gan:
            return
        gan = training.phase(max(training.phases)).gan
        if gan is None or any(
            phase.gan is not None for n, phase in training.phases.items() if n < max(training.phases)
        ):
            raise ValueError("ablations.gan needs a GAN in the last phase of 'training' alone; remove ablations.gan")
        for number, phase in training.phases.items():
            if phase.resolution < gan.discriminator.min_resolution:
                raise ValueError(
                    f"ablations.gan: resolution {phase.resolution} of phase {number} is below "
                    f"{gan.discriminator.min_resolution}, which the discriminator needs"
                )

    def _check_images(self, training: TrainingSpec) -> None:
        for number, images in self.images.items():
            if number not in training.phases:
                raise ValueError(f"ablations.images has phase {number}; 'training' has phases {list(training.phases)}")
            for part, what in ((training.phase(number).batch_size, "batch_size"), (training.log_images, "log_images")):
                if images % part:
                    raise ValueError(f"ablations.images {images} of phase {number} is not a multiple of {what} {part}")

    def _check_resolutions(
        self, entries: Mapping[str, AutoencoderEntry], training: TrainingSpec, evaluation: EvaluationSpec
    ) -> None:
        used = {f"phase {number}": phase.resolution for number, phase in training.phases.items()}
        measured = [item for item in evaluation.sets if item.label in self.sets]
        used |= {f"evaluation set {item.label}": evaluation.side_of(item) for item in measured}
        for name in dict.fromkeys(name for study in STUDIES for name in getattr(self, study)):
            f = self.entry(entries, name).model.compression
            for where, resolution in used.items():
                if resolution % f:
                    raise ValueError(
                        f"ablations: resolution {resolution} of {where} is not a multiple of {f}, the f of {name}"
                    )


def sequences(phases: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All sequences that begin with the first phase: 1, 1-2, 1-3 and 1-2-3."""
    found: list[tuple[int, ...]] = [phases[:1]]
    for number in phases[1:]:
        found += [(*before, number) for before in found]
    return found


def _get(images: Mapping[Literal[1, 2, 3], int], number: int) -> int | None:
    return next((count for phase, count in images.items() if phase == number), None)
