"""Specs of denoisers (diffusion transformers), and of the latent spaces they work on."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dcae_bench.base.typed import Strict
from dcae_bench.specs.autoencoders import AutoencoderSpec, has_grid
from dcae_bench.specs.diffusion import ProcessName


class LatentSpace(Strict):
    """The shape of a denoiser's input: latents (channels, side, side), cut into patches of patch x patch cells."""

    channels: PositiveInt = Field(description="c: channels of the autoencoder's latent")
    side: PositiveInt = Field(description="latent cells per side: image side / f")
    patch: PositiveInt = Field(default=1, description="cells per side of a token; 1 for DC-AE (paper, section 3.2)")

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.side % self.patch:
            raise ValueError(f"a latent of {self.side} cells per side cannot be cut in patches of {self.patch}")
        return self

    @classmethod
    def of(cls, autoencoder: AutoencoderSpec, resolution: int, patch: int = 1) -> Self:
        """Latent space of square images of ``resolution`` px.

        Raises ValueError when the resolution is no multiple of f, or the latent's side no multiple of the patch, and
        for a latent without a grid.
        """
        if not has_grid(autoencoder):
            raise ValueError("its latent is a sequence of tokens without a grid, which denoisers and patches need")
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
        """Numbers in the patch of one token."""
        return self.patch**2 * self.channels


class Architecture(Strict):
    """Size of a denoiser, which fits any latent space."""

    family: Literal["uvit", "dit"]
    width: PositiveInt = Field(description="numbers per token")
    depth: PositiveInt = Field(description="blocks; a UViT has one more in the middle")
    heads: PositiveInt

    def on(self, latent: LatentSpace, classes: int | None, process: ProcessName | None = None) -> "DenoiserSpec":
        """Spec of a denoiser of this size on a latent space, for a diffusion process.

        ``classes`` None makes the denoiser unconditional; ``process`` None is the family's own: vp for a UViT,
        learned-range for a DiT. Raises ValueError for a UViT on learned-range, because it predicts no variance.
        """
        size = {"width": self.width, "depth": self.depth, "heads": self.heads}
        learned = process == "learned-range" if process else self.family == "dit"
        if self.family == "dit":
            return DiTSpec(family="dit", latent=latent, classes=classes, learn_sigma=learned, **size)
        if learned:
            raise ValueError(f"process '{process}' needs a predicted variance, and a uvit has none; use 'vp' or 'flow'")
        return UViTSpec(family="uvit", latent=latent, classes=classes, **size)


class _Transformer(Strict):
    latent: LatentSpace
    width: PositiveInt = Field(description="numbers per token")
    depth: PositiveInt
    heads: PositiveInt
    classes: PositiveInt | None = Field(
        description="number of classes, without the null class, which follows the last one; null: unconditional"
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
        """Label that means "no class", for label dropout and guidance; None for an unconditional denoiser."""
        return self.classes


class UViTSpec(_Transformer):
    """U-ViT: every input is a token, and long skip connections join early to late blocks (Bao et al., 2023)."""

    family: Literal["uvit"]

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.depth % 2:
            raise ValueError(f"depth {self.depth} is odd; every block before the middle is paired with one behind it")
        return self

    @property
    def sequence(self) -> int:
        """Tokens in the blocks: one for the label (if the denoiser has classes), one for the time, one per patch."""
        return self.latent.tokens + 1 + (self.classes is not None)

    @property
    def out_channels(self) -> int:
        """Channels of the prediction, as many as the latent has."""
        return self.latent.channels


class DiTSpec(_Transformer):
    """DiT with adaLN-Zero: the time and the label modulate every block (Peebles and Xie, 2023)."""

    family: Literal["dit"]
    learn_sigma: bool = Field(default=True, description="also predict the variance of the reverse step")

    @property
    def sequence(self) -> int:
        """Tokens in the blocks: one per patch."""
        return self.latent.tokens

    @property
    def out_channels(self) -> int:
        """Channels of the prediction: those of the noise, then as many for the variance if it is learned."""
        return self.latent.channels * (2 if self.learn_sigma else 1)


DenoiserSpec = Annotated[UViTSpec | DiTSpec, Field(discriminator="family")]
