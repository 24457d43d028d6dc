"""Layers of DC-AE, convolutions and moves of channels, which are fast on maps in channels-last memory.

Every function but the two views takes and returns (n, c, h, w). Any strides are allowed; maps in channels-last memory
are read and written without a copy to another layout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCHES_MAX_POSITIONS = 256
"""Up to this many output pixels in a batch, a CPU computes a 3x3 convolution faster as a matrix product.

The weights then take most of the time: a matrix product reads them once, but a convolution reorders them first
(docs/performance.md).
"""


def pixels_first(x: Tensor) -> Tensor:
    """View (n, c, h, w) as (n, h, w, c)."""
    return x.permute(0, 2, 3, 1)


def channels_first(x: Tensor) -> Tensor:
    """View (n, h, w, c) as (n, c, h, w). The view of a contiguous tensor is in channels-last memory."""
    return x.permute(0, 3, 1, 2)


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution, computed as a matrix product."""

    def __init__(self, cin: int, cout: int, *, bias: bool = True):
        super().__init__(cin, cout, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, cin, h, w) to (n, cout, h, w)."""
        return channels_first(F.linear(pixels_first(x), self.weight.flatten(1), self.bias))


class Conv3x3(nn.Conv2d):
    """A padded 3x3 convolution with its weight in channels-last memory.

    On a CPU, few pixels (:data:`PATCHES_MAX_POSITIONS`) are computed as a matrix product over their neighbourhoods.
    """

    def __init__(self, cin: int, cout: int, *, stride: int = 1, bias: bool = True):
        super().__init__(cin, cout, 3, stride=stride, padding=1, bias=bias)
        self.weight = nn.Parameter(self.weight.detach().contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """(n, cin, h, w) to (n, cout, h, w), or with a stride of 2 to (n, cout, h/2, w/2)."""
        n, _, h, w = x.shape
        if self.stride != (1, 1) or x.device.type != "cpu" or n * h * w > PATCHES_MAX_POSITIONS:
            return super().forward(x)
        padded = F.pad(pixels_first(x), (0, 0, 1, 1, 1, 1))
        patches = torch.cat([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], dim=3)
        return channels_first(F.linear(patches, pixels_first(self.weight).flatten(1), self.bias))


def space_to_channel(x: Tensor) -> Tensor:
    """Move 2x2 pixels into channels: (n, c, h, w) to (n, 4c, h/2, w/2), as ``pixel_unshuffle(x, 2)``.

    Pixel (2i + dy, 2j + dx) of channel c becomes pixel (i, j) of channel 4c + 2dy + dx.
    """
    x = pixels_first(x)
    return channels_first(torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=4).flatten(3))


def space_to_channel_average(x: Tensor, channels: int) -> Tensor:
    """Downsampling shortcut, (n, c, h, w) to (n, channels, h/2, w/2): space to channel, then the mean of each group.

    If the number of channels doubles, a group is a horizontal pair of pixels. If the number stays, a group is the whole
    2x2 window.
    """
    group = 4 * x.shape[1] // channels
    if group == 4:
        return F.avg_pool2d(x, 2)
    if group == 2:
        pairs = pixels_first(F.avg_pool2d(x, (1, 2)))
        return channels_first(torch.stack([pairs[:, 0::2], pairs[:, 1::2]], dim=4).flatten(3))
    return average_channels(space_to_channel(x), channels)


def channel_duplicate_to_space(x: Tensor, channels: int) -> Tensor:
    """Upsampling shortcut, (n, c, h, w) to (n, channels, 2h, 2w): duplicate channels, then channel to space."""
    n, c, h, w = x.shape
    repeats = 4 * channels // c
    if repeats not in (1, 2, 4):
        return F.pixel_shuffle(duplicate_channels(x, 4 * channels), 2)
    rows, columns = {1: (2, 2), 2: (2, 1), 4: (1, 1)}[repeats]  # how many dy and dx have their own channel
    x = pixels_first(x).reshape(n, h, w, channels, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return channels_first(x.expand(n, h, 2, w, 2, channels).reshape(n, 2 * h, 2 * w, channels))


def average_channels(x: Tensor, channels: int) -> Tensor:
    """Average consecutive channels: (n, c, h, w) to (n, channels, h, w); ``c`` is a multiple of ``channels``."""
    return x.unflatten(1, (channels, -1)).mean(dim=2) if channels != x.shape[1] else x


def duplicate_channels(x: Tensor, channels: int) -> Tensor:
    """Repeat each channel in place: (n, c, h, w) to (n, channels, h, w); ``channels`` is a multiple of ``c``."""
    n, c, h, w = x.shape
    if channels == c:
        return x
    return channels_first(pixels_first(x).unsqueeze(4).expand(n, h, w, c, channels // c).reshape(n, h, w, channels))
