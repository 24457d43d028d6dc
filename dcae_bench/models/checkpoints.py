"""Weights on disk: safetensors in, safetensors out, with every mismatch named."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from dcae_bench.errors import WeightsError
from dcae_bench.files import sha256_file, write_bytes


def save_weights(state: dict[str, Tensor], path: Path) -> str:
    """Write a state dict as safetensors, atomically; returns its SHA-256. Raises :class:`ResultsError`."""
    write_bytes(path, save_safetensors({key: value.detach().cpu().contiguous() for key, value in state.items()}))
    return sha256_file(path)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file. Raises :class:`WeightsError` when it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read ({error.strerror}); train or fetch them first") from error


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> str:
    """Load weights into ``model``, key by key; returns their SHA-256.

    Raises :class:`WeightsError` for a missing or damaged file, another hash than ``sha256`` (if given), a missing,
    extra or misshapen key, and for values that are not finite.
    """
    found = weights_sha256(path)
    content = Path(path).read_bytes()
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path}: has SHA-256 {found}, expected {sha256}; delete the file and make it again")
    try:
        state = load_safetensors(content)
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a whole safetensors file ({error}); delete it and make it again") from error
    _check(model.state_dict(), state, path)
    model.load_state_dict(state)
    return found


def _check(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    problems = [
        ("key '{}' is missing", sorted(wanted.keys() - found.keys())),
        ("key '{}' is unknown to the model", sorted(found.keys() - wanted.keys())),
        ("key '{}' has another shape than the model's", sorted(_misshapen(wanted, found))),
        ("key '{}' holds values that are not finite", sorted(_not_finite(found))),
    ]
    for text, keys in problems:
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise WeightsError(f"{path}: {text.format(keys[0])}{more}; these are not weights of this autoencoder")


def _misshapen(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    return [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]


def _not_finite(found: dict[str, Tensor]) -> list[str]:
    return [key for key, value in found.items() if value.is_floating_point() and not torch.isfinite(value).all()]
