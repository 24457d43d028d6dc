"""The folder of an unfinished training: one for each recipe, and one command at a time in it."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from platform import node
from typing import Any

from dcae_bench.base.errors import TrainingError
from dcae_bench.base.files import write_text
from dcae_bench.records.provenance import git_state
from dcae_bench.running.output_lock import lock_of, sole_writer
from dcae_bench.running.processes import PATIENCE, meeting_place
from dcae_bench.training.checkpoint import CHECKPOINT

RECIPE = "recipe.json"
SHOWN = 6
"""Differing fields of a recipe that one line names."""
VISIBLE_S = 60.0
"""Seconds until a network file system must show a new file to other machines."""


@contextmanager
def sole_training(output: Path, directory: Path) -> Iterator[None]:
    """Hold the locks of a training's weights file ``output`` and of its run's folder ``directory``.

    Waits while another command holds them. A command with several processes does not wait, because its other processes
    could not tell how long: it raises :class:`ResultsError`. These wait until the first process has the locks, so that
    none of them looks at the folder while another command may still write there.
    """
    count, first = int(os.environ.get("WORLD_SIZE", "1")), is_first_process()
    with ExitStack() as held:
        if first:
            held.enter_context(sole_writer(directory, wait=count == 1))
            held.enter_context(sole_writer(output, wait=count == 1))
        if count > 1:
            store = meeting_place()
            if first:
                seen = {"run": directory.name, "host": node(), "lock": lock_of(directory).exists()}
                store.set("training", json.dumps(seen))
                # The first process may serve the notes, so it goes on when all have read them.
                store.wait([f"training {rank}" for rank in range(1, count)], PATIENCE)
            else:
                store.wait(["training"], PATIENCE)
                require_same_run(directory, json.loads(store.get("training")))
                store.set(f"training {os.environ['RANK']}", "read")
        yield


def require_same_run(directory: Path, seen: dict[str, Any]) -> None:
    """Check that this process means the run of the first one, and sees its lock. Raises :class:`TrainingError`."""
    if seen["run"] != directory.name:
        raise TrainingError(
            f"{directory}: is of another recipe than the run {seen['run']} of this command on {seen['host']}; use the "
            "same code, profile and data on all nodes"
        )
    deadline = time.monotonic() + VISIBLE_S
    while seen["lock"] and not lock_of(directory).exists():
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{directory}: {seen['host']} has locked this run's folder, and {node()} does not see the lock; keep "
                "the run's folder on a file system that all nodes share"
            )
        time.sleep(0.1)


def is_first_process() -> bool:
    """Whether this is the first process of the command, before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


def keep_recipe(name: str, directory: Path, recipe: dict[str, Any]) -> None:
    """Write the recipe of a run into its folder, and tell the user of checkpoints of other recipes beside it.

    Those are not used: a run never goes on from another recipe.
    """
    if not is_first_process():
        return
    if not (directory / CHECKPOINT).exists():
        for line in unused_checkpoints(directory, recipe):
            print(f"{name}: {line}", file=sys.stderr, flush=True)
    if not (directory / RECIPE).exists():
        commit, dirty = git_state()
        kept = {"commit": commit, "dirty": dirty, "recipe": recipe}
        write_text(directory / RECIPE, json.dumps(kept, indent=2, sort_keys=True) + "\n")


def unused_checkpoints(directory: Path, recipe: dict[str, Any]) -> list[str]:
    """One line for each checkpoint that another recipe left beside ``directory`` or, in older layouts, above it.

    Checkpoints of another phase, whose run shares the folder, are not named.
    """
    lines = []
    recipe = json.loads(json.dumps(recipe))  # as it is read from a file: tuples are lists
    for checkpoint in sorted([*directory.parent.glob(f"*/{CHECKPOINT}"), *directory.parent.glob(CHECKPOINT)]):
        if checkpoint.parent == directory:
            continue
        try:
            kept = json.loads((checkpoint.parent / RECIPE).read_text())
            fields, commit, dirty = differing(kept["recipe"], recipe), kept["commit"], kept["dirty"]
        except (OSError, ValueError, KeyError, TypeError):
            lines.append(
                f"{checkpoint}: is not used, its recipe is unknown, because an older version of this program wrote it; "
                "to go on from it, go back to that version, else delete it"
            )
            continue
        if "phase" in fields:
            continue
        shown = fields[:SHOWN] + ([f"{len(fields) - SHOWN} more"] if len(fields) > SHOWN else [])
        edits = " with its uncommitted changes" if dirty else ""
        code = f"check out the code of commit {commit[:12]}{edits}" if commit else "take back the code that wrote it"
        remedies = ([code] if "code" in fields else []) + (["set these fields back"] if fields != ["code"] else [])
        lines.append(
            f"{checkpoint}: is not used, its recipe differs in {', '.join(shown)}; to go on from it, "
            f"{' and '.join(remedies)}, then run the same command again"
        )
    return lines


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of the fields in which two recipes differ, with dots between the levels."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [name]
    found: list[str] = []
    for key in sorted({*one, *other}):
        path = f"{name}.{key}" if name else key
        if (key in one) != (key in other):
            found.append(path)
        else:
            found += differing(one[key], other[key], path) if key in one else []
    return found
