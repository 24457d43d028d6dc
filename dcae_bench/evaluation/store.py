"""Store: the state of one pass on disk, by image index. Written rows survive when the process is killed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import cannot_write, write_at, write_text

META = "pass.json"


class Store:
    """Values (n, m) in float64 and features (n, dim) in float32 of n images.

    Rows are written by image index, so the files do not depend on the order of the work, on batches or on the number of
    processes. The values of a row are NaN until they are written, after the row's features. Rows are written to the
    files, not through a memory mapping, so that a full disk raises an error and does not kill the process by a signal.
    """

    def __init__(self, folder: Path, images: int, value_names: Sequence[str], features: Mapping[str, int]):
        """Describe a state without touching the disk. ``features`` maps the name of each feature file to its width."""
        self.folder, self.images = Path(folder), images
        self.value_names, self._features = tuple(value_names), dict(features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature files."""
        return tuple(self._features)

    def create(self) -> "Store":
        """Create the files, or resume the files of an interrupted pass, which then name the feature files.

        A state of other images or metrics is deleted. Raises :class:`ResultsError`.
        """
        meta = {"images": self.images, "values": list(self.value_names)}
        found = self._read_meta()
        if found is not None and {key: found[key] for key in meta} == meta:
            self._features = found["features"]
            return self
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
            with open(self.path("values"), "wb") as file:
                row = np.full(len(self.value_names), np.nan)
                for start in range(0, self.images, 1 << 16):
                    file.write(np.tile(row, (min(1 << 16, self.images - start), 1)).tobytes())
            for name, dim in self._features.items():
                with open(self.path(name), "wb") as file:
                    file.truncate(4 * dim * self.images)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_text(self.folder / META, json.dumps({**meta, "features": self._features}) + "\n")
        return self

    def open_existing(self) -> "Store":
        """Open the files that another process created. Raises :class:`ResultsError`."""
        found = self._read_meta()
        if found is None:
            raise ResultsError(f"{self.folder / META}: is missing; run the evaluation again")
        self._features = found["features"]
        return self

    def is_done(self, indices: range) -> bool:
        """Whether every row of ``indices`` is written."""
        return not np.isnan(self.values()[indices.start : indices.stop]).any()

    def write(self, indices: range, values: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        """Write the rows of consecutive images. Raises :class:`ResultsError` when the disk is full."""
        for name, rows in features.items():
            self._write(name, np.ascontiguousarray(rows, np.float32), indices.start)
        self._write("values", np.ascontiguousarray(values, np.float64), indices.start)

    def values(self) -> np.ndarray:
        """All values (n, m), mapped read-only."""
        return np.memmap(self.path("values"), np.float64, "r", shape=(self.images, len(self.value_names)))

    def features(self, name: str) -> np.ndarray:
        """All features (n, dim) of one file, mapped read-only."""
        return np.memmap(self.path(name), np.float32, "r", shape=(self.images, self._features[name]))

    def path(self, name: str) -> Path:
        """Path of a file of values or features: its rows and nothing else."""
        return self.folder / f"{name}.raw"

    def require_complete(self) -> None:
        """Check that every row is written. Raises :class:`ResultsError`."""
        missing = int(np.isnan(self.values()).any(axis=1).sum())
        if missing:
            raise ResultsError(f"{self.folder}: {missing} of {self.images} images were not measured; run it again")

    def _write(self, name: str, rows: np.ndarray, start: int) -> None:
        write_at(self.path(name), start * rows[0].nbytes, rows)

    def _read_meta(self) -> dict | None:
        try:
            return json.loads((self.folder / META).read_text())
        except (OSError, ValueError):
            return None
