"""The diffusion part of a profile: trained and released denoisers, their latents, and how samples are drawn."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.typed import Name, Strict
from dcae_bench.catalogue.denoisers import DenoiserPreset, denoiser_catalogue
from dcae_bench.catalogue.entries import Scaling
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.profile.training import EMASpec, LayerPattern, OptimizerSpec
from dcae_bench.specs.denoisers import Architecture
from dcae_bench.specs.diffusion import GuidanceSpec, ProcessName, SamplerSpec, paper_sampler
from dcae_bench.specs.protocols import WEIGHTS_SOURCES, WeightsSource

Probability = Annotated[float, Field(ge=0, lt=1)]
Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*@(retrained|released|own)$")]


class LatentDataSpec(Strict):
    """All images of a split, cropped. Their latents are cached, and samples are compared with these images."""

    datasets: tuple[Name, ...] = Field(min_length=1)
    split: Literal["train", "eval"] = Field(default="train", description="MJHQ has only 'eval'")
    resolution: PositiveInt
    labels: Literal["folder", "dataset"] | None = Field(
        default=None,
        description="class of an image; folder: the manifest's label, numbered in sorted order; dataset: position in "
        "'datasets'; null: no classes",
    )
    classes: PositiveInt | None = Field(
        default=None, description="number of classes; required for labels 'folder' alone"
    )
    crops_per_photo: PositiveInt = Field(
        default=1,
        description="crops of each packed photograph; files that are not packed have one, the ADM centre crop",
    )
    upscale: bool = Field(default=False, description="enlarge images smaller than the resolution, as the authors do")
    flips: bool = Field(default=False, description="also cache the mirrored image; the authors do not")
    dtype: Literal["float16", "float32"] = Field(default="float32", description="type of the latents on disk")
    posterior: Literal["sample", "mean"] = Field(
        default="sample",
        description="latent of a KL autoencoder, released or own: a sample, as the authors cache, or the mean",
    )
    # The recipe leaves the field out at its default, so hashes from before it stay valid.
    shift: bool = Field(
        default=True,
        exclude_if=lambda shift: shift,
        description="subtract the shift that is declared with a scaling factor (Flux-VAE's); false: scale alone, as "
        "the commands of DC-AE's authors do",
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

    def scaling(self, declared: Scaling | None) -> Scaling | None:
        """The scaling of these latents, of that which is declared for their autoencoder."""
        if declared is None or self.shift:
            return declared
        return declared.model_copy(update={"shift": 0.0, "mean": None})

    @property
    def class_count(self) -> int | None:
        """Number of classes of a denoiser on these latents; None for an unconditional denoiser."""
        return len(self.datasets) if self.labels == "dataset" else self.classes


class DenoiserTrainingSpec(Strict):
    """Training of a denoiser. Progress is counted in images; each latent counts as one image."""

    process: ProcessName
    batch_size: PositiveInt
    accumulate: PositiveInt = Field(default=1, description="parts of a batch, computed one after another")
    optimizer: OptimizerSpec
    ema: EMASpec
    label_dropout: Probability = Field(default=0.1, description="share of labels that are replaced by the null class")
    # The recipe leaves the field out at its default, so hashes from before it stay valid.
    freeze: tuple[LayerPattern, ...] = Field(
        default=(),
        exclude_if=lambda patterns: not patterns,
        description="layers that keep their weights: names with wildcards, such as blocks.0.* or *.norm",
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(default=None, description="null: the profile's")
    execution: ExecutionSpec = ExecutionSpec()
    checkpoint_images: PositiveInt = Field(
        description="images between two checkpoints; each checkpoint draws preview samples"
    )
    log_images: PositiveInt = Field(description="images between two lines of the log")
    previews: int = Field(default=8, ge=0, description="latents sampled at each checkpoint, from a fixed seed")
    sampler: SamplerSpec | None = Field(default=None, description="null: the paper's sampler of the process")
    guidance: tuple[GuidanceSpec, ...] = Field(default=(GuidanceSpec(s=1),), min_length=1)

    @model_validator(mode="after")
    def _no_decoder(self) -> Self:
        if self.optimizer.decay_head_norm:
            raise ValueError("optimizer has decay_head_norm, which is for the phases of an autoencoder; leave it out")
        return self

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
        """Sampler of the profile, or else the paper's sampler of the process."""
        return self.sampler or paper_sampler(self.process)


class LatentSource(NamedTuple):
    """Source of latents: an autoencoder and the origin of its weights, written ``autoencoder@weights``."""

    autoencoder: str
    weights: WeightsSource

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split ``autoencoder@weights`` into its parts. Raises :class:`ConfigError`."""
        name, _, weights = text.partition("@")
        source = next((known for known in WEIGHTS_SOURCES if known == weights), None)
        if source is None:
            raise ConfigError(
                f"latent '{text}': write it as autoencoder@retrained, autoencoder@released or autoencoder@own"
            )
        return cls(name, source)


class TrainedRowSpec(Strict):
    """One denoiser that the profile trains on one latent space."""

    denoiser: Name = Field(description="name of the size, in the profile's 'denoisers' or in the catalogue")
    latent: Source = Field(
        description="autoencoder@retrained or @own of the profile, or autoencoder@released of the catalogue"
    )
    patch: PositiveInt = Field(default=1, description="latent cells per side of a token")
    data: Name = Field(description="name in the profile's 'data'")
    training: Name = Field(description="name in the profile's 'trainings'")
    images: PositiveInt = Field(description="images seen in training")
    initial: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="weights that the training starts from: a released name of the catalogue of denoisers, a file, a "
        "folder, or a hub id; null: random weights",
    )
    guidance: tuple[GuidanceSpec, ...] | None = Field(
        default=None, min_length=1, description="scales, each with its own set of samples; null: those of the training"
    )

    @property
    def source(self) -> LatentSource:
        """Source of the latents."""
        return LatentSource.parse(self.latent)


class ReleasedRowSpec(Strict):
    """One released denoiser. Its weights fix everything except the images that its samples are compared with."""

    released: Name = Field(description="name in the catalogue of denoisers (`dcae-bench weights list`)")
    data: Name = Field(
        description="name in the profile's 'data'; resolution and class count are those of the denoiser's training"
    )
    guidance: tuple[GuidanceSpec, ...] | None = Field(
        default=None,
        min_length=1,
        description="scales, each with its own set of samples; null: no guidance, and the authors' guidance",
    )

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, row: Any) -> Any:
        trained_only = [key for key in TrainedRowSpec.model_fields if key not in cls.model_fields]
        if isinstance(row, dict) and (both := [f"'{key}'" for key in trained_only if key in row]):
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
        """The denoiser's entry in the catalogue."""
        return denoiser_catalogue().preset(self.released)

    @property
    def denoiser(self) -> str:
        """Name of the denoiser's size in the catalogue."""
        return self.preset.architecture

    @property
    def latent(self) -> str:
        """The autoencoder behind the latents, as ``autoencoder@released``."""
        return f"{self.preset.autoencoder}@released"

    @property
    def source(self) -> LatentSource:
        """Source of the latents."""
        return LatentSource(self.preset.autoencoder, "released")

    @property
    def patch(self) -> int:
        """Latent cells per side of a token."""
        return self.preset.patch


# Pydantic adds the kind behind the row's name in the path of an error. No row can have one of these names.
TRAINED_KIND, RELEASED_KIND = "(trained row)", "(released row)"
ROW_KINDS = (TRAINED_KIND, RELEASED_KIND)


def _kind(row: Any) -> str:
    released = "released" in row if isinstance(row, dict) else isinstance(row, ReleasedRowSpec)
    return RELEASED_KIND if released else TRAINED_KIND


DiffusionRow = Annotated[
    Annotated[TrainedRowSpec, Tag(TRAINED_KIND)] | Annotated[ReleasedRowSpec, Tag(RELEASED_KIND)], Discriminator(_kind)
]
"""A row with the key 'released' uses a denoiser of the catalogue; any other row trains one."""


class DiffusionSpec(Strict):
    """Denoisers of a profile, their data, their trainings and their samples."""

    denoisers: dict[Name, Architecture] = Field(default={}, description="further sizes, beside the catalogue's")
    data: dict[Name, LatentDataSpec] = Field(min_length=1)
    trainings: dict[Name, DenoiserTrainingSpec] = Field(default={}, description="empty when every row is released")
    rows: dict[Name, DiffusionRow] = Field(min_length=1)
    samples: PositiveInt = Field(description="samples of each row and guidance scale; the paper's FID takes 50,000")
    sample_batch: PositiveInt
    encode_batch: PositiveInt = Field(
        default=64, description="images encoded at once; by default as many as the authors encode"
    )
    seed_policy: Literal["sample", "paper_8gpu"] = Field(
        default="sample",
        description="sample: noise keyed by sample index, classes in equal shares; paper_8gpu: noise and classes as on "
        "the authors' eight GPUs",
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, row in self.rows.items():
            _require_known(name, "data", row.data, self.data)
            guidance = row.guidance or ()
            if isinstance(row, TrainedRowSpec):
                _require_known(name, "training", row.training, self.trainings)
                training = self.trainings[row.training]
                if row.images % training.log_images:
                    raise ValueError(
                        f"images {row.images} of row {name} is not a multiple of log_images {training.log_images}"
                    )
                guidance = guidance or training.guidance
                scaled = [g for g in guidance if not g.plain]
                if scaled and training.label_dropout == 0 and self.data[row.data].class_count is not None:
                    raise ValueError(
                        f"row {name} has guidance s = {scaled[0].scale:g}, but with label_dropout 0 its training never "
                        "sees the null class that guidance needs; use s: 1, or a label_dropout above 0"
                    )
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
        """Size of a denoiser by name. Raises :class:`ConfigError` with similar names."""
        return self.denoisers[name] if name in self.denoisers else denoiser_catalogue().architecture(name)


def _require_known(row: str, kind: str, wanted: str, known: Collection[str]) -> None:
    if wanted not in known:
        raise ValueError(f"row {row} has {kind} '{wanted}'; there are {', '.join(known) or 'none'}")
