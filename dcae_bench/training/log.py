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
        self._sums: dict[str, float] = {}
        self._batches = 0
        kept = [line for line in read_log(path) if line["images"] <= images]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, images: int, parts: dict[str, float]) -> None:
        """Count one batch that ended at ``images``, and write the line when it completes an interval."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._batches += 1
        if images % self.every == 0:
            means = {name: total / self._batches for name, total in self._sums.items()}
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"images": images, **means}) + "\n")
            except OSError as error:
                raise ResultsError(
                    f"{self.path}: cannot be written ({error.strerror}); free some space and run the command again"
                ) from error
            self._sums, self._batches = {}, 0


def read_log(path: Path) -> list[dict[str, float]]:
    """Lines of a log in order; an unfinished last line (a killed run) is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            lines.append(json.loads(line))
    return lines
