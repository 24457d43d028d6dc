"""The log of a run: one JSON line per interval, each the mean over its batches."""

import json
from pathlib import Path

from dcae_bench.errors import ResultsError
from dcae_bench.files import write_text


class TrainingLog:
    """Appends interval means to a JSONL file; after an interruption, lines past the checkpoint are dropped."""

    def __init__(self, path: Path, images: int, *, every: int):
        """Continue the log of a run that stands at ``images``; ``every`` is the interval in images."""
        self.path, self.every = path, every
        self._seen: dict[str, list[float]] = {}
        kept = [line for line in read_log(path) if line["images"] <= images]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, images: int, parts: dict[str, float]) -> None:
        """Count one batch that ended at ``images``, and write the line when it completes an interval.

        A part that not every batch has is averaged over those that have it.
        """
        for name, value in parts.items():
            total = self._seen.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
        if images % self.every == 0:
            means = {name: total / batches for name, (total, batches) in self._seen.items()}
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"images": images, **means}) + "\n")
            except OSError as error:
                raise ResultsError(
                    f"{self.path}: cannot be written ({error.strerror}); free some space and run the command again"
                ) from error
            self._seen = {}


def read_log(path: Path) -> list[dict[str, float]]:
    """Lines of a log in order; an unfinished last line (a killed run) is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            lines.append(json.loads(line))
    return lines
