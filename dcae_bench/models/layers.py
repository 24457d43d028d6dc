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


def channel_to_space(x: Tensor) -> Tensor:
    """Move channels into 2x2 pixels: (n, 4c, h, w) to (n, c, 2h, 2w), as ``pixel_shuffle(x, 2)``.

    On a GPU torch's own function returns a map that is not channels-last, and every layer after it transposes its maps.
    """
    return F.pixel_shuffle(x, 2) if x.device.type == "cpu" else _join_windows(_channels_as_windows(x))


def add_channel_duplicate_to_space(y: Tensor, x: Tensor, *, shuffle: bool) -> Tensor:
    """Add the upsampling shortcut of x (n, cx, h, w) to y (n, c, 2h, 2w), or with ``shuffle`` to channel_to_space(y).

    The shortcut duplicates channels, then moves channels to space. The sum reads each channel as often as needed
    instead of a copy of duplicates, and equals the sum with the copy to the last bit. Without gradients, the sum reads
    the channels of y where they are, too.
    """
    c = y.shape[1] // 4 if shuffle else y.shape[1]
    repeats = 4 * c // x.shape[1]
    if repeats in (1, 2, 4):
        n, _, h, w = x.shape
        rows, columns = {1: (2, 2), 2: (2, 1), 4: (1, 1)}[repeats]  # how many dy and dx have their own channel
        shortcut = pixels_first(x).reshape(n, h, w, c, rows, columns).permute(0, 1, 4, 2, 5, 3)
    else:
        shortcut = _space_as_windows(channel_to_space(duplicate_channels(x, 4 * c)))
    if shuffle and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        windows = _channels_as_windows(y)
        return _join_windows(
            torch.add(windows, shortcut, out=windows.new_empty(windows.shape, dtype=torch.result_type(y, x)))
        )
    return _join_windows(_space_as_windows(channel_to_space(y) if shuffle else y) + shortcut)


def _space_as_windows(x: Tensor) -> Tensor:
    """View (n, c, 2h, 2w) as (n, h, 2, w, 2, c)."""
    return pixels_first(x).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))


def _channels_as_windows(x: Tensor) -> Tensor:
    """View (n, 4c, h, w) as (n, h, 2, w, 2, c), the windows of ``channel_to_space(x)``."""
    return pixels_first(x).unflatten(3, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)


def _join_windows(x: Tensor) -> Tensor:
    """(n, h, 2, w, 2, c) to (n, c, 2h, 2w), without a copy if the windows are contiguous."""
    return channels_first(x.flatten(3, 4).flatten(1, 2))


def average_channels(x: Tensor, channels: int) -> Tensor:
    """Average consecutive channels: (n, c, h, w) to (n, channels, h, w); ``c`` is a multiple of ``channels``."""
    return x.unflatten(1, (channels, -1)).mean(dim=2) if channels != x.shape[1] else x


def duplicate_channels(x: Tensor, channels: int) -> Tensor:
    """Repeat each channel in place: (n, c, h, w) to (n, channels, h, w); ``channels`` is a multiple of ``c``."""
    n, c, h, w = x.shape
    if channels == c:
        return x
    return channels_first(pixels_first(x).unsqueeze(4).expand(n, h, w, c, channels // c).reshape(n, h, w, channels))
