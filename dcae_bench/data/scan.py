"""Scan of a data set: reads every image once and caches the readings, so that an interrupted scan continues."""

import hashlib
import itertools
import logging
import multiprocessing
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import cache_dir, make_folder
from dcae_bench.base.parent import end_with_parent
from dcae_bench.data.containers.kinds import Place, place_of
from dcae_bench.data.decode import ImageError, open_image
from dcae_bench.data.layout import Listed

logger = logging.getLogger(__name__)

VERSION = 3
"""Version of the way that files are read. Readings that another version cached are not used."""
CHUNK = 8
"""Files that go to a process together; a killed scan loses the readings of unfinished chunks."""
ROWS = 64
"""Rows of Parquet files that go to a process together: to read one row is to read its group of rows."""
WRITE_S = 1.0
"""Seconds between two writes of the cache; a killed scan loses the readings since the last write too."""


class Reading(NamedTuple):
    """Result of reading one image. One with a ``problem`` has neither size nor mode."""

    bytes: int
    sha256: str
    width: int
    height: int
    mode: str
    problem: str | None = None
    detail: str = ""


def read_image(place: Place) -> Reading:
    """Read, hash and decode one image. What is no usable image gives a reading with a ``problem``."""
    try:
        content = place.read()
        sha256 = hashlib.sha256(content).hexdigest()
        image = open_image(content, place.name)
    except ImageError as error:
        return Reading(0, "", 0, 0, "", error.problem, error.detail)
    return Reading(len(content), sha256, image.width, image.height, image.mode)


class ScanCache:
    """Readings of the usable files below one root, in an SQLite file in the user's cache directory.

    A reading is used while its file, or its container, keeps size and modification time (in nanoseconds). Readings with
    a problem are not kept, so those files are read again. All splits and profiles of a root share one cache file.
    Deleting the cache file is safe: the next scan then reads every file again.
    """

    def __init__(self, root: Path):
        """Open the cache of ``root``; a damaged file is removed and begun again.

        Raises :class:`DataError` if the cache file cannot be written.
        """
        name = hashlib.sha256(os.path.realpath(root).encode(errors="surrogateescape")).hexdigest()[:24]
        self.path = cache_dir() / "images" / f"{name}-v{VERSION}.sqlite"
        try:
            make_folder(self.path.parent)
            try:
                self._connection = self._connect()
            except sqlite3.OperationalError:  # locked, or a disk that cannot be written
                raise
            except sqlite3.DatabaseError as error:
                logger.warning("%s: is damaged (%s); it is removed, and every file is read again", self.path, error)
                for suffix in ("", "-journal"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                self._connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from error
        self._rows: list[tuple] = []
        self._written = time.monotonic()

    def __enter__(self) -> "ScanCache":
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._connection):
            self._write()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            connection.execute("PRAGMA synchronous = FULL")  # the default of most builds, not of all
            connection.execute(
                "CREATE TABLE IF NOT EXISTS readings (path TEXT PRIMARY KEY, mtime_ns INTEGER, bytes INTEGER, "
                "sha256 TEXT, width INTEGER, height INTEGER, mode TEXT, checksum TEXT) WITHOUT ROWID"
            )
            connection.commit()
            # Reads every page, a second for a million files. A page that is damaged later still fails its checksums.
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except BaseException:
            connection.close()
            raise
        return connection

    def recall(self, stats: dict[str, os.stat_result | None]) -> dict[str, Reading]:
        """Return the readings of the files whose size and modification time are unchanged. Raises :class:`DataError`.

        ``stats`` holds the current state of each file, or of its container, by the image's key (its path, for a file);
        None: the state cannot be read.
        """
        marks = ",".join("?" * len(stats))
        query = (
            f"SELECT path, mtime_ns, bytes, sha256, width, height, mode, checksum FROM readings WHERE path IN ({marks})"
        )
        found = {}
        try:
            for *row, checksum in self._connection.execute(query, list(stats)):
                path, mtime_ns, size, *rest = row
                stat = stats[path]
                if stat is None or not _is_of(path, stat, mtime_ns, size) or checksum != _checksum(row):
                    continue
                found[path] = Reading(size, *rest)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return found

    def remember(self, readings: Iterable[tuple[str, os.stat_result | None, Reading]]) -> None:
        """Keep the readings without a problem. Writes happen about once a second. Raises :class:`DataError`."""
        self._rows += [
            (*(row := (path, stat.st_mtime_ns, *reading[:5])), _checksum(row))
            for path, stat, reading in readings
            if stat is not None and reading.problem is None and _is_of(path, stat, stat.st_mtime_ns, reading.bytes)
        ]
        if time.monotonic() - self._written > WRITE_S:
            self._write()

    def _write(self) -> None:
        # One short transaction, so that another scan of the same root hardly waits.
        try:
            with self._connection:
                marks = ",".join("?" * 8)
                self._connection.executemany(f"INSERT OR REPLACE INTO readings VALUES ({marks})", self._rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        self._rows.clear()
        self._written = time.monotonic()

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: cannot be used ({error}); delete it or set $DCAE_BENCH_CACHE to another folder")


def _checksum(row: Sequence[object]) -> str:
    """Checksum of one kept reading, which is not believed without it."""
    return hashlib.blake2b(repr(tuple(row)).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def scan(
    root: Path,
    images: Iterable[Listed],
    cache: ScanCache,
    *,
    workers: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Generator[tuple[Listed, Reading], None, None]:
    """Yield every image with its reading, in order. ``progress`` is called with the number of images done.

    Chunks of images go to ``workers`` processes; with 1, this process reads them. Memory use does not grow with the
    number of images, because only a few chunks are in progress at a time. Raises :class:`DataError` where the cache or
    a worker fails. An unusable image raises nothing: its reading has a ``problem``.
    """
    pool = None
    if workers > 1:
        # Spawned instead of forked, because the parent may have threads. Workers import little beside this module.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    ahead = 2 * workers if pool else 0
    pending: deque[_Chunk] = deque()
    done = 0

    def finish(most: int) -> Iterator[tuple[Listed, Reading]]:
        nonlocal done
        while len(pending) > most:
            finished = pending.popleft().finish(cache)
            yield from finished
            done += len(finished)
            progress(done)

    try:
        for images_of_chunk in _chunks(images):
            pending.append(_Chunk(root, images_of_chunk, cache, pool))
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
    """Images that are read together: by the pool if there is one, else when they are needed."""

    def __init__(self, root: Path, images: list[Listed], cache: ScanCache, pool: ProcessPoolExecutor | None):
        places = [place_of(root, image.path, image.location, image.crc) for image in images]
        states = {file: _stat(file) for file in {place.file for place in places}}
        self.stats = {
            _key(image, states[place.file]): states[place.file] for image, place in zip(images, places, strict=True)
        }
        self.images = dict(zip(self.stats, images, strict=True))
        self.known = cache.recall(self.stats)
        self.wanted = {key: place for key, place in zip(self.stats, places, strict=True) if key not in self.known}
        self.future: Future[list[Reading]] | None = None
        if pool and self.wanted:
            self.future = pool.submit(_read, list(self.wanted.values()))

    def finish(self, cache: ScanCache) -> list[tuple[Listed, Reading]]:
        readings = self.future.result() if self.future else _read(list(self.wanted.values()))
        found = dict(zip(self.wanted, readings, strict=True))
        cache.remember((key, self.stats[key], reading) for key, reading in found.items())
        return [(image, self.known.get(key) or found[key]) for key, image in self.images.items()]


IN_CONTAINER = "//"
"""Beginning of the keys of images in containers; no path below a root begins so."""


def _key(image: Listed, stat: os.stat_result | None) -> str:
    """Key of an image in the cache: its path, or its container with its size, and the image's place in it."""
    if image.location is None:
        return image.path
    container, offset, length, coding = image.location
    return f"{IN_CONTAINER}{container}/{stat.st_size if stat else 0}/{coding}/{offset}/{length}/{image.path}"


def _is_of(key: str, stat: os.stat_result, mtime_ns: int, size: int) -> bool:
    """Whether a reading with the given time and size is of the file, or of the container, in its current state."""
    return stat.st_mtime_ns == mtime_ns and (key.startswith(IN_CONTAINER) or stat.st_size == size)


def _chunks(images: Iterable[Listed]) -> Iterator[list[Listed]]:
    images = iter(images)
    for first in images:
        most = ROWS if first.location is not None and first.location.coding == "row" else CHUNK
        yield [first, *itertools.islice(images, most - 1)]


def _read(places: list[Place]) -> list[Reading]:
    return [read_image(place) for place in places]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # the attempt to read the file reports the reason
