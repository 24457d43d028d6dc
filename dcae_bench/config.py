"""Profiles: one experiment plan each, read from ``config/<profile>.yaml`` and checked field by field."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic import ValidationError as PydanticError

from dcae_bench.errors import ConfigError
from dcae_bench.execution import ExecutionSpec
from dcae_bench.files import REPOSITORY
from dcae_bench.presets import resolve
from dcae_bench.specs import AutoencoderSpec
from dcae_bench.yaml_input import Loader, explain

CONFIG_DIR = REPOSITORY / "config"
DEFAULT_PROFILE = "demo"
PHASES = (1, 2, 3)

# AlexNet and VGG16 leave nothing of a smaller image.
LPIPS_MIN_RESOLUTION = 32

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Beta = Annotated[float, Field(ge=0, lt=1)]
LayerSet = Literal["all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerSpec(_Model):
    """AdamW. The paper's values are in its appendix; see config/README.md."""

    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    warmup_images: int = Field(default=0, ge=0, description="linear warm-up; the rate is constant afterwards")
    decay_all: bool = Field(default=False, description="apply weight decay to norms and biases too")
    clip_norm: PositiveFloat | None = Field(default=None, description="gradient norm limit; none in the authors' shell")


class DiscriminatorSpec(_Model):
    """PatchGAN discriminator (pix2pix, as in LDM): 4x4 convolutions, BatchNorm, LeakyReLU."""

    channels: PositiveInt = 64
    layers: PositiveInt = 3

    @property
    def min_resolution(self) -> int:
        """Smallest side in pixels that leaves one patch: ``layers`` halvings, then two convolutions that take one."""
        return 3 * 2**self.layers


class GANSpec(_Model):
    """Hinge GAN of phase 3; both nets step on every batch."""

    weight: PositiveFloat
    adaptive: bool = Field(default=False, description="scale by LDM's ratio of gradient norms at the last layer")
    discriminator: DiscriminatorSpec = DiscriminatorSpec()
    optimizer: OptimizerSpec


class PhaseSpec(_Model):
    """One phase of Decoupled High-Resolution Adaptation (paper, section 3.3). Progress is counted in images."""

    resolution: PositiveInt
    images: PositiveInt
    batch_size: PositiveInt
    datasets: tuple[Name, ...] = Field(default=(), description="training sets of this phase; by default the plan's")
    accumulate: PositiveInt = Field(default=1, description="parts of a batch that are computed one after another")
    trainable: tuple[LayerSet, ...] = Field(min_length=1)
    optimizer: OptimizerSpec
    gan: GANSpec | None = None
    # Left out of the recipe at their defaults, which they had before they were fields.
    crop: Literal["window", "center", "random"] = Field(
        default="window",
        exclude_if=lambda crop: crop == "window",
        description="window: any square, reduced; center: the evaluation's ADM crop; random: a square as it is",
    )
    min_side: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda side: side is None,
        description="leave out photographs whose shorter side is below this (px)",
    )

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        if self.images % self.batch_size:
            raise ValueError(f"images {self.images} is not a multiple of batch_size {self.batch_size}")
        return self


class ReconstructionLossSpec(_Model):
    """Weights of the reconstruction loss: mean absolute error and LPIPS, both averaged over the batch."""

    l1: NonNegativeFloat = 1.0
    lpips: NonNegativeFloat
    lpips_net: Literal["alex", "vgg"]

    @property
    def min_resolution(self) -> int:
        """Smallest side in pixels that LPIPS' network takes, 1 without LPIPS."""
        return LPIPS_MIN_RESOLUTION if self.lpips else 1


class EMASpec(_Model):
    """Average of the weights that is evaluated and handed on: decay * (1 - exp(-step / warmup_steps))."""

    decay: float = Field(ge=0, lt=1)
    warmup_steps: PositiveInt = 2000


class TrainingSpec(_Model):
    """The three phases and what they share."""

    datasets: tuple[Name, ...] = Field(min_length=1)
    loss: ReconstructionLossSpec
    ema: EMASpec
    execution: ExecutionSpec = ExecutionSpec()
    checkpoint_images: PositiveInt = Field(description="images between two checkpoints")
    log_images: PositiveInt = Field(description="images between two lines of the log")
    phases: dict[Literal[1, 2, 3], PhaseSpec]

    @model_validator(mode="after")
    def _from_the_first(self) -> Self:
        if sorted(self.phases) != list(PHASES[: len(self.phases)]) or not self.phases:
            raise ValueError(f"phases are {sorted(self.phases)}; they must be 1, 1-2 or 1-3")
        return self

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        for number, phase in self.phases.items():
            needed = {"LPIPS": self.loss.min_resolution}
            if phase.gan is not None:
                needed["its discriminator"] = phase.gan.discriminator.min_resolution
            for part, smallest in needed.items():
                if phase.resolution < smallest:
                    raise ValueError(
                        f"resolution {phase.resolution} of phase {number} is below {smallest}, which {part} needs"
                    )
        return self

    @model_validator(mode="after")
    def _whole_intervals(self) -> Self:
        if self.checkpoint_images % self.log_images:
            raise ValueError(
                f"checkpoint_images {self.checkpoint_images} is not a multiple of log_images {self.log_images}"
            )
        for number, phase in self.phases.items():
            for name, whole, part in (
                ("images", phase.images, self.log_images),
                ("log_images", self.log_images, phase.batch_size),
            ):
                if whole % part:
                    raise ValueError(f"{name} {whole} is not a multiple of {part}, as phase {number} needs")
        return self


class PresetName(_Model):
    """In place of a model spec: a name of baselines/autoencoders.yaml, replaced by its full spec when loaded."""

    preset: str


ModelSpec = Annotated[AutoencoderSpec, BeforeValidator(resolve, json_schema_input_type=AutoencoderSpec | PresetName)]


class AutoencoderEntry(_Model):
    """An autoencoder of the profile: its model, and the learning rates that its own sweep chose."""

    model: ModelSpec
    lr: dict[Literal[1, 2, 3], PositiveFloat] = Field(
        default={}, description="learning rate by phase, if not the phase's"
    )


class EvaluationSet(_Model):
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


class EvaluationSpec(_Model):
    """What is measured, and how. Evaluating refuses a protocol that this version cannot measure yet."""

    protocol: Literal["reconstruction/photos-v1", "reconstruction/paper-v1"]
    sets: tuple[EvaluationSet, ...] = Field(min_length=1)
    crops_per_photo: PositiveInt
    batch_size: PositiveInt
    samples: PositiveInt = Field(description="reconstructions kept per set for the figure")


class Profile(_Model):
    """One experiment plan."""

    name: Name
    description: str
    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: PositiveInt = Field(description="CPU threads per job; part of the recipe, since sums depend on it")
    pack_short_side: PositiveInt = Field(description="photographs are packed at most this high or wide (shorter side)")
    data_roots: dict[Name, str] = Field(
        default={},
        description="folder of each data set got by hand, by default $DCAE_BENCH_DATA/<name>; a name of your own makes "
        "a data set of the images in its folder",
    )
    training: TrainingSpec
    evaluation: EvaluationSpec
    autoencoders: dict[Name, AutoencoderEntry] = Field(min_length=1)
    paper_rows_not_run: str = Field(description="why this profile does not run the paper's own rows")

    @model_validator(mode="after")
    def _one_loss_scale(self) -> Self:
        adversarial = [number for number, phase in self.training.phases.items() if phase.gan is not None]
        if self.precision == "fp16" and adversarial:
            # A gradient scaler serves one optimiser per step; two would unscale each other's gradients.
            raise ValueError(f"precision 'fp16' cannot train the GAN of phase {adversarial[0]}; use 'bf16' or 'fp32'")
        return self

    @model_validator(mode="after")
    def _resolutions_fit(self) -> Self:
        for name, entry in self.autoencoders.items():
            f = entry.model.compression
            wanted = {f"phase {n}": phase.resolution for n, phase in self.training.phases.items()}
            wanted |= {f"evaluation set {item.label}": item.resolution for item in self.evaluation.sets}
            for where, resolution in wanted.items():
                if resolution % f:
                    raise ValueError(f"resolution {resolution} of {where} is not a multiple of {f}, the f of {name}")
        return self

    def phase(self, autoencoder: str, number: int) -> PhaseSpec:
        """The plan of one phase for one autoencoder, with its own learning rate put in."""
        phase = self.training.phases[number]
        lr = self.autoencoders[autoencoder].lr.get(number)
        if lr is None:
            return phase
        return phase.model_copy(update={"optimizer": phase.optimizer.model_copy(update={"lr": lr})})

    def training_sets(self, number: int) -> tuple[str, ...]:
        """Data sets that one phase trains on."""
        return self.training.phases[number].datasets or self.training.datasets

    def datasets(self) -> tuple[str, ...]:
        """Every data set the profile needs, each once, in order."""
        trained = [name for number in sorted(self.training.phases) for name in self.training_sets(number)]
        return tuple(dict.fromkeys([*trained, *(item.dataset for item in self.evaluation.sets)]))

    def splits_of(self, dataset: str) -> tuple[Literal["train", "eval"], ...]:
        """Splits of a data set that the profile needs."""
        return tuple(split for split in ("train", "eval") if self.largest_use(dataset, split) is not None)

    def largest_use(self, dataset: str, split: str) -> int | None:
        """Largest resolution in px at which the profile shows a data set's split; None: it does not."""
        if split == "train":
            phases = self.training.phases
            used = [phase.resolution for number, phase in phases.items() if dataset in self.training_sets(number)]
        else:
            used = [item.resolution for item in self.evaluation.sets if (item.dataset, split) == (dataset, "eval")]
        return max(used, default=None)

    def _conditions(self) -> dict[str, Any]:
        """What every result of the profile depends on."""
        return self.model_dump(mode="json", include={"seed", "device", "precision", "threads", "pack_short_side"})

    def recipe(self, autoencoder: str, number: int) -> dict[str, Any]:
        """All that shapes the weights after a phase, except data and code: changes here make the phase stale."""
        return {
            **self._conditions(),
            "datasets": self.training_sets(number),
            "loss": self.training.loss.model_dump(mode="json"),
            "ema": self.training.ema.model_dump(mode="json"),
            "execution": self.training.execution.model_dump(mode="json"),
            "model": self.autoencoders[autoencoder].model.model_dump(mode="json"),
            "phase": number,
            "plan": self.phase(autoencoder, number).model_dump(mode="json"),
        }

    def evaluation_recipe(self) -> dict[str, Any]:
        """All that shapes an evaluation, except weights, data and code."""
        return {
            **self._conditions(),
            **self.evaluation.model_dump(mode="json"),
            "sets": [item.recipe() for item in self.evaluation.sets],
        }


def load_profile(which: str | Path) -> Profile:
    """Read a profile by name (``demo``) or by path (anything ending in ``.yaml``).

    Raises :class:`ConfigError` with one line that names the file, the field, the value and the remedy.
    """
    path = Path(which) if str(which).endswith((".yaml", ".yml")) else CONFIG_DIR / f"{which}.yaml"
    try:
        content = yaml.load(path.read_text(), Loader)
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
        raise ConfigError(
            f"profile '{which}': {path} cannot be read ({error.strerror}); known profiles: {known}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it") from error
    return parse_profile(content, str(path))


def parse_profile(content: Any, source: str) -> Profile:
    """Check a profile's content; ``source`` names it in errors. Raises :class:`ConfigError`."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is {type(content).__name__}, not a mapping of fields; see config/README.md")
    try:
        return Profile.model_validate(content)
    except PydanticError as error:
        raise ConfigError(f"{source}: {explain(error, Profile)}") from error
