"""The paper's three phases of an autoencoder's training as workloads: their settings are those of profile ``paper``."""

from functools import cache

from dcae_bench.config import Profile, load_profile
from dcae_bench.measurement.record import Work
from dcae_bench.training_spec import PhaseSpec, TrainingSpec

PROFILE = "paper"
PHASE_WORK: dict[Work, int] = {"phase1": 1, "phase2": 2, "phase3": 3}
"""Number of each phase by the name of its step."""


@cache
def paper() -> Profile:
    """The profile. Raises :class:`ConfigError`."""
    return load_profile(PROFILE)


def paper_training() -> TrainingSpec:
    """What the phases share: the loss above all."""
    return paper().training


def paper_phase(work: Work) -> PhaseSpec:
    """What a phase trains, at which resolution, and how."""
    return paper_training().phases[PHASE_WORK[work]]


def batch_at_once(work: Work) -> tuple[int, str]:
    """Images of a phase's batch that are computed at once, and where the number is from."""
    phase, processes = paper_phase(work), paper().processes
    batch = phase.batch_size // phase.accumulate // processes
    parts = f"one of the {phase.accumulate} parts of " if phase.accumulate > 1 else ""
    return batch, f"profile {PROFILE}: one of {processes} GPUs' share of {parts}a batch of {phase.batch_size}"
