"""What every autoencoder of the harness offers to training and evaluation."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dcae_bench.errors import DataError
from dcae_bench.specs import AutoencoderSpec

LAYER_SETS = ("all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage")


class Autoencoder(nn.Module, ABC):
    """Image (n, 3, H, W) in [-1, 1] to latent (n, c, H/f, W/f) and back; H and W are multiples of f.

    Both directions are deterministic.
    """

    family: str
    spec: AutoencoderSpec
    compression: int
    latent_channels: int

    def encode(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to latent (n, c, H/f, W/f). Raises :class:`DataError` for a shape that does not fit."""
        f = self.compression
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % f or x.shape[3] % f:
            raise DataError(
                f"input of shape {tuple(x.shape)}: {self.family}-f{f}c{self.latent_channels} takes (n, 3, height, "
                f"width) with both sides multiples of {f}; crop or resize the images"
            )
        return self._encode(x)

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
