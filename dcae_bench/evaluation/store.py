"""The state of one evaluation on disk, by image index: what is written stays when the process is killed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dcae_bench.errors import ResultsError
from dcae_bench.files import cannot_write, write_at, write_text

META = "pass.json"


class Store:
    """Values (n, m) in float64 and features (n, dim) in float32 of n images.

    Rows are written by index, so that the order of the work, its batches and the number of processes leave no trace.
    Values are the last thing written of a row, and are NaN until then. Files grow by writes, not through a mapping:
    a full disk is then an error and not a signal.
    """

    def __init__(self, folder: Path, images: int, value_names: Sequence[str], features: Mapping[str, int]):
        """Describe a state; :meth:`create` makes it. ``features`` maps the name of each file to its width."""
        self.folder, self.images = Path(folder), images
        self.value_names, self._features = tuple(value_names), dict(features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature files."""
        return tuple(self._features)

    def create(self) -> "Store":
        """Make the files, or take up those of an interrupted evaluation with their feature files.

        A state of other images or metrics is discarded. Raises :class:`ResultsError`.
        """
        meta = {"images": self.images, "values": list(self.value_names)}
        found = self._read_meta()
        if found is not None and {key: found[key] for key in meta} == meta:
            self._features = found["features"]
            return self
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
            with open(self._path("values"), "wb") as file:
                row = np.full(len(self.value_names), np.nan)
                for start in range(0, self.images, 1 << 16):
                    file.write(np.tile(row, (min(1 << 16, self.images - start), 1)).tobytes())
            for name, dim in self._features.items():
                with open(self._path(name), "wb") as file:
                    file.truncate(4 * dim * self.images)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_text(self.folder / META, json.dumps({**meta, "features": self._features}) + "\n")
        return self

    def take_up(self) -> "Store":
        """Open what another process has made. Raises :class:`ResultsError`."""
        found = self._read_meta()
        if found is None:
            raise ResultsError(f"{self.folder / META}: is missing; run the evaluation again")
        self._features = found["features"]
        return self

    def done(self, indices: range) -> bool:
        """Whether every row of ``indices`` was written."""
        return not np.isnan(self.values()[indices.start : indices.stop]).any()

    def write(self, indices: range, values: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        """Write the rows of consecutive images. Raises :class:`ResultsError` when there is no room."""
        for name, rows in features.items():
            self._write(name, np.ascontiguousarray(rows, np.float32), indices.start)
        self._write("values", np.ascontiguousarray(values, np.float64), indices.start)

    def values(self) -> np.ndarray:
        """All values (n, m), mapped read-only."""
        return np.memmap(self._path("values"), np.float64, "r", shape=(self.images, len(self.value_names)))

    def features(self, name: str) -> np.ndarray:
        """All features (n, dim) of one file, mapped read-only."""
        return np.memmap(self.path(name), np.float32, "r", shape=(self.images, self._features[name]))

    def path(self, name: str) -> Path:
        """The file of some features: float32 rows, nothing else."""
        return self._path(name)

    def require_complete(self) -> None:
        """Check that every image was counted. Raises :class:`ResultsError`."""
        missing = int(np.isnan(self.values()).any(axis=1).sum())
        if missing:
            raise ResultsError(f"{self.folder}: {missing} of {self.images} images were not measured; run it again")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.raw"

    def _write(self, name: str, rows: np.ndarray, start: int) -> None:
        write_at(self._path(name), start * rows[0].nbytes, rows)

    def _read_meta(self) -> dict | None:
        try:
            return json.loads((self.folder / META).read_text())
        except (OSError, ValueError):
            return None
