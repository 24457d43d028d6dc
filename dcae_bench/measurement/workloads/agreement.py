"""The check of a faster mode against plain eager PyTorch, before the timing and after it.

A mode whose error exceeds the limit is not timed; if the error exceeds it afterwards, no number is recorded.
"""

from dcae_bench.base.errors import MeasurementError
from dcae_bench.execution.agreement import LIMITS
from dcae_bench.measurement.record import Agreement
from dcae_bench.measurement.workloads.job import Job

AFTER = ", after the timing"
"""What a failed check says if it was the second one."""


def require_agreement(job: Job, what: str, error: float) -> Agreement:
    """The agreement for the record. Raises :class:`MeasurementError` if ``error`` is above its limit or NaN."""
    limit = LIMITS[job.precision.split()[0]]
    if not error <= limit:
        raise MeasurementError(f"{job.case.name}: {what}: error {error:.3g} is above {limit:g}; do not use this mode")
    return Agreement(what=what, error=error, limit=limit)
