"""Specs of denoisers: diffusion transformers as plain typed data, and the latent spaces they work on."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from dcae_bench.specs import AutoencoderSpec


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatentSpace(_Spec):
    """What a denoiser sees: latents (channels, side, side), cut in patches of patch x patch cells."""

    channels: PositiveInt = Field(description="c of the autoencoder")
    side: PositiveInt = Field(description="latent cells per side: image side / f")
    patch: PositiveInt = Field(default=1, description="cells per side of a token; 1 for DC-AE (paper, section 3.2)")

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.side % self.patch:
            raise ValueError(f"a latent of {self.side} cells per side cannot be cut in patches of {self.patch}")
        return self

    @classmethod
    def of(cls, autoencoder: AutoencoderSpec, resolution: int, patch: int = 1) -> Self:
        """The space of an autoencoder's latents of images of ``resolution`` px. Raises ValueError where none fits."""
        side, rest = divmod(resolution, autoencoder.compression)
        if rest:
            raise ValueError(f"resolution {resolution} is not a multiple of {autoencoder.compression}, f of its latent")
        return cls(channels=autoencoder.latent_channels, side=side, patch=patch)

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.side // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of one latent."""
        return self.grid**2

    @property
    def patch_numbers(self) -> int:
        """Numbers in one token's patch."""
        return self.patch**2 * self.channels


class Architecture(_Spec):
    """A denoiser's size, apart from the latent space it is used on."""

    family: Literal["uvit", "dit"]
    width: PositiveInt = Field(description="numbers per token")
    depth: PositiveInt = Field(description="blocks; a UViT has one more in the middle")
    heads: PositiveInt

    def on(self, latent: LatentSpace, classes: int | None) -> "DenoiserSpec":
        """Return the spec of this size on a latent space; ``classes`` None is unconditional."""
        size = {"width": self.width, "depth": self.depth, "heads": self.heads}
        if self.family == "uvit":
            return UViTSpec(family="uvit", latent=latent, classes=classes, **size)
        return DiTSpec(family="dit", latent=latent, classes=classes, **size)


class _Transformer(_Spec):
    latent: LatentSpace
    width: PositiveInt = Field(description="numbers per token")
    depth: PositiveInt
    heads: PositiveInt
    classes: PositiveInt | None = Field(
        description="without the null class, which stands behind the last; null: unconditional"
    )

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4, as embeddings of sines and cosines need")
        return self

    @property
    def null_class(self) -> int | None:
        """The label that stands for no class, as training's label dropout and guidance use it."""
        return self.classes


class UViTSpec(_Transformer):
    """U-ViT: all inputs are tokens, with long skip connections between the blocks (Bao et al., 2023)."""

    family: Literal["uvit"]

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.depth % 2:
            raise ValueError(f"depth {self.depth} is odd; every block before the middle is paired with one behind it")
        return self

    @property
    def sequence(self) -> int:
        """Tokens that the blocks work on: label (if any), time and patches."""
        return self.latent.tokens + 1 + (self.classes is not None)

    @property
    def out_channels(self) -> int:
        """Channels of the prediction."""
        return self.latent.channels


class DiTSpec(_Transformer):
    """DiT with adaLN-Zero: time and label modulate every block (Peebles and Xie, 2023)."""

    family: Literal["dit"]
    learn_sigma: bool = Field(default=True, description="predict the variance of the reverse step too")

    @property
    def sequence(self) -> int:
        """Tokens that the blocks work on: the patches."""
        return self.latent.tokens

    @property
    def out_channels(self) -> int:
        """Channels of the prediction: the noise, then the variance if it is learned."""
        return self.latent.channels * (2 if self.learn_sigma else 1)


DenoiserSpec = Annotated[UViTSpec | DiTSpec, Field(discriminator="family")]
