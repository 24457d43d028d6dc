"""The evaluation part of a profile: on what reconstructions are measured, and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from dcae_bench.fields import LPIPS_MIN_RESOLUTION, Model, Name
from dcae_bench.protocols import PAPER, SETTINGS

# Fields that came after the first records: at their defaults they measure what was measured before, so a recipe leaves
# them out and stays the same.
LATER = ("extractors", "bootstrap", "gallery")


class EvaluationSet(Model):
    """One data set at one resolution."""

    dataset: Name
    resolution: Annotated[int, Field(ge=LPIPS_MIN_RESOLUTION)]
    upscale: bool = Field(
        default=False, description="enlarge images smaller than the resolution; the paper's ImageNet rows do"
    )

    @property
    def label(self) -> str:
        """Name used in paths: ``<dataset>-<resolution>``."""
        return f"{self.dataset}-{self.resolution}"

    def recipe(self) -> dict[str, Any]:
        """All that shapes the images of the set, except their content."""
        content = self.model_dump(mode="json")
        return content if self.upscale else {key: value for key, value in content.items() if key != "upscale"}


class EvaluationSpec(Model):
    """What is measured, and how. Evaluating refuses a protocol that this version cannot measure yet."""

    protocol: Literal["reconstruction/photos-v1", "reconstruction/paper-v1"]
    sets: tuple[EvaluationSet, ...] = Field(min_length=1)
    crops_per_photo: PositiveInt = Field(
        default=1, description="windows of each photograph; paper-v1 has one, the centre"
    )
    batch_size: PositiveInt
    samples: PositiveInt = Field(description="reconstructions kept per set for the figure")
    posterior: Literal["sample", "mean"] | None = Field(
        default=None, description="latent of a KL autoencoder; null: the protocol's (paper-v1: sample, photos-v1: mean)"
    )
    tf32: bool | None = Field(
        default=None, description="convolutions in TF32 on GPUs that have it; null: the protocol's (paper-v1: true)"
    )
    extractors: tuple[Name, ...] = Field(
        default=(), description="further networks whose features give a Fréchet distance, e.g. dinov2"
    )
    bootstrap: NonNegativeInt = Field(
        default=0, description="resamples behind the interval of a Fréchet distance; 0: the infinitesimal jackknife"
    )
    gallery: NonNegativeInt = Field(default=0, description="k worst and k median images that are shown; 0: none")
    workers: NonNegativeInt = Field(
        default=0,
        description="threads that read images ahead; 0: a batch is read when its turn comes. No part of the recipe",
    )

    @model_validator(mode="after")
    def _one_centre(self) -> Self:
        if self.protocol == PAPER and self.crops_per_photo != 1:
            raise ValueError(f"crops_per_photo is {self.crops_per_photo}; '{PAPER}' has 1, the centre crop")
        return self

    @model_validator(mode="after")
    def _different_sets(self) -> Self:
        labels = [item.label for item in self.sets]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"evaluation set {label} is listed {labels.count(label)} times; list it once")
        return self

    @property
    def settings(self) -> dict[str, str]:
        """The protocol's switches that move numbers, as records hold them: its own values, or the profile's."""
        chosen = dict(SETTINGS[self.protocol])
        if self.posterior is not None:
            chosen["posterior"] = self.posterior
        if self.tf32 is not None:
            chosen["tf32"] = "on" if self.tf32 else "off"
        return chosen

    def recipe(self) -> dict[str, Any]:
        """All that shapes a measurement, except weights, data and code."""
        content = self.model_dump(
            mode="json", include={"protocol", "crops_per_photo", "batch_size", "samples", *self._changed()}
        )
        usual = SETTINGS[self.protocol]
        switches = {key: value for key, value in self.settings.items() if usual.get(key) != value}
        return content | {"sets": [item.recipe() for item in self.sets]} | ({"settings": switches} if switches else {})

    def _changed(self) -> list[str]:
        fields = type(self).model_fields
        return [name for name in LATER if getattr(self, name) != fields[name].default]
