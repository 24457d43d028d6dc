"""The EfficientViT block: linear attention with a ReLU kernel, then a gated inverted bottleneck (Cai et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.models.layers import Conv1x1, channels_first, pixels_first
from dcae_bench.models.residual import make_norm
from dcae_bench.specs.autoencoders import ATTENTION_HEAD_DIM

QUADRATIC_MAX_POSITIONS = 32
"""Up to this many positions, the authors' code forms the full attention matrix, which is then the smaller matrix."""
ATTENTION_EPS = 1e-15


class LiteMLA(nn.Module):
    """Multi-head attention with a ReLU kernel: (n, c, h, w) to the same shape, without the residual sum.

    ``qkv`` holds 32 query, 32 key and 32 value channels per head, head by head. Each scale adds the same number of
    heads, computed from a depthwise convolution of the qkv map.
    """

    def __init__(self, channels: int, *, scales: tuple[int, ...] = ()):
        super().__init__()
        heads = channels // ATTENTION_HEAD_DIM
        self.qkv = Conv1x1(channels, 3 * channels, bias=False)
        self.aggregate = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3 * channels, 3 * channels, scale, padding=scale // 2, groups=3 * channels, bias=False),
                nn.Conv2d(3 * channels, 3 * channels, 1, groups=3 * heads, bias=False),
            )
            for scale in scales
        )
        self.project = Conv1x1(channels * (1 + len(scales)), channels, bias=False)
        self.norm = make_norm("trms2d", channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all positions of each image."""
        qkv = self.qkv(x)
        if len(self.aggregate) > 0:
            qkv = torch.cat([qkv, *(branch(qkv) for branch in self.aggregate)], dim=1)
        return self.norm(self.project(relu_attention(qkv)))


def relu_attention(qkv: Tensor) -> Tensor:
    """ReLU-kernel attention on an interleaved qkv map: (n, heads*96, h, w) to (n, heads*32, h, w).

    The linear and the quadratic form compute the same function; the number of positions decides which form is cheaper.
    Half precision follows the authors' code: fp16 inputs are computed in fp32, because fp16 sums overflow; bf16 inputs
    keep bf16 products and are normalised in fp32.
    """
    n, _, h, w = qkv.shape
    dtype = qkv.dtype
    with torch.autocast(qkv.device.type, enabled=False):
        x = qkv.float() if dtype == torch.float16 else qkv
        heads = pixels_first(x).reshape(n, h * w, -1, 3 * ATTENTION_HEAD_DIM).transpose(1, 2)
        value = heads[..., 2 * ATTENTION_HEAD_DIM :]
        query, key = F.relu(heads[..., : 2 * ATTENTION_HEAD_DIM]).chunk(2, dim=3)
        if h * w > QUADRATIC_MAX_POSITIONS:
            key = key.transpose(2, 3)
            # The last column, the result for values of one, holds the sums of the attention weights.
            state = torch.cat([key @ value, key @ key.new_ones(h * w, 1)], dim=3)
            out = (query @ state).float()
            out = out[..., :-1] / (out[..., -1:] + ATTENTION_EPS)
        else:
            weights = (query @ key.transpose(2, 3)).float()
            weights = weights / (weights.sum(dim=3, keepdim=True) + ATTENTION_EPS)
            out = weights.to(value.dtype) @ value
        return channels_first(out.to(dtype).transpose(1, 2).reshape(n, h, w, -1))


class GLUMBConv(nn.Module):
    """Gated inverted bottleneck: (n, c, h, w) to the same shape, without the residual sum."""

    def __init__(self, channels: int, *, expand: int = 4):
        super().__init__()
        hidden = 2 * expand * channels
        self.expand = Conv1x1(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = Conv1x1(hidden // 2, channels, bias=False)
        self.norm = make_norm("trms2d", channels)

    def forward(self, x: Tensor) -> Tensor:
        """Expand, mix neighbours, gate one half with the other, project."""
        hidden = F.silu(self.expand(x), inplace=not torch.is_grad_enabled())
        value, gate = self.depthwise(hidden).chunk(2, dim=1)
        return self.norm(self.project(value * F.silu(gate)))


class EfficientViTBlock(nn.Module):
    """Attention over the image, then the gated bottleneck around each pixel; each adds its result to its input."""

    def __init__(self, channels: int, *, scales: tuple[int, ...] = ()):
        super().__init__()
        self.context = LiteMLA(channels, scales=scales)
        self.local = GLUMBConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape."""
        x = x + self.context(x)
        return x + self.local(x)
