"""The scale of latents for a denoiser, (z - shift) * factor: one number for all channels, or one for each.

A vector is longer than the channels where latents are packed first: its c p^2 numbers are those of the channels that
p x p cells become, in the order of torch's pixel_unshuffle (channel, row, column).
"""

import math
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat

Numbers = float | tuple[float, ...]
Offset = float | Annotated[tuple[float, ...], Field(min_length=1)]
Factor = PositiveFloat | Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


def packing_of(numbers: Numbers, channels: int) -> int:
    """Cells per side that are packed before ``numbers`` apply; 1 for none. Raises ValueError for another count."""
    if not isinstance(numbers, tuple):
        return 1
    packing = math.isqrt(max(len(numbers) // channels, 1))
    if len(numbers) != channels * packing**2:
        raise ValueError(f"{len(numbers)} numbers are not one for each of {channels} channels")
    return packing


def over_cells(numbers: Numbers, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers, float32, in a shape that broadcasts against latents (..., c, h, w) of ``shape`` (c, h, w).

    Raises ValueError where the vector does not fit the channels, or its packing the sides.
    """
    if not isinstance(numbers, tuple):
        return np.array(numbers, np.float32)
    channels, height, width = shape
    packing = packing_of(numbers, channels)
    if height % packing or width % packing:
        raise ValueError(f"a latent of {height} x {width} cells cannot be packed {packing} x {packing}")
    cell = np.array(numbers, np.float32).reshape(channels, packing, packing)
    return cell if packing == 1 else np.tile(cell, (1, height // packing, width // packing))


def folded(numbers: tuple[float, ...], channels: int, factor: int) -> tuple[float, ...]:
    """The same numbers for latents whose ``factor`` x ``factor`` cells were folded into channels.

    Raises ValueError where the packing does not divide the factor.
    """
    packing = packing_of(numbers, channels)
    if factor % packing:
        raise ValueError(f"cells packed {packing} x {packing} cannot be folded {factor} x {factor}")
    cell = np.array(numbers).reshape(channels, packing, packing)
    return tuple(np.tile(cell, (1, factor // packing, factor // packing)).reshape(-1).tolist())


def told(numbers: Numbers, digits: int = 6) -> str:
    """The numbers in a few words."""
    if not isinstance(numbers, tuple):
        return f"{numbers:.{digits}g}"
    return f"{len(numbers)} numbers from {min(numbers):.{digits}g} to {max(numbers):.{digits}g}"
