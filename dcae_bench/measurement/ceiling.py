"""The ceiling: what a large matrix product reaches on this device, in this precision, in the same run."""

from itertools import cycle

import torch

SIZES = {"cuda": 8192, "cpu": 2048}
"""Side of the square operands: large enough that memory traffic and launches are below a percent."""
BUFFERS = 3


class Matmul:
    """A workload: the product of two square matrices of normal values.

    Values are random and the left operand rotates over three buffers: zeros switch fewer transistors and run faster,
    and one buffer may stay in a cache.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | str, *, size: int | None = None, seed: int = 0):
        """Operands of ``size`` by ``size``, by default :data:`SIZES`."""
        size = size or SIZES[torch.device(device).type]
        generator = torch.Generator(device).manual_seed(seed)
        make = {"generator": generator, "device": device, "dtype": dtype}
        self._left = cycle([torch.randn(size, size, **make) for _ in range(BUFFERS)])
        self._right = torch.randn(size, size, **make)
        self.flops = 2 * size**3
        """Operations of one call; a multiply-accumulate is two."""

    def __call__(self) -> torch.Tensor:
        """One product."""
        return next(self._left) @ self._right
