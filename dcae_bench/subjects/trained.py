"""Checks of trained weights: they must be what the user takes them for, as far as they say what they are."""

from pathlib import Path

from dcae_bench.base.errors import ResultsError, WeightsError
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.records.record import load
from dcae_bench.records.subject import TrainedPhase
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.weights.trained import TrainedWeights, model_sha256, read_statement

RECORD = "record.json"
"""Record that training writes beside the weights."""


def describe_weights(path: Path) -> TrainedWeights | None:
    """What weights say of themselves, or else what the record of their training beside them says; None: nothing.

    Raises :class:`WeightsError` for a statement that is damaged.
    """
    if (found := read_statement(path)) is not None:
        return found
    record = path.with_name(RECORD)
    try:
        if not record.is_file() or not path.is_file():
            return None
        made, sha256 = load(record), known_sha256(path)
    except (OSError, ResultsError):
        return None  # the loader of the weights says what is wrong with them; a record of nothing states nothing
    if made.kind == "training" and made.subject.weights_sha256 == sha256:
        name, phase, trained = made.subject.autoencoder, made.subject.phase, made.subject.trained
        return TrainedWeights(kind="autoencoder", name=name, phase=phase, trained=trained)
    if made.kind == "diffusion_training" and made.denoiser and made.denoiser.weights_sha256 == sha256:
        return TrainedWeights(kind="denoiser", name=made.denoiser.row)
    return None


def require_description(path: Path) -> None:
    """Refuse trained weights that nothing is said of, see :func:`describe_weights`. Raises :class:`WeightsError`.

    A name and a phase from the command line alone are not believed. Openers call this after they have read the
    weights, so that damaged ones are told as that.
    """
    if describe_weights(path) is None:
        raise WeightsError(
            f"{path}: does not say of which model and phase it is, and no {RECORD} of its training lies beside it; "
            "pass the file that training wrote, or measure it as your own ('weights: own' in the profile)"
        )


def require_autoencoder(path: Path, name: str, spec: AutoencoderSpec, phase: int | None) -> int | None:
    """Check that weights are of the profile's autoencoder ``name``, and of the ``phase`` if one is given.

    Returns the phase that the weights state, or ``phase`` where they state nothing. Raises :class:`WeightsError`.
    """
    found = describe_weights(path)
    if found is None:
        return phase
    if (found.kind, found.name) != ("autoencoder", name):
        raise WeightsError(f"{path}: holds weights of {found.kind} {found.name}, not of {name}; pass those of {name}")
    if found.model_sha256 not in (None, model_sha256(spec)):
        raise WeightsError(
            f"{path}: was trained as {name} when the profile had another model for it; train {name} again"
        )
    return _require_phase(found, path, phase)


def phases_behind(path: Path) -> tuple[TrainedPhase, ...] | None:
    """Phases that trained weights went through, as far as they or their record say; None: nothing is said.

    Raises :class:`WeightsError` for a statement that is damaged.
    """
    found = describe_weights(path)
    return found.trained if found is not None else None


def require_phase(path: Path, phase: int | None) -> None:
    """Check that the user's own weights state the ``phase``, if one is given. Raises :class:`WeightsError`."""
    found = describe_weights(path)
    if found is not None:
        _require_phase(found, path, phase)
    elif phase is not None:
        raise WeightsError(f"--phase {phase}: {path} does not say its phase; leave the option out")


def _require_phase(found: TrainedWeights, path: Path, phase: int | None) -> int | None:
    if found.phase is not None and phase not in (None, found.phase):
        raise WeightsError(
            f"{path}: holds weights of phase {found.phase}, not of phase {phase}; pass those of phase {phase}"
        )
    return found.phase or phase
