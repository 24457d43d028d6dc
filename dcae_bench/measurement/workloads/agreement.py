"""The check of a faster mode against plain eager PyTorch: a mode whose error exceeds the limit is not timed."""

from torch import Tensor

from dcae_bench.base.errors import MeasurementError
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.job import Job

LIMITS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05}
"""Largest relative error at which two outputs count as the same function, by precision."""


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of ``found - wanted``, divided by the root mean square of ``wanted``."""
    return ((found.float() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def require_agreement(job: Job, what: str, error: float) -> Agreement:
    """The agreement for the record. Raises :class:`MeasurementError` if ``error`` is above its limit or NaN."""
    limit = LIMITS[job.precision.split()[0]]
    if not error <= limit:
        raise MeasurementError(f"{job.case.name}: {what}: error {error:.3g} is above {limit:g}; do not use this mode")
    return Agreement(what=what, error=error, limit=limit)
