"""Specs of autoencoders: typed data that hold every architectural choice, so that two sizes differ only in numbers."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from dcae_bench.base.typed import Strict
from dcae_bench.specs.diffusers_classes import CLASSES, refusal

Block = Literal["res", "evit_glu", "evits5_glu"]
Norm = Literal["trms2d", "bn2d"]
Activation = Literal["relu", "silu"]

ATTENTION_HEAD_DIM = 32
FAMILIES = ("dc-ae", "sd-vae", "diffusers", "custom", "space-to-channel", "pca")


class CoderSpec(Strict):
    """Encoder or decoder of a DC-AE. Lists have one entry per stage; stage s works at 1/2^s of the image's side.

    Depth 0 at stage 0 leaves that stage out. The encoder's stem (or the decoder's head) then changes the side by 2.
    """

    widths: tuple[PositiveInt, ...] = Field(description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    blocks: tuple[Block, ...] = Field(description="kind of block per stage")
    norms: tuple[Norm, ...] | Norm = "trms2d"
    activations: tuple[Activation, ...] | Activation = "silu"
    resample: Literal["pixel", "conv"] = Field(
        default="pixel",
        description="pixel: 3x3 conv with pixel (un)shuffle; conv: strided conv down, nearest and conv up (SANA)",
    )

    @model_validator(mode="after")
    def _same_stages(self) -> Self:
        stages = len(self.widths)
        for name in ("depths", "blocks", "norms", "activations"):
            value = getattr(self, name)
            if not isinstance(value, str) and len(value) != stages:
                raise ValueError(f"'{name}' has {len(value)} entries but 'widths' has {stages}")
        if stages < 2:
            raise ValueError(f"'widths' has {stages} entries; at least 2 stages are needed")
        if min(self.depths[1:]) < 1 or self.depths[0] < 0:
            raise ValueError(f"'depths' is {list(self.depths)}; only stage 0 may be left out (depth 0)")
        if self.depths[0] == 0 and self.widths[1] % 4:
            raise ValueError(f"'widths'[1] is {self.widths[1]}; a stem that leaves stage 0 out needs a multiple of 4")
        for width, block in zip(self.widths, self.blocks, strict=True):
            if block != "res" and width % ATTENTION_HEAD_DIM:
                raise ValueError(f"width {width} of an {block} stage is not a multiple of {ATTENTION_HEAD_DIM}")
        return self

    def norm(self, stage: int) -> Norm:
        """Normalisation in the blocks of a stage."""
        return self.norms if isinstance(self.norms, str) else self.norms[stage]

    def activation(self, stage: int) -> Activation:
        """Activation in the residual blocks of a stage."""
        return self.activations if isinstance(self.activations, str) else self.activations[stage]


class DCAESpec(Strict):
    """A Deep Compression Autoencoder (paper, section 3.2; details as in the released code)."""

    family: Literal["dc-ae"]
    latent_channels: PositiveInt
    encoder: CoderSpec
    decoder: CoderSpec
    shortcuts: bool = Field(
        default=True,
        description="use the non-parametric shortcuts; false is the paper's ablation without residual autoencoding",
    )
    # Recipes leave the field out at its default, so hashes from before it stay valid.
    head_activation: Activation = Field(
        default="relu",
        exclude_if=lambda activation: activation == "relu",
        description="activation before the last convolution; DC-AE-Lite has silu",
    )

    @model_validator(mode="after")
    def _latent_fits(self) -> Self:
        if len(self.encoder.widths) != len(self.decoder.widths):
            raise ValueError("encoder and decoder have different numbers of stages")
        for name, coder in (("encoder", self.encoder), ("decoder", self.decoder)):
            if coder.widths[-1] % self.latent_channels:
                raise ValueError(
                    f"{name} width {coder.widths[-1]} of the last stage is not a multiple of latent_channels "
                    f"{self.latent_channels}, so its channels cannot be averaged in equal groups"
                )
        return self

    @model_validator(mode="after")
    def _resampling_fits(self) -> Self:
        for name, coder in (("encoder", self.encoder), ("decoder", self.decoder)):
            first = 1 if coder.depths[0] == 0 else 0
            for fine, coarse in pairwise(coder.widths[first:]):
                if self.shortcuts and 4 * fine % coarse:
                    raise ValueError(
                        f"{name} widths {fine} and {coarse} of neighbouring stages have no shortcut: four times the "
                        "first must be a multiple of the second"
                    )
                if name == "encoder" and coder.resample == "pixel" and coarse % 4:
                    raise ValueError(f"encoder width {coarse} is not a multiple of 4, as downsampling by pixels needs")
        return self

    @property
    def compression(self) -> int:
        """f: image pixels per latent cell and side."""
        return 2 ** (len(self.encoder.widths) - 1)


class SDVAESpec(Strict):
    """The SD-VAE family: LDM's autoencoders, and its kl-f8 network with further stages on top (paper, section 3.1)."""

    family: Literal["sd-vae"]
    latent_channels: PositiveInt
    widths: tuple[PositiveInt, ...] = Field(description="channels per level; the first four levels are the f8 network")
    layers_per_block: PositiveInt = 2
    norm_groups: PositiveInt = 32
    attention_levels: tuple[NonNegativeInt, ...] = Field(
        default=(), description="levels with attention after each residual block (LDM's kl-f16 and kl-f32)"
    )
    quant_convs: bool = Field(default=True, description="1x1 convolutions around the latent; Flux-VAE has none")

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        for level in self.attention_levels:
            if level >= len(self.widths):
                raise ValueError(f"attention_levels has {level}, but the levels are 0 to {len(self.widths) - 1}")
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"width {width} is not a multiple of norm_groups {self.norm_groups}")
        return self

    @property
    def compression(self) -> int:
        """f: image pixels per latent cell and side."""
        return 2 ** (len(self.widths) - 1)


def _known_class(name: str) -> str:
    if name not in CLASSES:
        raise ValueError(f"{refusal(name)}; take another autoencoder")
    return name


class DiffusersSpec(Strict):
    """An autoencoder class of diffusers, with config and weights from a hub repository or a local folder."""

    family: Literal["diffusers"]
    source: str = Field(min_length=1, description="hub id (owner/name) or folder with config.json and weights")
    class_name: Annotated[str, AfterValidator(_known_class)] = Field(
        json_schema_extra=lambda schema: schema.update(enum=[*sorted(CLASSES)]), description="its class in diffusers"
    )
    subfolder: str = Field(default="", description="folder inside the source, e.g. vae")
    revision: str | None = Field(default=None, description="commit of the hub repository; null: the newest")
    config: dict[str, Any] | None = Field(
        default=None, description="constructor arguments; null: those in config.json of the source"
    )
    compression: PositiveInt = Field(description="f: image pixels per latent cell and side")
    latent_channels: PositiveInt = Field(description="c")


class CustomSpec(Strict):
    """The user's own class with methods ``encode`` and ``decode`` (docs/bring-your-own.md)."""

    family: Literal["custom"]
    class_name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:Class")
    kwargs: dict[str, Any] = Field(default={}, description="constructor arguments")
    compression: PositiveInt = Field(
        description="f: image pixels per latent cell and side; without a grid, what sides must be multiples of"
    )
    latent_channels: PositiveInt = Field(description="c")
    # Recipes leave the field out at its default, so hashes from before it stay valid.
    grid: bool = Field(
        default=True,
        exclude_if=lambda grid: grid,
        description="false: the latent is a sequence of tokens (n, N, c), of which reconstructions alone are measured",
    )


class SpaceToChannelSpec(Strict):
    """A control without training: the latent of a base autoencoder, folded from space into channels."""

    family: Literal["space-to-channel"]
    base: Annotated[DCAESpec | SDVAESpec | DiffusersSpec | CustomSpec, Field(discriminator="family")]
    factor: int = Field(ge=2, description="factor x factor cells of the base's latent become one cell")

    @model_validator(mode="after")
    def _base_has_a_grid(self) -> Self:
        if not has_grid(self.base):
            raise ValueError("the latent of 'base' is a sequence of tokens without a grid, which cannot be folded")
        return self

    @property
    def compression(self) -> int:
        """f: image pixels per latent cell and side."""
        return self.base.compression * self.factor

    @property
    def latent_channels(self) -> int:
        """c: the base's channels times factor squared, so that the folded latent keeps every number."""
        return self.base.latent_channels * self.factor**2


class PCASpec(Strict):
    """A control without gradients: the principal components of f x f px patches, one channel for each component.

    It is the best linear autoencoder, by squared error, that treats every cell of its latent alone.
    """

    family: Literal["pca"]
    compression: PositiveInt = Field(description="f: side of a patch in pixels, which becomes one latent cell")
    latent_channels: PositiveInt = Field(description="c: number of components")
    images: PositiveInt = Field(
        default=8000, description="crops that the components are fitted to: the first crops of phase 1"
    )

    @model_validator(mode="after")
    def _components_exist(self) -> Self:
        if self.latent_channels > (numbers := 3 * self.compression**2):
            raise ValueError(
                f"latent_channels {self.latent_channels}: a patch of {self.compression} px has only {numbers} numbers "
                "and so at most as many components"
            )
        return self


AutoencoderSpec = Annotated[
    DCAESpec | SDVAESpec | DiffusersSpec | CustomSpec | SpaceToChannelSpec | PCASpec, Field(discriminator="family")
]


def has_grid(spec: AutoencoderSpec) -> bool:
    """Whether the latent has rows and columns; else it is a sequence of tokens."""
    return not isinstance(spec, CustomSpec) or spec.grid


def unfolded(spec: AutoencoderSpec | None) -> AutoencoderSpec | None:
    """The base of a space-to-channel spec, whose weights a file holds; any other spec unchanged."""
    return spec.base if isinstance(spec, SpaceToChannelSpec) else spec
