"""The denoiser: the interface of every denoiser for training and sampling, and the layers that UViT and DiT share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.base.errors import DataError
from dcae_bench.specs.denoisers import DenoiserSpec

MAX_PERIOD = 10_000


class Denoiser(nn.Module, ABC):
    """Maps noisy latents (n, c, side, side), times and labels to predictions (n, out_channels, side, side).

    The diffusion process decides what the prediction is (noise, noise and variance, velocity) and what a time means.
    """

    stream_dtype: torch.dtype | None = None
    """Type of the tokens between the blocks. None: as computed, under autocast fp32 because the positions are fp32."""

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict from latents x (n, c, side, side), times t (n,) and labels y (n,); y is None if unconditional.

        Times may be fractions. The label ``spec.null_class`` stands for no class. Raises :class:`DataError` for a wrong
        shape, for missing labels, and for labels of an unconditional denoiser.
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
        """:meth:`forward` for inputs whose shapes were checked."""

    @abstractmethod
    def transformer_blocks(self) -> list[nn.Module]:
        """All blocks in order. Activation checkpointing and compilation handle one block at a time."""

    def count_parameters(self, *, trainable: bool = True) -> int:
        """Count the trainable parameters, as the papers do; without ``trainable``, also DiT's fixed positions."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def as_stream(self, x: Tensor) -> Tensor:
        """Tokens in the type that they have between the blocks."""
        return x if self.stream_dtype is None else x.to(self.stream_dtype)

    def unpatchify(self, x: Tensor) -> Tensor:
        """Arrange tokens (n, tokens, patch * patch * channels), channels innermost, as (n, channels, side, side)."""
        grid, patch = self.spec.latent.grid, self.spec.latent.patch
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class PatchEmbed(nn.Module):
    """Embeds the patches of latents (n, c, side, side) as tokens (n, tokens, width), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Latents (n, c, side, side) to tokens (n, tokens, width)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class LabelEmbedding(nn.Module):
    """Embeds labels (n,) as (n, width). The last of the ``classes + 1`` rows belongs to the null class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """Labels (n,) to embeddings (n, width)."""
        return self.embedding_table(y)


class Attention(nn.Module):
    """Self-attention over tokens (n, l, width)."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = F.scaled_dot_product_attention
        """The attention of queries, keys and values (n, heads, l, head size)."""
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, l, width) to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with four times the width between them; ``approximate`` as in :class:`torch.nn.GELU`."""

    def __init__(self, width: int, *, approximate: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token (..., width) independently of the others."""
        return self.fc2(self.act(self.fc1(x)))


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Embed times (n,) as (n, width) in float32: cosines, then sines, of geometric frequencies from 1 to 1/10,000."""
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
