"""A packed array: a ``.npy`` file that fills batch by batch and keeps its finished rows when a process is killed."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dcae_bench.base.claims import require_claims
from dcae_bench.base.files import cannot_write, sync_folder
from dcae_bench.base.leftovers import remove_folders
from dcae_bench.base.row_files import Layout, RowFiles, read_state


class PackedArray(RowFiles):
    """An unfinished ``.npy`` file in a hidden folder beside its final path. Several processes may write its rows."""

    def __init__(self, path: Path, recipe_sha256: str, shape: Sequence[int], dtype: str):
        """Describe the array that will be at ``path``. ``recipe_sha256`` identifies all that shapes the array."""
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": self.shape})
        self.header = buffer.getvalue()
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        folder = self.path.parent / f".{self.path.stem}-{recipe_sha256[:12]}"
        layouts = {self.path.name: Layout(self._row_bytes, self.header)}
        super().__init__(folder, self.shape[0], recipe_sha256, layouts)
        self._array = self.folder / self.path.name

    def create_or_resume(self) -> None:
        """Create the unfinished array, or keep the sound rows of an interrupted pass; remove those of other recipes.

        Raises :class:`ResultsError` where the disk has too little space or the folder cannot be written.
        """
        remove_folders(self.path.parent, self.path.stem, keep=self.folder)
        try:
            # All rows are written but the array is gone: the pass was interrupted after `move_into_place` and before
            # the files that go with the array were written. Take the array back; its checksums say whether it is ours.
            if read_state(self.folder) == self.state and not self._array.exists() and self.written().all():
                self.path.replace(self._array)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        super().create_or_resume()

    def write_rows(self, rows: range, content: np.ndarray) -> None:
        """Write consecutive rows. Raises :class:`ResultsError` where the file cannot be written."""
        self.write(rows, {self.path.name: content.astype(self.dtype, copy=False)})

    def read_chunks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the array from its first row to its last, ``rows`` rows at a time."""
        with open(self._array, "rb") as file:
            file.seek(len(self.header))
            while content := file.read(rows * self._row_bytes):
                yield np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def move_into_place(self) -> None:
        """Move the finished array, which is on disk, to its final path. Raises :class:`ResultsError`."""
        require_claims()
        try:
            self._array.replace(self.path)
            sync_folder(self.path.parent)
            sync_folder(self.folder)
        except OSError as error:
            raise cannot_write(self.path, error) from error
