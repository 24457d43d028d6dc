"""Subjects of records: the autoencoder that was measured, the denoiser on its latents, and how they were trained."""

from typing import Literal

from pydantic import Field

from dcae_bench.base.typed import Sha256, Strict
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.specs.variants import Variant


class TrainedPhase(Strict):
    """What one phase showed an autoencoder in training."""

    phase: int
    datasets: tuple[str, ...] = Field(description="names of the data sets")
    images: int = Field(description="images seen")
    initial: str | None = Field(
        default=None,
        exclude_if=lambda initial: initial is None,  # so that older weights and records stay as they were written
        description="weights that the phase started from, as the profile names them; null: random ones, or those of "
        "the phase before",
    )
    initial_sha256: Sha256 | None = Field(
        default=None, exclude_if=lambda sha256: sha256 is None, description="hash of those weights"
    )
    frozen: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda frozen: not frozen,
        description="patterns of layers that stayed as they were, beside those that the phase does not train",
    )


class Subject(Strict):
    """The autoencoder that was measured."""

    autoencoder: str = Field(description="name in the profile, e.g. dc-ae-f64c128")
    family: str = Field(description="dc-ae, sd-vae, diffusers, custom, space-to-channel or pca")
    compression: int = Field(description="f: pixels per latent cell and side")
    latent_channels: int = Field(description="c: channels of the latent")
    # Records without the field are written without it, so that the digests of older records stay valid.
    tokens: int | None = Field(
        default=None,
        exclude_if=lambda tokens: tokens is None,
        description="tokens of a latent without a grid, of the record's images; null: a grid",
    )
    weights_source: WeightsSource = Field(
        description="retrained: by this harness; released: by the authors; own: brought by the user"
    )
    phase: int | None = Field(default=None, description="last training phase of retrained weights")
    parameters: int = Field(description="parameters of encoder and decoder")
    weights_sha256: str
    variant: Variant | None = Field(
        default=None,
        exclude_if=lambda variant: variant is None,  # so that tables hold older records as they were written
        description="which training of an ablation the weights are of; null: the profile's own training",
    )
    # Records without these fields are written without them, so that the digests of older records stay valid.
    gmacs: float | None = Field(
        default=None,
        exclude_if=lambda gmacs: gmacs is None,
        description="1e9 multiply-accumulates to encode and decode one image of the record's resolution; null: not "
        "counted",
    )
    trained_images: int | None = Field(
        default=None,
        exclude_if=lambda images: images is None,
        description="images seen in all phases of retrained weights; null: not known",
    )
    notes: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda notes: not notes,
        description="what a reader must know of a user's class, e.g. that its encode draws noise",
    )
    weights_commit: str | None = Field(
        default=None,
        description="commit of the hub that released weights are of; left out: other weights, or not known",
        exclude_if=lambda commit: commit is None,
    )
    files_sha256: Sha256 | None = Field(
        default=None,
        description="hash over the files that define the user's own autoencoder; left out: another one",
        exclude_if=lambda sha256: sha256 is None,
    )
    trained: tuple[TrainedPhase, ...] | None = Field(
        default=None,
        exclude_if=lambda trained: trained is None,
        description="phases that retrained weights went through, in order; null: not retrained, or not known",
    )

    @property
    def latent_space(self) -> str:
        """Ratio and channels, e.g. f32c32, or tokens and channels of a latent without a grid."""
        space = f"f{self.compression}" if self.tokens is None else f"{self.tokens} tokens "
        return f"{space}c{self.latent_channels}"

    def latent_shape(self, resolution: int) -> str:
        """Shape of the latent of square images as height x width x channels, or as tokens x channels."""
        if self.tokens is not None:
            return f"{self.tokens} tokens x{self.latent_channels}"
        side = resolution // self.compression
        return f"{side}x{side}x{self.latent_channels}"

    @property
    def unidentified(self) -> bool:
        """Whether the weights cannot be told from others; ``weights_sha256`` is then one of this record alone."""
        return self.weights_sha256.startswith("not-identified-")

    @property
    def peculiarities(self) -> tuple[str, ...]:
        """In what the training was another than three phases from random weights, one clause each."""
        found = [f"phase {one.phase} started from {one.initial}" for one in self.trained or () if one.initial]
        return (
            *found,
            *(f"phase {one.phase} froze {', '.join(one.frozen)}" for one in self.trained or () if one.frozen),
        )

    @property
    def trained_on(self) -> tuple[str, ...] | None:
        """Data sets of the training, sorted; None if they are not known."""
        return None if self.trained is None else tuple(sorted({name for one in self.trained for name in one.datasets}))

    @property
    def training_images(self) -> int | None:
        """Images seen in all phases; None if that is not known."""
        return self.trained_images if self.trained is None else sum(one.images for one in self.trained)


class DenoiserSubject(Strict):
    """The denoiser that was trained or sampled, on latents of the record's autoencoder."""

    row: str = Field(description="name in the profile")
    name: str = Field(description="size, e.g. uvit-s")
    family: Literal["uvit", "dit"]
    process: Literal["vp", "learned-range", "flow"]
    patch: int = Field(description="latent cells per side of a token")
    tokens: int = Field(description="tokens of one latent")
    classes: int | None = Field(description="number of classes; null: unconditional")
    parameters: int = Field(description="trainable parameters")
    gmacs: float = Field(description="1e9 multiply-accumulates of matrix products in one conditional forward pass")
    weights_sha256: str
    weights_source: Literal["retrained", "released"] = Field(
        default="retrained", description="retrained: by this harness; released: by the authors"
    )
    released: str | None = Field(
        default=None, description="name of released weights in the catalogue; null: trained by this harness"
    )
    initial: str | None = Field(
        default=None,
        exclude_if=lambda initial: initial is None,
        description="weights that the training started from, as the profile names them; left out: random ones",
    )
    initial_sha256: Sha256 | None = Field(
        default=None, exclude_if=lambda sha256: sha256 is None, description="hash of those weights"
    )
    frozen: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda frozen: not frozen,
        description="patterns of layers that stayed as they were in training",
    )
    weights_commit: str | None = Field(
        default=None,
        description="commit of the hub that released weights are of; left out: other weights, or not known",
        exclude_if=lambda commit: commit is None,
    )
