"""How far a fast way of computing may differ from plain eager PyTorch, and how the difference is measured."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

LIMITS = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 0.02, "bf16": 0.05}
"""Largest relative error at which two outputs count as the same function, by precision.

TF32 has three bits more than bf16. DC-AE in bf16 differs from fp32 by 0.012 (docs/performance.md), an eighth of which
is 0.0015; the limit leaves as much room above this as bf16's does.
"""


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of ``found - wanted``, divided by the root mean square of ``wanted``."""
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def largest_output_error(found: Iterable[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest :func:`relative_rms` over batches; NaN if an output holds a number that is not finite.

    ``wanted`` holds the first images of each batch, ``found`` gives whole batches. Each is read before the next is
    taken, because a CUDA graph overwrites its output.
    """
    errors = [
        relative_rms(whole[: len(part)], part) if bool(whole.isfinite().all()) else math.nan
        for whole, part in zip(found, wanted, strict=True)
    ]
    return torch.tensor(errors).max().item()  # Python's max would lose a NaN
