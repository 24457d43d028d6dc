"""Row files: files of equally long rows that fill block by block, and go on after a kill or a crash of the machine."""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dcae_bench.base.claims import require_claims
from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import (
    cannot_write,
    make_folder,
    require_free_space,
    sha256_json,
    sync_file,
    sync_folder,
    write_at,
    write_text,
)
from dcae_bench.base.leftovers import Hold

STATE, DONE = "state.json", "done"
COMMIT_S = 5.0
"""Seconds between two commits; a kill or a crash loses the rows since the last one."""
CHECK_BYTES = 16


@dataclass(frozen=True)
class Layout:
    """Layout of one file: a header, then rows of ``row_bytes`` bytes each."""

    row_bytes: int
    header: bytes = b""


class RowFiles:
    """Unfinished files in one folder. Rows are written by index, by any number of processes.

    Each process has a journal, ``done-<token>``, with a line for each block of rows that is written: its rows, a
    checksum of the rows in each file, and a checksum of the line. Lines are written by :meth:`commit`, after the rows
    themselves are on disk. After an interruption every block is read again and held against its checksum; a block that
    does not fit is written again. Use it as a context: its end commits.
    """

    def __init__(self, folder: Path, rows: int, identity: object, layouts: Mapping[str, Layout]):
        """Describe files by name without touching the disk. ``identity`` (JSON) says what the rows are."""
        self.folder, self.rows, self.layouts = Path(folder), rows, dict(layouts)
        self.state = {
            "identity": identity,
            "rows": rows,
            "bytes": {name: self.size(name) for name in layouts},
            "headers": {name: layout.header.hex() for name, layout in layouts.items()},
        }
        self._key = bytes.fromhex(sha256_json(self.state))
        self._journal = self.folder / f"{DONE}-{secrets.token_hex(8)}"
        self._pending: list[dict] = []
        self._committed = time.monotonic()

    def size(self, name: str) -> int:
        """Length in bytes of a finished file."""
        layout = self.layouts[name]
        return len(layout.header) + self.rows * layout.row_bytes

    def create_or_resume(self) -> None:
        """Create the files, or check those of an interrupted pass and keep the blocks that fit their checksums.

        State of another identity is removed. Only one process may call this, before the others call :meth:`join`.
        Raises :class:`ResultsError` where the disk has too little space or the folder cannot be written.
        """
        try:
            if read_state(self.folder) == self.state:
                self._resume()
            else:
                self._create()
            self._hold.share()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def join(self) -> None:
        """Take part in the pass that another process created. Raises :class:`ResultsError`."""
        if read_state(self.folder) != self.state:
            raise ResultsError(f"{self.folder / STATE}: is missing; run the same command again")
        try:
            self._hold = Hold(self.folder)
            self._hold.share()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def written(self) -> np.ndarray:
        """Return for each row whether it is written, bool (n,). Rows that no commit covers count as not written."""
        found = np.zeros(self.rows, np.bool_)
        for block in self._read_journals():
            found[block["start"] : block["stop"]] = True
        return found

    def unfinished(self, batches: Sequence[range]) -> list[range]:
        """Return the batches with at least one row that is not written."""
        written = self.written()
        return [batch for batch in batches if not written[batch.start : batch.stop].all()]

    def write(self, rows: range, contents: Mapping[str, np.ndarray]) -> None:
        """Write consecutive rows into every file. Raises :class:`ResultsError` where a file cannot be written."""
        hashes = {}
        for name, layout in self.layouts.items():
            content = np.ascontiguousarray(contents[name])
            write_at(self.folder / name, len(layout.header) + rows.start * layout.row_bytes, content)
            hashes[name] = _check(content.data.cast("B"))
        self._pending.append({"start": rows.start, "stop": rows.stop, "hashes": hashes})
        if time.monotonic() - self._committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Wait until the written rows are on disk, and then say in the journal that they are there.

        Raises :class:`ResultsError`.
        """
        if self._pending:
            require_claims()
            try:
                for name in self.layouts:
                    sync_file(self.folder / name)
                with open(self._journal, "ab") as file:
                    file.write(b"".join(map(self._line, self._pending)))
                    file.flush()
                    os.fsync(file.fileno())
                sync_folder(self.folder)
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            self._pending.clear()
        self._committed = time.monotonic()

    def remove(self) -> None:
        """Remove the folder of a finished pass. Raises :class:`ResultsError`."""
        require_claims()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
        except ResultsError:
            if kind is None:  # an error that is on its way already says more
                raise

    def _create(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        require_free_space(self.folder, sum(map(self.size, self.layouts)) >> 20)
        make_folder(self.folder)
        self._hold = Hold(self.folder)
        for name in self.layouts:
            self._restore(name)
        # The state is written last: what it describes is there. The folder is synced with it.
        write_text(self.folder / STATE, json.dumps(self.state) + "\n")

    def _resume(self) -> None:
        self._hold = Hold(self.folder)
        if not self._hold.alone:  # a living command has checked the blocks, and adds to its journal
            return
        for name in self.layouts:
            self._restore(name)
        sound = [block for block in self._read_journals() if self._fits(block)]
        journals = self._journals()
        # One journal takes the place of all. It is on disk before the others are removed.
        write_text(self.folder / f"{DONE}-{secrets.token_hex(8)}", b"".join(map(self._line, sound)).decode())
        for journal in journals:
            journal.unlink(missing_ok=True)

    def _restore(self, name: str) -> None:
        """Give a file its header and its length. Rows that this adds are zeros, which fit no checksum of a block."""
        layout = self.layouts[name]
        path = self.folder / name
        with open(path, "r+b" if path.exists() else "w+b") as file:
            if file.read(len(layout.header)) != layout.header:
                file.seek(0)
                file.write(layout.header)
            file.truncate(self.size(name))
            file.flush()
            os.fsync(file.fileno())

    def _fits(self, block: dict) -> bool:
        """Whether the rows of a block are what was written."""
        if block["hashes"].keys() != self.layouts.keys():
            return False
        for name, layout in self.layouts.items():
            with open(self.folder / name, "rb") as file:
                file.seek(len(layout.header) + block["start"] * layout.row_bytes)
                if _check(file.read((block["stop"] - block["start"]) * layout.row_bytes)) != block["hashes"][name]:
                    return False
        return True

    def _journals(self) -> list[Path]:
        return sorted(self.folder.glob(f"{DONE}-*"))

    def _read_journals(self) -> list[dict]:
        """All blocks of whole lines; what a crash left of other lines is skipped."""
        blocks = []
        try:
            contents = [journal.read_bytes() for journal in self._journals()]
        except OSError as error:
            raise ResultsError(f"{self.folder}: cannot be read ({error.strerror}); run the command again") from error
        for line in b"".join(contents).split(b"\n"):
            check, _, text = line.partition(b" ")
            if check == _check(text, self._key).encode():
                blocks.append(json.loads(text))
        return blocks

    def _line(self, block: dict) -> bytes:
        text = json.dumps(block, separators=(",", ":")).encode()
        return _check(text, self._key).encode() + b" " + text + b"\n"


def read_state(folder: Path) -> dict | None:
    """State of the unfinished files in ``folder``; None where there is none that can be read."""
    try:
        return json.loads((Path(folder) / STATE).read_bytes())
    except (OSError, ValueError):
        return None


def _check(content: bytes | memoryview, key: bytes = b"") -> str:
    return hashlib.blake2b(content, digest_size=CHECK_BYTES, key=key).hexdigest()
