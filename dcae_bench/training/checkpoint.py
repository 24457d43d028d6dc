"""The checkpoint: the state of an unfinished training on disk."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from dcae_bench.base.errors import TrainingError
from dcae_bench.base.files import require_regular_file, write_with

CHECKPOINT = "checkpoint.pt"
DIVERGED = "diverged.pt"


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state atomically: a kill at any moment leaves the last complete checkpoint.

    Raises :class:`ResultsError` where the file cannot be written.
    """
    write_with(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path, recipe_sha256: str) -> dict[str, Any] | None:
    """Read a checkpoint; None where there is no file. Reading runs no code: a state is tensors and plain values.

    Raises :class:`TrainingError` for a damaged file, and for a checkpoint of another recipe.
    """
    if not path.exists():
        return None
    try:
        require_regular_file(path)
        _require_checksums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["recipe_sha256"]
    except Exception as error:  # torch's reader raises many kinds of errors for damaged bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{path}: cannot be read ({reason}); delete it to start the phase again") from error
    if found != recipe_sha256:
        raise TrainingError(
            f"{path}: belongs to recipe {found[:12]}, this run is {recipe_sha256[:12]}; delete it to "
            "start the phase again"
        )
    return state


def _require_checksums(path: Path) -> None:
    """Check the checksum that torch's format, a zip file, keeps of each tensor; torch itself does not check them."""
    with ZipFile(path) as file:
        if (damaged := file.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} does not fit")
