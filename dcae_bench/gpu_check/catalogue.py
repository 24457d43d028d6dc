"""All checks, in the order in which they run; what is left when the time is over matters least."""

from dcae_bench.gpu_check.computed import computed_checks
from dcae_bench.gpu_check.outcome import Check
from dcae_bench.gpu_check.timed import timed_checks


def all_checks() -> list[Check]:
    """Every check: instruments and graphs, results beside the processor, then every protocol and work."""
    timed = timed_checks()
    first = [check for check in timed if check.instrument]
    return [*first, *computed_checks(), *(check for check in timed if not check.instrument)]
