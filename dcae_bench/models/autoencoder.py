"""What every autoencoder of the harness offers to training and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dcae_bench.errors import DataError
from dcae_bench.specs import AutoencoderSpec

PIXELS_AT_ONCE = 64 * 512**2
"""Pixels of the images that an autoencoder is given together; what its passes hold in memory grows with them."""
LAYER_SETS = ("all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage")


def images_at_once(side: int) -> int:
    """How many images of ``side`` px an autoencoder is given together, at least one."""
    return max(1, PIXELS_AT_ONCE // side**2)


class Autoencoder(nn.Module, ABC):
    """Image (n, 3, H, W) in [-1, 1] to latent (n, c, H/f, W/f) and back; H and W are multiples of f.

    Both directions are deterministic; :meth:`draw` is the one way to a random latent.
    """

    family: str
    spec: AutoencoderSpec
    compression: int
    latent_channels: int
    has_posterior = False
    """Whether the encoder gives a distribution of latents (KL autoencoders), of which :meth:`encode` is the mean."""

    def encode(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to latent (n, c, H/f, W/f). Raises :class:`DataError` for a shape that does not fit."""
        self._require_fit(x)
        return self._encode(x)

    def draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """Latent of ``x`` drawn from its posterior, where there is one; else that of :meth:`encode`.

        ``noise`` maps the shape (c, h, w) of one latent to standard normal numbers (n, c, h, w). Raises
        :class:`DataError` for a shape that does not fit.
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

    def decode(self, z: Tensor) -> Tensor:
        """Latent (n, c, h, w) to image (n, 3, f*h, f*w). Raises :class:`DataError` for a shape that does not fit."""
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise DataError(
                f"latent of shape {tuple(z.shape)}: {self.family}-f{self.compression}c{self.latent_channels} takes "
                f"(n, {self.latent_channels}, height, width)"
            )
        return self._decode(z)

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """:meth:`encode` of a shape that fits."""

    def _draw(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """:meth:`draw` of a shape that fits."""
        return self._encode(x)

    @abstractmethod
    def _decode(self, z: Tensor) -> Tensor:
        """:meth:`decode` of a shape that fits."""

    @abstractmethod
    def layer_sets(self) -> dict[str, list[nn.Module]]:
        """The named groups of layers that a training phase may train (paper, section 3.3), see ``LAYER_SETS``."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """Weight of the last convolution, where an adaptive GAN weight compares gradients (LDM)."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct: (n, 3, H, W) to the same shape."""
        return self.decode(self.encode(x))

    def count_parameters(self) -> int:
        """Number of parameters of encoder and decoder."""
        return sum(p.numel() for p in self.parameters())
