"""Finished trainings: running the same command again does nothing."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import sync_folder
from dcae_bench.base.leftovers import remove_parts
from dcae_bench.base.terminal import Console
from dcae_bench.models.weight_files import weights_sha256
from dcae_bench.records.record import load
from dcae_bench.training.checkpoint import CHECKPOINT
from dcae_bench.training.run_folder import is_first_process


def skip_if_finished(
    name: str, output: Path, directory: Path, recipe_sha256: str, beside: Sequence[str] = ("log.jsonl",)
) -> bool:
    """Return whether this training is finished; if it is, tell the user and remove the state left in ``directory``.

    A training is finished if ``output`` holds its complete weights, and its record and the files ``beside`` are there
    too. The record must be of this recipe. A kill after the end of a training can leave state in ``directory``.
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
    if is_first_process():
        remove_state(directory)
        remove_parts(output.parent)
        Console(stderr=True).print(f"{name}: finished before -> {output}", soft_wrap=True)
    return True


def remove_state(directory: Path) -> None:
    """Remove the state of a finished run.

    The checkpoint is removed first, so that a kill or a crash in between never leaves a checkpoint without its log.
    """
    require_claims()
    (directory / CHECKPOINT).unlink(missing_ok=True)
    if directory.exists():
        sync_folder(directory)
        shutil.rmtree(directory)
