"""The ceiling: the speed of a large matrix product on the same device, in the same precision, in the same run."""

from itertools import cycle

import torch

SIZES = {"cuda": 8192, "cpu": 2048}
"""Side of the square operands: memory traffic and launches then take less than 1 % of the time."""
BUFFERS = 3


class Matmul:
    """A workload: the product of two square matrices of standard normal values.

    The values are random, because zeros switch fewer transistors and run faster. The left operand rotates over three
    buffers, because a single buffer could stay in a cache.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | str, *, size: int | None = None, seed: int = 0):
        """Draw operands of ``size`` by ``size`` elements, by default :data:`SIZES` of the device."""
        size = size or SIZES[torch.device(device).type]
        generator = torch.Generator(device).manual_seed(seed)

        def operand() -> torch.Tensor:
            return torch.randn(size, size, generator=generator, device=device, dtype=dtype)

        self._left = cycle([operand() for _ in range(BUFFERS)])
        self._right = operand()
        self.flops = 2 * size**3
        """Operations of one call. A multiply-accumulate counts as two."""

    def __call__(self) -> torch.Tensor:
        """Compute the product of the next operands."""
        return next(self._left) @ self._right
