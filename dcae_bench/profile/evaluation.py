"""The evaluation part of a profile: the images that are reconstructed, and how reconstructions are measured."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from dcae_bench.base.typed import Name, Strict
from dcae_bench.specs.protocols import EXTRACTORS, LPIPS_MIN_RESOLUTION, NATIVE, PAPER, SETTINGS, Precision

# Fields that did not exist when the first records were made. At their defaults they change no measurement. The recipe
# then leaves them out, so the hash of an old recipe stays valid.
ADDED_LATER = ("extractors", "bootstrap", "gallery", "multiple")
NATIVE_MULTIPLE = 64
"""Sides of native-v1 are multiples of this many px by default: of every f of the paper but 128."""


class EvaluationSet(Strict):
    """One data set at one resolution."""

    dataset: Name
    resolution: Annotated[int, Field(ge=LPIPS_MIN_RESOLUTION)] = Field(
        description="side of the squares in px; native-v1: largest shorter side of the whole images"
    )
    upscale: bool = Field(
        default=False, description="enlarge images smaller than the resolution, as the paper's ImageNet rows do"
    )

    @property
    def label(self) -> str:
        """Name of the set in paths: ``<dataset>-<resolution>``."""
        return f"{self.dataset}-{self.resolution}"

    def recipe(self) -> dict[str, Any]:
        """Everything that shapes the images of the set, except the content of the data set."""
        content = self.model_dump(mode="json")
        return content if self.upscale else {key: value for key, value in content.items() if key != "upscale"}


class TilesSpec(Strict):
    """Tiles in which large images are decoded, and by default encoded."""

    size: PositiveInt = Field(description="side of a tile in px, a multiple of f")
    overlap: NonNegativeInt = Field(
        description="px that neighbours share, a multiple of f; they are blended linearly there. By default a quarter "
        "of the size"
    )
    encode: bool = Field(default=True, description="false: images are encoded whole, and only latents are decoded so")

    @model_validator(mode="before")
    @classmethod
    def _quarter(cls, tiles: Any) -> Any:
        if isinstance(tiles, dict) and "overlap" not in tiles and isinstance(tiles.get("size"), int):
            return {**tiles, "overlap": tiles["size"] // 4}
        return tiles

    @model_validator(mode="after")
    def _half_at_most(self) -> Self:
        if 2 * self.overlap > self.size:
            raise ValueError(
                f"overlap {self.overlap} of the tiles is more than half of their size {self.size}; lower it"
            )
        return self

    @property
    def text(self) -> str:
        """The tiles as the settings of a record hold them."""
        return f"{self.size} px, overlap {self.overlap} px" + ("" if self.encode else ", decoder only")


class EvaluationSpec(Strict):
    """Protocol, evaluation sets and settings of reconstruction."""

    protocol: Literal["reconstruction/photos-v1", "reconstruction/paper-v1", "reconstruction/native-v1"]
    sets: tuple[EvaluationSet, ...] = Field(min_length=1)
    crops_per_photo: PositiveInt = Field(
        default=1, description="crops of each photograph; paper-v1 has one, the centre crop"
    )
    multiple: PositiveInt | None = Field(
        default=None,
        description="native-v1: both sides of an image are trimmed to multiples of this many px, which every f must "
        f"divide; null: {NATIVE_MULTIPLE}",
    )
    batch_size: PositiveInt
    samples: PositiveInt = Field(description="reconstructions of each set that are kept for the figure")
    posterior: Literal["sample", "mean"] | None = Field(
        default=None,
        description="latent of a KL autoencoder; null: the protocol's (paper-v1: sample, photos-v1: mean)",
    )
    tf32: bool | None = Field(
        default=None,
        description="convolutions in TF32 on GPUs that have it; null: the protocol's choice (paper-v1: true)",
    )
    precision: Precision = Field(
        default="fp32",
        description="weights and activations of the autoencoder; metrics and their networks stay as they are",
    )
    tiles: TilesSpec | None = Field(
        default=None, description="tiles in which images are reconstructed; null: each image as a whole"
    )
    extractors: tuple[Name, ...] = Field(
        default=(), description="further networks that Fréchet distances are measured with, e.g. dinov2"
    )
    bootstrap: NonNegativeInt = Field(
        default=0, description="bootstrap resamples for the interval of a Fréchet distance; 0: infinitesimal jackknife"
    )
    gallery: NonNegativeInt = Field(default=0, description="k: the k worst and k median images are shown; 0: none")
    workers: NonNegativeInt = Field(
        default=0,
        description="threads that read images ahead; 0: each batch is read when it is needed. Not part of the recipe",
    )

    @field_validator("extractors")
    @classmethod
    def _extractors_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in EXTRACTORS:
                raise ValueError(f"extractor '{name}' does not exist; choose from {', '.join(EXTRACTORS)}")
        return names

    @field_validator("bootstrap")
    @classmethod
    def _spread_needs_two(cls, resamples: int) -> int:
        if resamples == 1:
            raise ValueError("one resample has no spread; take 0 for the jackknife, or 2 or more (100 is usual)")
        return resamples

    @model_validator(mode="after")
    def _one_centre(self) -> Self:
        if self.protocol == PAPER and self.crops_per_photo != 1:
            raise ValueError(f"crops_per_photo is {self.crops_per_photo}; '{PAPER}' has 1, the centre crop")
        return self

    @model_validator(mode="after")
    def _whole_images(self) -> Self:
        if self.protocol != NATIVE:
            if self.multiple is not None:
                raise ValueError(f"multiple {self.multiple} is for '{NATIVE}', this protocol has squares; remove it")
            return self
        if self.crops_per_photo != 1:
            raise ValueError(f"crops_per_photo is {self.crops_per_photo}; '{NATIVE}' has 1, the whole image")
        if (enlarged := next((item.label for item in self.sets if item.upscale), None)) is not None:
            raise ValueError(f"evaluation set {enlarged} has upscale; '{NATIVE}' enlarges no image; remove it")
        if "vgg16" in self.extractors:
            raise ValueError(f"extractor vgg16 resizes no image, so '{NATIVE}' has no use for it; remove it")
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
        """Settings that change numbers, as records hold them: the protocol's values, unless the profile sets others.

        Those of :attr:`computation` come on top for reconstructions.
        """
        chosen = dict(SETTINGS[self.protocol])
        if self.posterior is not None:
            chosen["posterior"] = self.posterior
        if self.tf32 is not None:
            chosen["tf32"] = "on" if self.tf32 else "off"
        return chosen

    @property
    def trimmed_to(self) -> int:
        """Number of px of which both sides of an image are multiples under native-v1."""
        return self.multiple or NATIVE_MULTIPLE

    def side_of(self, item: EvaluationSet) -> int:
        """Side in px that the f of an autoencoder must divide to be measured on a set."""
        return self.trimmed_to if self.protocol == NATIVE else item.resolution

    def side_text(self, item: EvaluationSet) -> str:
        """:meth:`side_of` with its name, for errors."""
        return f"{'multiple' if self.protocol == NATIVE else 'resolution'} {self.side_of(item)}"

    @property
    def computation(self) -> dict[str, str]:
        """How an autoencoder reconstructs, where that is another way than in fp32 and as a whole."""
        half = {"precision": self.precision} if self.precision != "fp32" else {}
        return half | ({"tiles": self.tiles.text} if self.tiles is not None else {})

    def recipe(self, *, reconstructs: bool = False) -> dict[str, Any]:
        """Everything that shapes a measurement, except weights, data and code.

        ``reconstructs``: the measurement is of reconstructions, so that :attr:`computation` is part of it.
        """
        content = self.model_dump(
            mode="json", include={"protocol", "crops_per_photo", "batch_size", "samples", *self._changed()}
        )
        usual = SETTINGS[self.protocol]
        switches = {key: value for key, value in self.settings.items() if usual.get(key) != value}
        switches |= self.computation if reconstructs else {}
        return content | {"sets": [item.recipe() for item in self.sets]} | ({"settings": switches} if switches else {})

    def _changed(self) -> list[str]:
        fields = type(self).model_fields
        return [name for name in ADDED_LATER if getattr(self, name) != fields[name].default]
