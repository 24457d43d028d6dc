"""The three training phases of an autoencoder as workloads, with the settings of profile ``paper``."""

from functools import cache
from typing import Literal

from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.measurement.record import Work
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.profile.training import PhaseSpec, TrainingSpec

PROFILE = "paper"
PHASE_WORK: dict[Work, Literal[1, 2, 3]] = {"phase1": 1, "phase2": 2, "phase3": 3}
"""Number of the phase, by the name of its work."""


@cache
def paper_profile() -> Profile:
    """The profile ``paper``. Raises :class:`ConfigError`."""
    return load_profile(PROFILE)


def paper_architectures() -> tuple[str, ...]:
    """The catalogue's names of the profile's architectures, each once, however many trainings it has.

    Raises :class:`ConfigError`.
    """
    models = [entry.model for entry in paper_profile().autoencoders.values()]
    return tuple(name for name, spec in catalogue().architectures.items() if spec in models)


def paper_training() -> TrainingSpec:
    """The training part of the profile: the three phases and the loss they share."""
    return paper_profile().required_training


def paper_phase(work: Work) -> PhaseSpec:
    """The settings of a phase: trained layers, resolution, batch and optimiser."""
    return paper_training().phases[PHASE_WORK[work]]


def phase_batch(work: Work) -> tuple[int, str]:
    """Images that one GPU computes at once in a phase, and the explanation of this number."""
    phase, processes = paper_phase(work), paper_profile().processes
    batch = phase.batch_size // phase.accumulate // processes
    parts = f"one of the {phase.accumulate} parts of " if phase.accumulate > 1 else ""
    return batch, f"profile {PROFILE}: one of {processes} GPUs' share of {parts}a batch of {phase.batch_size}"
