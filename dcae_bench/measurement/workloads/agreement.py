"""The check of a faster mode against plain eager PyTorch, before the timing and after it.

A mode whose error exceeds the limit is not timed; if the error exceeds it afterwards, no number is recorded.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.job import Job

LIMITS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05}
"""Largest relative error at which two outputs count as the same function, by precision."""
AFTER = ", after the timing"
"""What a failed check says if it was the second one."""


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


def require_agreement(job: Job, what: str, error: float) -> Agreement:
    """The agreement for the record. Raises :class:`MeasurementError` if ``error`` is above its limit or NaN."""
    limit = LIMITS[job.precision.split()[0]]
    if not error <= limit:
        raise MeasurementError(f"{job.case.name}: {what}: error {error:.3g} is above {limit:g}; do not use this mode")
    return Agreement(what=what, error=error, limit=limit)
