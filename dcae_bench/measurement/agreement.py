"""The check of a faster way of computing against plain PyTorch: beyond a limit nothing is timed."""

from torch import Tensor

from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.job import Job
from dcae_bench.measurement.record import Agreement

LIMITS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05}
"""Largest error that counts as the same function, by precision."""


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference of outputs, relative to what is wanted."""
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def agree(job: Job, what: str, error: float) -> Agreement:
    """The agreement; raises :class:`MeasurementError` beyond its limit. Not a number is beyond every limit."""
    limit = LIMITS[job.precision.split()[0]]
    if not error <= limit:
        raise MeasurementError(f"{job.case.name}: {what}: error {error:.3g} is above {limit:g}; do not use this mode")
    return Agreement(what=what, error=error, limit=limit)
