"""Reading every image of a data set once: what is found is remembered, so that an interrupted scan goes on."""

import hashlib
import itertools
import multiprocessing
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from dcae_bench.data.decode import ImageError, open_image, read_file
from dcae_bench.data.layout import Listed
from dcae_bench.errors import DataError
from dcae_bench.files import cache_dir

VERSION = 1
"""Goes up when a file would be read differently: what older versions remembered is then read again."""
CHUNK = 8
"""Files that go to a process at a time; a killed scan loses those under way."""
WRITE_S = 1.0
"""Seconds between two writes; what a killed scan may lose besides."""


class Reading(NamedTuple):
    """What one file is. A file with a ``problem`` has no size or mode."""

    bytes: int
    sha256: str
    width: int
    height: int
    mode: str
    problem: str | None = None
    detail: str = ""


def read_image_file(path: Path) -> Reading:
    """Read, hash and decode one file."""
    try:
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        image = open_image(content, path)
    except ImageError as error:
        return Reading(0, "", 0, 0, "", error.problem, error.detail)
    return Reading(len(content), sha256, image.width, image.height, image.mode)


class Memory:
    """Readings of a root's sound files by path, size and modification time, on disk in the user's cache directory.

    A file whose size or time (in nanoseconds) changed is read again, and so is one that had a problem. All splits and
    profiles of a root share it; deleting the file costs reading everything again and nothing else.
    """

    def __init__(self, root: Path):
        """Open the memory of ``root``. Raises :class:`DataError` where the file is damaged or cannot be written."""
        name = hashlib.sha256(os.path.realpath(root).encode(errors="surrogateescape")).hexdigest()[:24]
        self.path = cache_dir() / "images" / f"{name}-v{VERSION}.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=60)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS readings (path TEXT PRIMARY KEY, mtime_ns INTEGER, bytes INTEGER, "
                "sha256 TEXT, width INTEGER, height INTEGER, mode TEXT) WITHOUT ROWID"
            )
            self._connection.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from error
        self._rows: list[tuple] = []
        self._written = time.monotonic()

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_) -> None:
        with closing(self._connection):
            self._write()

    def recall(self, stats: dict[str, os.stat_result | None]) -> dict[str, Reading]:
        """Readings of those files that are as they were."""
        marks = ",".join("?" * len(stats))
        query = f"SELECT path, mtime_ns, bytes, sha256, width, height, mode FROM readings WHERE path IN ({marks})"
        found = {}
        try:
            for path, mtime_ns, size, *rest in self._connection.execute(query, list(stats)):
                stat = stats[path]
                if stat is not None and (stat.st_mtime_ns, stat.st_size) == (mtime_ns, size):
                    found[path] = Reading(size, *rest)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return found

    def remember(self, readings: Iterable[tuple[str, os.stat_result | None, Reading]]) -> None:
        """Keep sound readings; they are on disk within a second or so."""
        self._rows += [
            (path, stat.st_mtime_ns, *reading[:5])
            for path, stat, reading in readings
            if stat is not None and reading.problem is None and reading.bytes == stat.st_size
        ]
        if time.monotonic() - self._written > WRITE_S:
            self._write()

    def _write(self) -> None:
        # In one short transaction, so that another scan of the same root does not wait for its turn.
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)", self._rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        self._rows.clear()
        self._written = time.monotonic()

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: cannot be used ({error}); delete it or set $DCAE_BENCH_CACHE to another folder")


def scan(
    root: Path,
    images: Iterable[Listed],
    memory: Memory,
    *,
    workers: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Listed, Reading]]:
    """Every image with its reading, in order; ``progress`` is told how many are done.

    Chunks go to ``workers`` processes (1: this one); only a few of them are under way at a time, whatever the number of
    images. Raises :class:`DataError` where the memory or a worker fails; a bad image is a reading like others.
    """
    pool = None
    if workers > 1:
        # Not forked: the parent may have threads. Workers import this module and little else.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    ahead = 2 * workers if pool else 0
    pending: deque[_Chunk] = deque()
    done = 0

    def finish(most: int) -> Iterator[tuple[Listed, Reading]]:
        nonlocal done
        while len(pending) > most:
            finished = pending.popleft().finish(memory)
            yield from finished
            done += len(finished)
            progress(done)

    try:
        for images_of_chunk in _chunks(images):
            pending.append(_Chunk(root, images_of_chunk, memory, pool))
            yield from finish(ahead)
        yield from finish(0)
    except BrokenProcessPool as error:
        raise DataError(
            f"{root}: a process that read images was killed, perhaps for want of memory; prepare again with fewer "
            "--workers"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


class _Chunk:
    """Images that are read together, by a pool if there is one."""

    def __init__(self, root: Path, images: list[Listed], memory: Memory, pool: ProcessPoolExecutor | None):
        self.images = images
        self.stats = {image.path: _stat(root / image.path) for image in images}
        self.known = memory.recall(self.stats)
        self.wanted = [path for path in self.stats if path not in self.known]
        self.paths = [root / path for path in self.wanted]
        self.future: Future | None = pool.submit(_read, self.paths) if pool and self.paths else None

    def finish(self, memory: Memory) -> list[tuple[Listed, Reading]]:
        readings = self.future.result() if self.future else _read(self.paths)
        found = dict(zip(self.wanted, readings, strict=True))
        memory.remember((path, self.stats[path], reading) for path, reading in found.items())
        return [(image, self.known.get(image.path) or found[image.path]) for image in self.images]


def _chunks(images: Iterable[Listed]) -> Iterator[list[Listed]]:
    images = iter(images)
    while chunk := list(itertools.islice(images, CHUNK)):
        yield chunk


def _read(paths: list[Path]) -> list[Reading]:
    return [read_image_file(path) for path in paths]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # reading it says why


def _end_with_parent() -> None:
    """Let a worker end when the parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
