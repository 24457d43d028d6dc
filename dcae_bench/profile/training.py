"""The training part of a profile: three phases, with their losses and optimisers."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.typed import Beta, Name, Strict
from dcae_bench.profile.execution import ExecutionSpec
from dcae_bench.specs.protocols import LPIPS_MIN_RESOLUTION

PHASES = (1, 2, 3)

LayerSet = Literal["all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage"]
LayerPattern = Annotated[str, Field(min_length=1)]
"""Names of layers or weights with wildcards, such as ``encoder.*`` or ``*.norm``, or the name of a layer set."""


class OptimizerSpec(Strict):
    """Settings of AdamW. The paper's appendix states its values; see config/README.md."""

    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    warmup_images: int = Field(default=0, ge=0, description="images of linear warm-up of the learning rate")
    # The recipe leaves `schedule` out at its default, so hashes from before this field stay valid.
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        exclude_if=lambda schedule: schedule == "constant",
        description="learning rate after the warm-up; cosine: half a period, down to 0 at the last image",
    )
    # The recipe leaves `warmup_start` and `decay_head_norm` out at their defaults: hashes from before them stay valid.
    warmup_start: float = Field(
        default=0.0,
        ge=0,
        le=1,
        exclude_if=lambda start: start == 0,
        description="share of the learning rate from which the warm-up starts",
    )
    decay_head_norm: bool = Field(
        default=False,
        exclude_if=lambda decays: not decays,
        description="apply weight decay to the weight of the norm before the last convolution too",
    )
    decay_all: bool = Field(default=False, description="apply weight decay to norms and biases too")
    clip_norm: PositiveFloat | None = Field(
        default=None, description="limit of the gradient norm; null: no limit, as in the authors' code"
    )


class DiscriminatorSpec(Strict):
    """PatchGAN discriminator (pix2pix, as in LDM): 4x4 convolutions, BatchNorm, LeakyReLU."""

    channels: PositiveInt = 64
    layers: PositiveInt = 3

    @property
    def min_resolution(self) -> int:
        """Smallest side (px) that leaves one patch: ``layers`` halvings, then two convolutions that take 1 px each."""
        return 3 * 2**self.layers


class GANSpec(Strict):
    """Hinge GAN of phase 3. Autoencoder and discriminator both take a step on every batch."""

    weight: PositiveFloat
    adaptive: bool = Field(
        default=False, description="multiply the weight by LDM's ratio of gradient norms at the last layer"
    )
    discriminator: DiscriminatorSpec = DiscriminatorSpec()
    optimizer: OptimizerSpec
    # The recipe leaves the field out at its default, so hashes from before it stay valid.
    start_images: NonNegativeInt = Field(
        default=0,
        exclude_if=lambda images: images == 0,
        description="images of the phase before the discriminator starts: until then it neither learns nor counts in "
        "the loss; its warm-up and schedule count from there",
    )

    @model_validator(mode="after")
    def _no_decoder(self) -> Self:
        if self.optimizer.decay_head_norm:
            raise ValueError("optimizer has decay_head_norm, which is for the autoencoder's optimizer; leave it out")
        return self


class PhaseSpec(Strict):
    """One phase of Decoupled High-Resolution Adaptation (paper, section 3.3). Progress is counted in images."""

    resolution: PositiveInt
    images: PositiveInt
    batch_size: PositiveInt
    datasets: tuple[Name, ...] = Field(
        default=(), description="training sets of this phase; by default those of the whole training"
    )
    accumulate: PositiveInt = Field(default=1, description="parts of a batch, computed one after another")
    trainable: tuple[LayerSet, ...] = Field(min_length=1)
    optimizer: OptimizerSpec
    gan: GANSpec | None = None
    # The recipe leaves these fields out at their defaults, so hashes from before them stay valid.
    crop: Literal["window", "center", "random"] = Field(
        default="window",
        exclude_if=lambda crop: crop == "window",
        description="window: a square of any size, reduced to the resolution; center: the evaluation's ADM crop; "
        "random: a square of the resolution's size, not resized",
    )
    min_side: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda side: side is None,
        description="leave out photographs whose shorter side has fewer pixels",
    )
    flips: bool = Field(
        default=False,
        exclude_if=lambda flips: not flips,
        description="mirror every other crop, by a draw of its own; the authors' code flips none",
    )
    freeze: tuple[LayerPattern, ...] = Field(
        default=(),
        exclude_if=lambda patterns: not patterns,
        description="layers that keep their weights and BatchNorm statistics although 'trainable' holds them: names "
        "with wildcards, such as encoder.* or *.norm, or layer sets",
    )

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        if self.images % self.batch_size:
            raise ValueError(f"images {self.images} is not a multiple of batch_size {self.batch_size}")
        return self


class ReconstructionLossSpec(Strict):
    """Weights of the two reconstruction losses, mean absolute error and LPIPS. Both are averaged over the batch."""

    l1: NonNegativeFloat = 1.0
    lpips: NonNegativeFloat
    lpips_net: Literal["alex", "vgg"]
    lpips_every: PositiveInt = Field(
        default=1,
        exclude_if=lambda every: every == 1,
        description="n: only every n-th batch computes LPIPS, with n times its weight: the same mean gradient for less",
    )

    @property
    def min_resolution(self) -> int:
        """Smallest side in pixels that the network of LPIPS accepts; 1 without LPIPS."""
        return LPIPS_MIN_RESOLUTION if self.lpips else 1


class EMASpec(Strict):
    """Exponential moving average of the weights, which is evaluated and handed to the next phase.

    Its decay at a step is decay * (1 - exp(-step / warmup_steps)).
    """

    decay: float = Field(ge=0, lt=1)
    warmup_steps: PositiveInt = 2000


class TrainingSpec(Strict):
    """The three phases and their shared settings."""

    datasets: tuple[Name, ...] = Field(min_length=1)
    loss: ReconstructionLossSpec
    ema: EMASpec
    execution: ExecutionSpec = ExecutionSpec()
    checkpoint_images: PositiveInt = Field(description="images between two checkpoints")
    log_images: PositiveInt = Field(description="images between two lines of the log")
    phases: dict[Literal[1, 2, 3], PhaseSpec]

    def phase(self, number: int) -> PhaseSpec:
        """A phase by its number. Raises :class:`ConfigError` for a phase that the profile does not have."""
        for known, spec in self.phases.items():
            if known == number:
                return spec
        raise ConfigError(f"phase {number}: the profile has phases {list(self.phases)}; name one of them")

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
            start = phase.gan.start_images if phase.gan is not None else 0
            if start >= phase.images:
                raise ValueError(
                    f"start_images {start} of the gan of phase {number} leaves none of its {phase.images} images for "
                    "the discriminator; lower it, or remove 'gan'"
                )
            for name, whole, part in (
                ("images", phase.images, self.log_images),
                ("the gan's start_images", start, self.log_images),
                # Every line of the log has a value of LPIPS, and every line as many of them.
                ("log_images", self.log_images, phase.batch_size * self.loss.lpips_every),
            ):
                if whole % part:
                    raise ValueError(f"{name} {whole} is not a multiple of {part}, as phase {number} needs")
        return self
