"""What every denoiser of the harness offers to training and sampling, and the parts that UViT and DiT share."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.denoiser_specs import DenoiserSpec
from dcae_bench.errors import DataError

MAX_PERIOD = 10_000


class Denoiser(nn.Module, ABC):
    """Noisy latent (n, c, side, side), time and label to a prediction (n, out_channels, side, side).

    What is predicted (noise, noise and variance, velocity) and what the time means is the diffusion process's matter.
    """

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict from latents x (n, c, side, side), times t (n,) and labels y (n,), None where unconditional.

        Times may be fractions; label ``spec.null_class`` stands for no class. Raises :class:`DataError` for a shape
        that does not fit, and for labels that are missing or not wanted.
        """
        latent = self.spec.latent
        if x.ndim != 4 or x.shape[1:] != (latent.channels, latent.side, latent.side):
            raise DataError(
                f"latents of shape {tuple(x.shape)}: this {self.spec.family} takes (n, {latent.channels}, "
                f"{latent.side}, {latent.side}); use the latents of the autoencoder and resolution it was made for"
            )
        if t.shape != x.shape[:1] or (y is not None and y.shape != x.shape[:1]):
            raise DataError(f"times {tuple(t.shape)} or labels of another number than the {x.shape[0]} latents")
        if (y is None) != (self.spec.classes is None):
            raise DataError(
                f"labels are {'missing' if y is None else 'given'}, but this {self.spec.family} is "
                f"{'unconditional' if self.spec.classes is None else f'of {self.spec.classes} classes'}"
            )
        return self._forward(x, t, y)

    @abstractmethod
    def _forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """:meth:`forward` of shapes that fit."""

    @abstractmethod
    def transformer_blocks(self) -> list[nn.Module]:
        """All blocks in order: what activation checkpointing and compilation take one by one."""

    def count_parameters(self, *, trainable: bool = True) -> int:
        """Number of parameters; the papers count the trainable ones, without DiT's fixed positions."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def unpatchify(self, x: Tensor) -> Tensor:
        """Tokens (n, tokens, patch * patch * channels), channels innermost, to (n, channels, side, side)."""
        grid, patch = self.spec.latent.grid, self.spec.latent.patch
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class PatchEmbed(nn.Module):
    """Latent (n, c, side, side) to tokens (n, tokens, width), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed patches that do not overlap."""
        return self.proj(x).flatten(2).transpose(1, 2)


class LabelEmbedding(nn.Module):
    """Label (n,) to (n, width); the last of ``classes + 1`` rows is the null class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """Look up labels."""
        return self.embedding_table(y)


class Attention(nn.Module):
    """Self-attention over tokens (n, l, width)."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers, four times as wide between; ``approximate`` as in :class:`torch.nn.GELU`."""

    def __init__(self, width: int, *, approximate: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself."""
        return self.fc2(self.act(self.fc1(x)))


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Times (n,) to (n, width) in float32: cosines, then sines, of geometric frequencies from 1 to 1/10,000."""
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
