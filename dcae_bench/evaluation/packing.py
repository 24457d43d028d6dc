"""An array on disk that grows row by row: what is written stays when the process is killed."""

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dcae_bench.files import cannot_write, require_room, write_at, write_text


class PackedArray:
    """A ``.npy`` file on its way, in a folder of its own beside its place, with a list of the rows that are written.

    Several processes may write different rows. Rows are listed after they are written, so that a kill between both
    loses no more than its batch.
    """

    def __init__(self, path: Path, recipe_sha256: str, shape: Sequence[int], dtype: str):
        """Describe the array that will be ``path``; ``recipe_sha256`` stands for all that shapes it."""
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        self.folder = self.path.parent / f".{self.path.stem}-{recipe_sha256[:12]}"
        self._array, self._done, self._meta = (self.folder / name for name in (self.path.name, "done.raw", "recipe"))
        self._recipe_sha256 = recipe_sha256
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": self.shape})
        self.header = buffer.getvalue()
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def create(self) -> None:
        """Make the files, or take up those of an interrupted pass; those of other recipes go.

        Raises :class:`ResultsError` where they have no room.
        """
        for folder in self.path.parent.glob(f".{self.path.stem}-*"):
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)
        try:
            if self._meta.read_text() == self._recipe_sha256:
                # Where it is not, it was killed between putting the array into place and writing what goes with it.
                if not self._array.exists() and self.done().all():
                    self.path.replace(self._array)
                if self._array.exists():
                    return
        except OSError:
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        size = len(self.header) + self.shape[0] * self._row_bytes
        require_room(self.folder, size >> 20)
        try:
            self.folder.mkdir(parents=True)
            self._done.write_bytes(bytes(self.shape[0]))
            with open(self._array, "wb") as file:
                file.write(self.header)
                file.truncate(size)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_text(self._meta, self._recipe_sha256)

    def done(self) -> np.ndarray:
        """Which rows are written (bool)."""
        return np.frombuffer(self._done.read_bytes(), np.bool_)

    def missing(self, batches: Sequence[range]) -> list[range]:
        """The batches that have a row which is not written."""
        done = self.done()
        return [batch for batch in batches if not done[batch.start : batch.stop].all()]

    def write(self, rows: range, content: np.ndarray) -> None:
        """Write consecutive rows. Raises :class:`ResultsError` when there is no room."""
        write_at(self._array, len(self.header) + rows.start * self._row_bytes, content.astype(self.dtype, copy=False))
        write_at(self._done, rows.start, np.ones(len(rows), np.bool_))

    def contents(self, rows: int) -> Iterator[np.ndarray]:
        """The array from its first row to its last, ``rows`` at a time."""
        with open(self._array, "rb") as file:
            file.seek(len(self.header))
            while content := file.read(rows * self._row_bytes):
                yield np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def put_into_place(self) -> None:
        """Move the finished array. Raises :class:`ResultsError`."""
        try:
            self._array.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def forget(self) -> None:
        """Remove the state of a finished pass."""
        shutil.rmtree(self.folder, ignore_errors=True)
