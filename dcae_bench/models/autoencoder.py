"""What every autoencoder of the harness offers to training and evaluation."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

LAYER_SETS = ("all", "encoder_head", "decoder_input", "decoder_head", "encoder_last_stage", "decoder_first_stage")


class Autoencoder(nn.Module, ABC):
    """Image (n, 3, H, W) in [-1, 1] to latent (n, c, H/f, W/f) and back; H and W are multiples of f.

    Both directions are deterministic.
    """

    family: str
    compression: int
    latent_channels: int

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Image (n, 3, H, W) to latent (n, c, H/f, W/f)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Latent (n, c, h, w) to image (n, 3, f*h, f*w)."""

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
