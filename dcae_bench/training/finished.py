"""Trainings that are finished, so that the same command has nothing left to do."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dcae_bench.errors import ResultsError
from dcae_bench.models.checkpoints import weights_sha256
from dcae_bench.records import load
from dcae_bench.training.checkpoint import CHECKPOINT


def finished_before(
    name: str, output: Path, directory: Path, recipe_sha256: str, beside: Sequence[str] = ("log.jsonl",)
) -> bool:
    """Whether ``output`` holds the weights of this very recipe, whole, with its record and the files ``beside`` it.

    If so, the user is told, and what a kill left of the run's state in ``directory`` is removed.
    """
    record = output.parent / "record.json"
    if not all(path.exists() for path in (record, output, *map(output.with_name, beside))):
        return False
    try:
        made = load(record)
    except ResultsError:
        return False
    trained = made.denoiser or made.subject
    if (made.provenance.config_sha256, trained.weights_sha256) != (recipe_sha256, weights_sha256(output)):
        return False
    if os.environ.get("RANK", "0") == "0":  # of several processes one does it
        clear(directory)
        Console(stderr=True).print(f"{name}: finished before -> {output}", soft_wrap=True)
    return True


def clear(directory: Path) -> None:
    """Remove the state of a finished run.

    The checkpoint goes first: a kill in between must not leave it without the log that belongs to it.
    """
    (directory / CHECKPOINT).unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)
