"""The autoencoders of a profile: each with its model, the origin of its weights, and its own settings."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from dcae_bench.base.typed import Name, Strict
from dcae_bench.catalogue.autoencoders import expand_preset
from dcae_bench.profile.training import LayerPattern
from dcae_bench.specs.autoencoders import AutoencoderSpec, CustomSpec, DiffusersSpec, PCASpec, unfolded
from dcae_bench.specs.protocols import WeightsSource

Init = Literal["torch", "identity", "balanced"]


class PresetName(Strict):
    """A name of baselines/autoencoders.yaml in place of a spec. Loading the profile replaces the name by the spec."""

    preset: str


ModelSpec = Annotated[
    AutoencoderSpec, BeforeValidator(expand_preset, json_schema_input_type=AutoencoderSpec | PresetName)
]


class AutoencoderEntry(Strict):
    """An autoencoder of the profile: its model, the origin of its weights, and its own settings."""

    model: ModelSpec
    weights: WeightsSource = Field(
        default="retrained",
        description="retrained: by this profile; released: by the authors, and the entry has the catalogue's name; "
        "own: from 'file', from the model's source or from its class",
    )
    file: Path | None = Field(
        default=None, description="file with own weights, in any known layout; null: the model brings its weights"
    )
    sets: tuple[str, ...] | None = Field(
        default=None,
        description="labels of the evaluation sets for released or own weights; null: all sets",
    )
    datasets: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="data sets that every phase trains it on; null: those of 'training' and its phases",
    )
    lr: dict[Literal[1, 2, 3], PositiveFloat] = Field(
        default={}, description="learning rate by phase, where it differs from the phase's"
    )
    freeze: dict[Literal[1, 2, 3], tuple[LayerPattern, ...]] = Field(
        default={}, description="layers that stay as they are, by phase, in place of the phase's 'freeze'"
    )

    initial: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="weights that the first phase starts from: a released name of the catalogue, a file, a folder, or "
        "a hub id; null: random weights",
    )
    init: Init = Field(
        default="torch",
        description="random weights of phase 1; torch: each layer's own default; identity: the last weights of every "
        "residual branch are 0, so that its block starts as the identity; balanced: convolutions keep the variance of "
        "their input (1 / fan-in) and their biases are 0",
    )

    @model_validator(mode="after")
    def _of_its_source(self) -> Self:
        if isinstance(self.model, PCASpec) and (self.lr or self.freeze or self.initial or self.init != "torch"):
            raise ValueError(
                "a pca model is fitted in closed form, so 'lr', 'freeze', 'initial' and 'init' have no effect; remove "
                "them"
            )
        if self.initial is not None and self.init != "torch":
            raise ValueError(
                f"'initial' {self.initial} brings all weights, so 'init' has no effect; remove one of them"
            )
        if self.weights != "retrained" and self.init != "torch":
            raise ValueError(f"weights are '{self.weights}', so 'init' has no effect; remove it")
        for option in ("lr", "freeze", "initial", "datasets"):
            if self.weights != "retrained" and getattr(self, option):
                raise ValueError(f"weights are '{self.weights}', so '{option}' has no effect; remove it")
        if self.datasets is not None and len(set(self.datasets)) != len(self.datasets):
            raise ValueError(f"'datasets' names a data set twice: {', '.join(self.datasets)}")
        if self.weights == "retrained" and self.sets is not None:
            raise ValueError("'sets' is for released weights and your own; retrained ones are measured on every set")
        if self.weights != "own" and self.file is not None:
            raise ValueError(f"'file' {self.file} is for weights 'own'; these are '{self.weights}'")
        if (
            self.weights == "own"
            and self.file is None
            and not isinstance(unfolded(self.model), DiffusersSpec | CustomSpec)
        ):
            raise ValueError(f"weights are 'own', and a {self.model.family} model brings none; name them with 'file'")
        return self

    def own_learning_rate(self, phase: int) -> float | None:
        """Learning rate that replaces the phase's; None keeps the phase's."""
        return next((lr for number, lr in self.lr.items() if number == phase), None)

    def own_freeze(self, phase: int) -> tuple[str, ...] | None:
        """Patterns that replace the phase's ``freeze``; None keeps the phase's."""
        return next((patterns for number, patterns in self.freeze.items() if number == phase), None)
