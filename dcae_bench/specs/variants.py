"""Variants: an autoencoder's training with one of the paper's ideas left out, or with another seed."""

from typing import Self

from pydantic import Field, NonNegativeInt, model_validator

from dcae_bench.base.typed import Strict


class Variant(Strict):
    """One training of an ablation, from random weights to the last of its phases."""

    of: str = Field(description="name of the autoencoder whose training is varied")
    shortcuts: bool = Field(default=True, description="false: without residual autoencoding")
    gan_everywhere: bool = Field(default=False, description="true: the GAN of phase 3 takes part in every phase")
    phases: tuple[int, ...] = Field(min_length=1, description="phases that the weights went through, in order")
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.phases) != sorted(set(self.phases)):
            raise ValueError(f"phases are {list(self.phases)}; they must rise")
        return self

    @property
    def phase(self) -> int:
        """The last phase."""
        return self.phases[-1]

    @property
    def name(self) -> str:
        """Name in paths and options. Trainings of one name and phase are one training."""
        skipped = [number for number in range(1, self.phase) if number not in self.phases]
        parts = [self.of, *([] if self.shortcuts else ["plain"]), *(["gan"] if self.gan_everywhere else [])]
        return "-".join([*parts, *(f"without-{number}" for number in skipped), f"seed{self.seed}"])

    @property
    def before(self) -> Self | None:
        """The variant whose weights the last phase starts from; None: random weights."""
        return self.model_copy(update={"phases": self.phases[:-1]}) if len(self.phases) > 1 else None

    @property
    def lineage(self) -> tuple[Self, ...]:
        """The trainings behind the weights, one for each phase."""
        return tuple(self.model_copy(update={"phases": self.phases[: n + 1]}) for n in range(len(self.phases)))
