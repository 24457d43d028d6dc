"""Residual autoencoding: layers that add a shortcut without parameters to a convolution (paper, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae_bench.models.layers import (
    Conv3x3,
    add_channel_duplicate_to_space,
    average_channels,
    channel_to_space,
    channels_first,
    duplicate_channels,
    pixels_first,
    space_to_channel,
    space_to_channel_average,
)


class Downsample(nn.Module):
    """Halve the side: (n, cin, h, w) to (n, cout, h/2, w/2)."""

    def __init__(self, cin: int, cout: int, *, resample: str, shortcut: bool):
        super().__init__()
        self.resample, self.shortcut, self.channels = resample, shortcut, cout
        if resample == "pixel":
            self.conv = Conv3x3(cin, cout // 4)
        else:
            self.conv = Conv3x3(cin, cout, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution (and space to channel), then add the averaging shortcut."""
        y = self.conv(x)
        if self.resample == "pixel":
            y = space_to_channel(y)
        return y + space_to_channel_average(x, self.channels) if self.shortcut else y


class Upsample(nn.Module):
    """Double the side: (n, cin, h, w) to (n, cout, 2h, 2w)."""

    def __init__(self, cin: int, cout: int, *, resample: str, shortcut: bool):
        super().__init__()
        self.resample, self.shortcut = resample, shortcut
        self.conv = Conv3x3(cin, 4 * cout if resample == "pixel" else cout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution with channel to space or nearest upsampling, then add the duplicating shortcut."""
        shuffle = self.resample == "pixel"
        y = self.conv(x if shuffle else F.interpolate(x, scale_factor=2, mode="nearest"))
        if self.shortcut:
            return add_channel_duplicate_to_space(y, x, shuffle=shuffle)
        return channel_to_space(y) if shuffle else y


class LatentOut(nn.Module):
    """The encoder's head: (n, width, h, w) to the latent (n, channels, h, w). The shortcut averages channels."""

    def __init__(self, width: int, channels: int, *, shortcut: bool):
        super().__init__()
        self.shortcut, self.channels = shortcut, channels
        self.conv = Conv3x3(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution, then add the averaging shortcut."""
        y = self.conv(x)
        return y + average_channels(x, self.channels) if self.shortcut else y


class LatentIn(nn.Module):
    """The decoder's input: the latent (n, channels, h, w) to (n, width, h, w). The shortcut duplicates channels."""

    def __init__(self, channels: int, width: int, *, shortcut: bool):
        super().__init__()
        self.shortcut, self.width = shortcut, width
        self.conv = Conv3x3(channels, width)

    def forward(self, z: Tensor) -> Tensor:
        """Apply the convolution, then add the duplicating shortcut."""
        y = self.conv(z)
        return y + duplicate_channels(z, self.width) if self.shortcut else y


class RMSNorm2d(nn.Module):
    """RMS normalisation over the channels of each pixel ("trms2d"), with weight and bias. Statistics are in fp32."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape and dtype."""
        x, dtype = pixels_first(x), x.dtype
        wide = torch.promote_types(dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=3, keepdim=True, dtype=wide).square() / x.shape[3]
        # Without gradients a half result is written as such, not first as fp32; both are rounded once.
        direct = dtype != wide and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        out = x.new_empty(x.shape) if direct else None
        y = torch.addcmul(self.bias.to(wide), x * torch.rsqrt(square + self.eps), self.weight.to(wide), out=out)
        return channels_first(y.to(dtype))


def make_norm(name: str, channels: int) -> nn.Module:
    """Build a normalisation: ``trms2d`` or ``bn2d`` (torch's BatchNorm2d defaults)."""
    return {"trms2d": RMSNorm2d, "bn2d": nn.BatchNorm2d}[name](channels)


def make_activation(name: str) -> nn.Module:
    """Build an activation: ``relu`` or ``silu``."""
    return {"relu": nn.ReLU, "silu": nn.SiLU}[name]()


class ResBlock(nn.Module):
    """Residual block of two 3x3 convolutions. The second is normalised; the sum is not activated."""

    def __init__(self, channels: int, *, norm: str, activation: str):
        super().__init__()
        self.conv1 = Conv3x3(channels, channels)
        self.activation = make_activation(activation)
        self.conv2 = Conv3x3(channels, channels, bias=False)
        self.norm = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape."""
        return x + self.norm(self.conv2(self.activation(self.conv1(x))))
