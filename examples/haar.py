"""A Haar wavelet autoencoder: an autoencoder of your own needs two methods, no training and no torch module."""

import torch
from torch import Tensor


class Haar:
    """Keeps the coarsest level of a Haar wavelet transform.

    f = 2**levels and c = 12: the average of each block and its three coarsest differences, for each colour.
    """

    def __init__(self, levels: int = 3):
        self.levels = levels

    def encode(self, x: Tensor) -> Tensor:
        """Images (n, 3, H, W) in [-1, 1] to a latent (n, 12, H/f, W/f)."""
        for _ in range(self.levels - 1):
            x = split(x)[:, :3]  # the fine differences are dropped
        return split(x)

    def decode(self, z: Tensor) -> Tensor:
        """A latent (n, 12, h, w) to images (n, 3, f h, f w)."""
        x = join(z)
        for _ in range(self.levels - 1):
            x = join(torch.cat([x, *[torch.zeros_like(x)] * 3], dim=1))
        return x


def split(x: Tensor) -> Tensor:
    """One Haar level, (n, c, H, W) to (n, 4 c, H/2, W/2): sums, then differences across, down and diagonal."""
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 2


def join(z: Tensor) -> Tensor:
    """The inverse of `split`, (n, 4 c, h, w) to (n, c, 2 h, 2 w)."""
    total, across, down, diagonal = z.chunk(4, dim=1)
    top = torch.stack([total + across + down + diagonal, total - across + down - diagonal], dim=-1).flatten(-2)
    bottom = torch.stack([total + across - down - diagonal, total - across - down + diagonal], dim=-1).flatten(-2)
    return torch.stack([top, bottom], dim=-2).flatten(-3, -2) / 2
