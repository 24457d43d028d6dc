"""The autoencoder: the interface of every autoencoder for training and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from dcae_bench.base.errors import DataError
from dcae_bench.specs.autoencoders import AutoencoderSpec

PIXELS_AT_ONCE = 64 * 512**2
"""Pixels, over all images of a batch, that an autoencoder processes together. The memory of a pass grows with them."""
LAYER_SETS = ("all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage")
"""Names of the groups of layers that a training phase may train, as every autoencoder of the paper has them."""


def images_at_once(side: int) -> int:
    """How many images of ``side`` px an autoencoder processes together; at least one."""
    return max(1, PIXELS_AT_ONCE // side**2)


NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says where a computation does not fit; a processor raises no class of its own for it."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that a computation does not fit in memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)


def same_size(y: Tensor, x: Tensor) -> Tensor:
    """Reconstructions ``y`` of images ``x``, which have their shape. Tokens alone do not tell the size of an image.

    Raises :class:`DataError` for another shape.
    """
    if y.shape != x.shape:
        raise DataError(
            f"images of shape {tuple(x.shape)} came back as {tuple(y.shape)}; choose a set of the side that this "
            "autoencoder decodes, or let its decode return that of its encode"
        )
    return y


class Autoencoder(nn.Module, ABC):
    """Maps an image (n, 3, H, W) in [-1, 1] to a latent (n, c, H/f, W/f) and back; H and W are multiples of f.

    Both directions are deterministic. Only :meth:`draw` gives a random latent.
    """

    family: str
    spec: AutoencoderSpec
    compression: int
    latent_channels: int
    has_posterior = False
    """Whether the encoder gives a distribution of latents (KL autoencoders); :meth:`encode` then returns its mean."""

    has_grid = True
    """Whether latents are (n, c, H/f, W/f); else they are sequences of tokens (n, N, c), and only :meth:`forward` and
    the metrics of reconstructions apply."""
    side: int | None = None
    """The only side in pixels that images may have; None: any multiple of f."""
    notes: tuple[str, ...] = ()
    """What a reader of its numbers must know of how it is used."""

    def take_over(self, inner: "Autoencoder") -> None:
        """Say of its images, latents and use what ``inner`` says, which this autoencoder computes with."""
        self.has_posterior, self.has_grid = inner.has_posterior, inner.has_grid
        self.side, self.notes = inner.side, inner.notes

    def encode(self, x: Tensor) -> Tensor:
        """Encode images (n, 3, H, W) to latents (n, c, H/f, W/f). Raises :class:`DataError` for another shape."""
        self._require_fit(x)
        return self._encode(x)

    def draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """Draw latents (n, c, H/f, W/f) of images ``x`` from the posterior; without a posterior, as :meth:`encode`.

        ``noise`` maps the shape (c, h, w) of one latent to standard normal numbers (n, c, h, w). Raises
        :class:`DataError` for images of another shape than (n, 3, H, W).
        """
        self._require_fit(x)
        return self._draw(x, noise)

    def _require_fit(self, x: Tensor) -> None:
        f = self.compression
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % f or x.shape[3] % f:
            raise DataError(
                f"input of shape {tuple(x.shape)}: {self.family}-f{f}c{self.latent_channels} takes (n, 3, height, "
                f"width) with both sides multiples of {f}; crop or resize the images"
            )
        if self.side is not None and x.shape[2:] != (self.side, self.side):
            raise DataError(
                f"input of shape {tuple(x.shape)}: this autoencoder takes images of {self.side} x {self.side} px "
                f"alone, and would resize others; choose a set of {self.side} px"
            )

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (n, c, h, w) to images (n, 3, f*h, f*w). Raises :class:`DataError` for another shape."""
        dims, axis = (4, 1) if self.has_grid else (3, 2)
        if z.ndim != dims or z.shape[axis] != self.latent_channels:
            c = self.latent_channels
            raise DataError(
                f"latent of shape {tuple(z.shape)}: {self.family}-f{self.compression}c{c} takes "
                + (f"(n, {c}, height, width)" if self.has_grid else f"(n, tokens, {c})")
            )
        return self._decode(z)

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """:meth:`encode` for images whose shape was checked."""

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """:meth:`draw` for images whose shape was checked."""
        return self._encode(x)

    @abstractmethod
    def _decode(self, z: Tensor) -> Tensor:
        """:meth:`decode` for latents whose shape was checked."""

    @abstractmethod
    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """Groups of layers that a training phase may train (paper, section 3.3), by a name in :data:`LAYER_SETS`."""

    def residual_ends(self) -> list[Tensor]:
        """Weights that end the residual branches: with zeros there, every residual block is the identity."""
        return []

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight of the last convolution. LDM's adaptive GAN weight compares gradients at this weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (n, 3, H, W). Raises :class:`DataError` for an image that comes back in another size."""
        return same_size(self.decode(self.encode(x)), x)

    def count_parameters(self) -> int:
        """Count the parameters of encoder and decoder."""
        return sum(p.numel() for p in self.parameters())


Part = TypeVar("Part", bound=Autoencoder)


def part_of(model: Autoencoder, kind: type[Part]) -> Part | None:
    """The autoencoder of a kind in a model: the model itself, or one that it computes with; None for no such part."""
    return next((part for part in model.modules() if isinstance(part, kind)), None)
