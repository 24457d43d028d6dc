"""Store: the state of one pass on disk, by image index. Written rows survive a kill and a crash of the machine."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.leftovers import remove_folders
from dcae_bench.base.row_files import Layout, RowFiles, read_state

VALUES = "values"
FLOAT64, FLOAT32 = 8, 4


class Store:
    """Values (n, m) in float64 and features (n, dim) in float32 of n images.

    Rows are written by image index, so the files do not depend on the order of the work, on batches or on the number of
    processes. Rows are written to the files, not through a memory mapping, so that a full disk raises an error and does
    not kill the process by a signal. Use it as a context while writing: its end commits.
    """

    def __init__(self, folder: Path, images: int, value_names: Sequence[str], features: Mapping[str, int]):
        """Describe a state without touching the disk. ``features`` maps the name of each feature file to its width.

        Without ``value_names`` there is no file of values.
        """
        self.folder, self.images = Path(folder), images
        self.value_names = tuple(value_names)
        self._describe(features)

    def _describe(self, features: Mapping[str, int]) -> None:
        self._features = dict(features)
        layouts = {VALUES: Layout(FLOAT64 * len(self.value_names))} if self.value_names else {}
        layouts |= {name: Layout(FLOAT32 * dim) for name, dim in self._features.items()}
        identity = {"images": self.images, "values": list(self.value_names), "features": self._features}
        self._files = RowFiles(
            self.folder, self.images, identity, {f"{name}.raw": layout for name, layout in layouts.items()}
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature files."""
        return tuple(self._features)

    def create(self) -> "Store":
        """Create the files, or resume the files of an interrupted pass, which then name the feature files.

        A state of other images or metrics, or without some of the features, is deleted. Raises :class:`ResultsError`.
        """
        found = self._found()
        if found is not None and set(self._features) <= set(found):
            self._describe(found)
        self._files.create_or_resume()
        return self

    def open_existing(self) -> "Store":
        """Open the files that another process created. Raises :class:`ResultsError`."""
        found = self._found()
        if found is None:
            raise ResultsError(f"{self.folder}: holds no state of a pass; run the evaluation again")
        self._describe(found)
        self._files.join()
        return self

    def unfinished(self, batches: Sequence[range]) -> list[range]:
        """Return the batches with at least one row that is not written."""
        return self._files.unfinished(batches)

    def write(self, indices: range, features: Mapping[str, np.ndarray], values: np.ndarray | None = None) -> None:
        """Write the rows of consecutive images. Raises :class:`ResultsError` when the disk is full."""
        contents = {f"{name}.raw": np.asarray(features[name], np.float32) for name in self._features}
        if self.value_names:
            contents[f"{VALUES}.raw"] = np.asarray(values, np.float64)
        self._files.write(indices, contents)

    def values(self) -> np.ndarray:
        """All values (n, m), mapped read-only."""
        return np.memmap(self.path(VALUES), np.float64, "r", shape=(self.images, len(self.value_names)))

    def features(self, name: str) -> np.ndarray:
        """All features (n, dim) of one file, mapped read-only."""
        return np.memmap(self.path(name), np.float32, "r", shape=(self.images, self._features[name]))

    def path(self, name: str) -> Path:
        """Path of a file of values or features: its rows and nothing else."""
        return self.folder / f"{name}.raw"

    def require_complete(self) -> None:
        """Check that every row is written. Raises :class:`ResultsError`."""
        missing = int((~self._files.written()).sum())
        if missing:
            raise ResultsError(f"{self.folder}: {missing} of {self.images} images were not measured; run it again")

    def __enter__(self) -> "Store":
        self._files.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def _found(self) -> dict[str, int] | None:
        """Features of the state in the folder; None where there is none of these images and values."""
        identity = (read_state(self.folder) or {}).get("identity")
        own = {"images": self.images, "values": list(self.value_names)}
        if not isinstance(identity, dict) or {key: identity.get(key) for key in own} != own:
            return None
        return identity["features"]


def remove_other_states(folder: Path) -> None:
    """Remove the states of killed passes of other recipes beside ``folder``, ``.<stem>-<12 hex digits>``."""
    remove_folders(folder.parent, folder.name[1:].rpartition("-")[0], keep=folder)


def forget(folder: Path) -> None:
    """Delete the state of a finished pass. Do not use its arrays afterwards. Raises :class:`ResultsError`."""
    require_claims()
    shutil.rmtree(folder, ignore_errors=True)
