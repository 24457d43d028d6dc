"""The training log: one JSON line per interval, with means over the interval's batches."""

import json
from pathlib import Path

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import read_bytes, write_text
from dcae_bench.base.reading import parse_json


class TrainingLog:
    """Appends means over intervals to a JSONL file. Continuing a run drops the lines after its checkpoint."""

    def __init__(self, path: Path, images: int, *, every: int, begun: dict[str, list[float]] | None = None):
        """Open the log of a run that has trained on ``images`` images; ``every`` is the interval in images.

        ``begun`` is the interval that a stopped run had begun.
        """
        self.path, self.every = path, every
        self.begun: dict[str, list[float]] = {name: list(sums) for name, sums in (begun or {}).items()}
        """Sum and number of the values of each name, since the last line."""
        kept = [line for line in read_log(path) if line["images"] <= images]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, images: int, parts: dict[str, float]) -> None:
        """Add the values of the batch that ended at ``images``, and write a line when that completes an interval.

        A value that some batches lack is averaged over the batches that have it. Raises :class:`ResultsError` where
        the file cannot be written.
        """
        for name, value in parts.items():
            total = self.begun.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
        if images % self.every == 0:
            means = {name: total / batches for name, (total, batches) in self.begun.items()}
            require_claims()
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"images": images, **means}) + "\n")
            except OSError as error:
                raise ResultsError(
                    f"{self.path}: cannot be written ({error.strerror}); free some space and run the command again"
                ) from error
            self.begun = {}


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the lines of a log in order. A killed run may leave an unfinished last line, which is skipped.

    Raises :class:`ResultsError` for a file that cannot be read and for a damaged line.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    return [_parse(line, f"{path}: line {number}") for number, line in enumerate(content.split(b"\n")[:-1], start=1)]


def _parse(line: bytes, where: str) -> dict[str, float]:
    """Check one line. Raises :class:`ResultsError`, which begins with ``where``."""
    remedy = "delete the folder of the run to start it again"
    try:
        found = parse_json(line)
    except ValueError as error:
        raise ResultsError(f"{where} is damaged ({error}); {remedy}") from error
    if not isinstance(found, dict) or "images" not in found:
        raise ResultsError(f"{where} is damaged (it is no line of a log); {remedy}")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ResultsError(f"{where} is damaged ('{name}' is no number); {remedy}")
    return found
