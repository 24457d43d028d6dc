"""The diffusion part of a profile: which denoisers are trained on which latents or released, how they are sampled."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from dcae_bench.denoiser_presets import DenoiserPreset, denoiser_catalogue
from dcae_bench.denoiser_specs import Architecture
from dcae_bench.diffusion_specs import GuidanceSpec, ProcessName, SamplerSpec, paper_sampler
from dcae_bench.errors import ConfigError
from dcae_bench.execution import ExecutionSpec
from dcae_bench.fields import Model, Name
from dcae_bench.records import WeightsSource
from dcae_bench.training_spec import EMASpec, OptimizerSpec

Probability = Annotated[float, Field(ge=0, lt=1)]
Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*@(retrained|released|own)$")]


class LatentDataSpec(Model):
    """Images whose latents are cached, and that samples are compared with: every one of a split, cropped once."""

    datasets: tuple[Name, ...] = Field(min_length=1)
    split: Literal["train", "eval"] = Field(default="train", description="MJHQ has only 'eval'")
    resolution: PositiveInt
    labels: Literal["folder", "dataset"] | None = Field(
        default=None,
        description="folder: the manifest's label, in sorted order; dataset: the place in 'datasets'; null: none",
    )
    classes: PositiveInt | None = Field(default=None, description="how many labels 'folder' has; else left out")
    crops_per_photo: PositiveInt = Field(
        default=1, description="windows of each photograph of a pack; files have one, the ADM centre crop"
    )
    upscale: bool = Field(default=False, description="enlarge images smaller than the resolution, as the authors do")
    flips: bool = Field(default=False, description="cache every image mirrored too; the authors do not")
    dtype: Literal["float16", "float32"] = Field(default="float32", description="of the latents on disk")
    posterior: Literal["sample", "mean"] = Field(
        default="sample", description="latent of a KL autoencoder, released or own; the authors cache one sample"
    )

    @model_validator(mode="after")
    def _classes_are_known(self) -> Self:
        if self.labels == "folder" and self.classes is None:
            raise ValueError("labels 'folder' need 'classes', their number")
        if self.labels == "folder" and len(self.datasets) > 1:
            raise ValueError("labels 'folder' take one data set")
        if self.labels != "folder" and self.classes is not None:
            raise ValueError(f"'classes' is for labels 'folder'; labels are '{self.labels or 'null'}'")
        if len(set(self.datasets)) < len(self.datasets):
            raise ValueError("'datasets' lists one twice; list it once")
        return self

    @property
    def class_count(self) -> int | None:
        """How many classes a denoiser of these latents has; None: it is unconditional."""
        return len(self.datasets) if self.labels == "dataset" else self.classes


class DenoiserTrainingSpec(Model):
    """How denoisers are trained. Progress is counted in images, of which a latent is one."""

    process: ProcessName
    batch_size: PositiveInt
    accumulate: PositiveInt = Field(default=1, description="parts of a batch that are computed one after another")
    optimizer: OptimizerSpec
    ema: EMASpec
    label_dropout: Probability = Field(default=0.1, description="share of labels replaced by the null class")
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(default=None, description="null: the profile's")
    execution: ExecutionSpec = ExecutionSpec()
    checkpoint_images: PositiveInt = Field(description="images between two checkpoints and their preview samples")
    log_images: PositiveInt = Field(description="images between two lines of the log")
    previews: int = Field(default=8, ge=0, description="latents sampled at each checkpoint on a fixed seed")
    sampler: SamplerSpec | None = Field(default=None, description="null: the paper's for the process")
    guidance: tuple[GuidanceSpec, ...] = Field(default=(GuidanceSpec(s=1),), min_length=1)

    @model_validator(mode="after")
    def _sampler_of_the_process(self) -> Self:
        if self.sampler is not None and self.sampler.process != self.process:
            raise ValueError(f"sampler {self.sampler.name} is for process '{self.sampler.process}', not {self.process}")
        return self

    @model_validator(mode="after")
    def _whole_intervals(self) -> Self:
        for name, whole, part in (
            ("batch_size", self.batch_size, self.accumulate),
            ("log_images", self.log_images, self.batch_size),
            ("checkpoint_images", self.checkpoint_images, self.log_images),
        ):
            if whole % part:
                raise ValueError(f"{name} {whole} is not a multiple of {part}")
        return self

    @property
    def chosen_sampler(self) -> SamplerSpec:
        """The sampler, or the paper's."""
        return self.sampler or paper_sampler(self.process)


class LatentSource(NamedTuple):
    """Where latents come from: an autoencoder and whose weights it has, written ``autoencoder@weights``."""

    autoencoder: str
    weights: WeightsSource

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take ``autoencoder@weights`` apart. Raises :class:`ConfigError`."""
        name, at, weights = text.partition("@")
        if not at or weights not in get_args(WeightsSource):
            raise ConfigError(
                f"latent '{text}': write it as autoencoder@retrained, autoencoder@released or autoencoder@own"
            )
        return cls(name, weights)


class TrainedRow(Model):
    """One denoiser that the profile trains on one latent space."""

    denoiser: Name = Field(description="size, of the profile's 'denoisers' or of the catalogue")
    latent: Source = Field(description="autoencoder@retrained or @own, of the profile, or @released, of the catalogue")
    patch: PositiveInt = Field(default=1, description="latent cells per side of a token")
    data: Name
    training: Name
    images: PositiveInt = Field(description="images seen in training")
    guidance: tuple[GuidanceSpec, ...] | None = Field(
        default=None, min_length=1, description="null: the training's; a set of samples is drawn with each"
    )

    @property
    def source(self) -> LatentSource:
        """The autoencoder, taken apart."""
        return LatentSource.parse(self.latent)


class ReleasedRow(Model):
    """One denoiser whose weights were released: they state all but the images that its samples are compared with."""

    released: Name = Field(description="name in the catalogue of denoisers (`dcae-bench weights list`)")
    data: Name = Field(description="of the resolution and the classes that the denoiser was trained on")
    guidance: tuple[GuidanceSpec, ...] | None = Field(
        default=None, min_length=1, description="null: none, and then the authors'; a set of samples is drawn with each"
    )

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, row: Any) -> Any:
        of_trained = [key for key in TrainedRow.model_fields if key not in cls.model_fields]
        if isinstance(row, dict) and (both := [f"'{key}'" for key in of_trained if key in row]):
            raise ValueError(
                f"has 'released', whose weights state {', '.join(both)} themselves; leave that out, or leave out "
                "'released' to train a denoiser"
            )
        return row

    @field_validator("released")
    @classmethod
    def _in_the_catalogue(cls, name: str) -> str:
        try:
            denoiser_catalogue().preset(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name

    @property
    def preset(self) -> DenoiserPreset:
        """What the catalogue says of the denoiser."""
        return denoiser_catalogue().preset(self.released)

    @property
    def denoiser(self) -> str:
        """Size in the catalogue."""
        return self.preset.architecture

    @property
    def latent(self) -> str:
        """The autoencoder behind its latents, ``autoencoder@released``."""
        return f"{self.preset.autoencoder}@released"

    @property
    def source(self) -> LatentSource:
        """The autoencoder, taken apart."""
        return LatentSource(self.preset.autoencoder, "released")

    @property
    def patch(self) -> int:
        """Latent cells per side of a token."""
        return self.preset.patch


# Names that no row can have: pydantic puts them behind the row's in the path of an error.
TRAINED_KIND, RELEASED_KIND = "(trained row)", "(released row)"
ROW_KINDS = (TRAINED_KIND, RELEASED_KIND)


def _kind(row: Any) -> str:
    released = "released" in row if isinstance(row, dict) else isinstance(row, ReleasedRow)
    return RELEASED_KIND if released else TRAINED_KIND


DiffusionRow = Annotated[
    Annotated[TrainedRow, Tag(TRAINED_KIND)] | Annotated[ReleasedRow, Tag(RELEASED_KIND)], Discriminator(_kind)
]
"""A row with the key 'released' takes a denoiser of the catalogue; any other is trained."""


class DiffusionSpec(Model):
    """Denoisers of a profile."""

    denoisers: dict[Name, Architecture] = Field(default={}, description="sizes beside the catalogue's")
    data: dict[Name, LatentDataSpec] = Field(min_length=1)
    trainings: dict[Name, DenoiserTrainingSpec] = Field(default={}, description="none where every row is released")
    rows: dict[Name, DiffusionRow] = Field(min_length=1)
    samples: PositiveInt = Field(description="images drawn of each row and guidance; the paper's FID takes 50,000")
    sample_batch: PositiveInt
    encode_batch: PositiveInt = Field(default=64, description="images encoded at once; the authors' by default")
    seed_policy: Literal["sample", "paper_8gpu"] = Field(
        default="sample",
        description="sample: noise by sample index, classes in equal shares; paper_8gpu: the authors' streams and draw",
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, row in self.rows.items():
            _require_known(name, "data", row.data, self.data)
            guidance = row.guidance or ()
            if isinstance(row, TrainedRow):
                _require_known(name, "training", row.training, self.trainings)
                training = self.trainings[row.training]
                if row.images % training.log_images:
                    raise ValueError(
                        f"images {row.images} of row {name} is not a multiple of log_images {training.log_images}"
                    )
                guidance = guidance or training.guidance
                try:
                    self.architecture(row.denoiser)
                except ConfigError as error:
                    raise ValueError(f"row {name}: {error}") from error
            scaled = [g for g in guidance if not g.plain]
            if scaled and self.data[row.data].class_count is None:
                raise ValueError(
                    f"row {name} has guidance s = {scaled[0].scale:g}, but its data '{row.data}' have no labels, "
                    "so the model is unconditional; use s: 1"
                )
        return self

    def architecture(self, name: str) -> Architecture:
        """Size of a denoiser by name. Raises :class:`ConfigError` with close names."""
        return self.denoisers[name] if name in self.denoisers else denoiser_catalogue().architecture(name)


def _require_known(row: str, kind: str, wanted: str, known: Collection[str]) -> None:
    if wanted not in known:
        raise ValueError(f"row {row} has {kind} '{wanted}'; there are {', '.join(known) or 'none'}")
