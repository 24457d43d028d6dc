"""A packed array: a ``.npy`` file that fills batch by batch and keeps its finished rows when a process is killed."""

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dcae_bench.base.files import cannot_write, require_free_space, write_at, write_text


class PackedArray:
    """An unfinished ``.npy`` file in a hidden folder beside its final path, with a flag for each row that is written.

    Several processes may write different rows. The flags of a batch are set after its rows are written, so a kill in
    between loses no more than that batch.
    """

    def __init__(self, path: Path, recipe_sha256: str, shape: Sequence[int], dtype: str):
        """Describe the array that will be at ``path``. ``recipe_sha256`` identifies all that shapes the array."""
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        self.folder = self.path.parent / f".{self.path.stem}-{recipe_sha256[:12]}"
        self._array, self._done, self._meta = (self.folder / name for name in (self.path.name, "done.raw", "recipe"))
        self._recipe_sha256 = recipe_sha256
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": self.shape})
        self.header = buffer.getvalue()
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def create_or_resume(self) -> None:
        """Create the unfinished array, or keep the one of an interrupted pass; remove those of other recipes.

        Raises :class:`ResultsError` where the disk has too little space or the folder cannot be written.
        """
        for folder in self.path.parent.glob(f".{self.path.stem}-*"):
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)
        try:
            if self._meta.read_text() == self._recipe_sha256:
                # All rows are written but the array is gone: the pass was killed after `move_into_place` and before
                # the files that go with the array were written. Take the array back.
                if not self._array.exists() and self.written().all():
                    self.path.replace(self._array)
                if self._array.exists():
                    return
        except OSError:
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        size = len(self.header) + self.shape[0] * self._row_bytes
        require_free_space(self.folder, size >> 20)
        try:
            self.folder.mkdir(parents=True)
            self._done.write_bytes(bytes(self.shape[0]))
            with open(self._array, "wb") as file:
                file.write(self.header)
                file.truncate(size)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_text(self._meta, self._recipe_sha256)

    def written(self) -> np.ndarray:
        """Return for each row whether it is written, bool (n,)."""
        return np.frombuffer(self._done.read_bytes(), np.bool_)

    def unfinished(self, batches: Sequence[range]) -> list[range]:
        """Return the batches with at least one row that is not written."""
        written = self.written()
        return [batch for batch in batches if not written[batch.start : batch.stop].all()]

    def write(self, rows: range, content: np.ndarray) -> None:
        """Write consecutive rows. Raises :class:`ResultsError` where the file cannot be written."""
        write_at(self._array, len(self.header) + rows.start * self._row_bytes, content.astype(self.dtype, copy=False))
        write_at(self._done, rows.start, np.ones(len(rows), np.bool_))

    def read_chunks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the array from its first row to its last, ``rows`` rows at a time."""
        with open(self._array, "rb") as file:
            file.seek(len(self.header))
            while content := file.read(rows * self._row_bytes):
                yield np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def move_into_place(self) -> None:
        """Move the finished array to its final path. Raises :class:`ResultsError`."""
        try:
            self._array.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def remove(self) -> None:
        """Remove the hidden folder of a finished pass."""
        shutil.rmtree(self.folder, ignore_errors=True)
