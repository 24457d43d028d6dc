"""Index of the members of several containers: sorted, free of duplicates, and in memory of bounded size."""

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dcae_bench.base.errors import DataError
from dcae_bench.data.containers.kinds import members
from dcae_bench.data.containers.member import Location, Member, SideLabel, key_of
from dcae_bench.data.containers.parquet import NoImagesError, numbered

BATCH = 10_000
"""Members that are added together."""
COLUMNS = "path, label, container, offset, length, coding, crc"


class Indexed(NamedTuple):
    """One image of a data set in containers. ``path`` is where unpacking in place would put it below the root."""

    path: str
    label: str | None
    location: Location
    crc: int | None


class MemberIndex:
    """The images in the containers of a data set, as if each had been unpacked where it lies.

    The index lies in a temporary file that the system removes with the process. Rows of Parquet files bear the names
    that the files give them, if every row has one and no two are equal; else all bear their file's name and their
    number there (:attr:`numbered`). :attr:`others` counts the members that are no images.
    """

    def __init__(self, root: Path, containers: Iterable[str], progress: Callable[[str, int], None] = lambda *_: None):
        """List ``containers``, paths below ``root`` (empty: the root itself).

        ``progress`` is called with a container and the number of members found so far. Raises :class:`DataError` for a
        damaged container and for two images of one name.
        """
        self.root, self.others, self.numbered = root, 0, False
        self.first_other: str | None = None
        self._connection = sqlite3.connect("", check_same_thread=False)  # a temporary file on disk
        # Zero bytes in place of slashes make the order of keys that of the paths' parts.
        self._connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE members (key BLOB, path TEXT, label TEXT, container TEXT, offset INTEGER, length INTEGER, "
            "coding TEXT, crc INTEGER, by_number INTEGER, side BLOB);"
            "CREATE TABLE sides (side BLOB PRIMARY KEY, label TEXT) WITHOUT ROWID;"
        )
        containers = list(containers)
        # Beside archives, Parquet files may hold tables about the images, as img2dataset writes them.
        archives = any(not container.lower().endswith(".parquet") for container in containers if container)
        try:
            self._fill(containers, archives, progress)
        except sqlite3.Error as error:
            raise DataError(
                f"{root}: the list of its images cannot be written ({error}); free some space where temporary files "
                "lie, or name another folder for them in $SQLITE_TMPDIR"
            ) from error

    def __len__(self) -> int:
        return self._connection.execute("SELECT COUNT(*) FROM members").fetchone()[0]

    @property
    def containers(self) -> list[str]:
        """Containers that hold images, in order."""
        found = self._connection.execute("SELECT DISTINCT container FROM members ORDER BY container")
        return [container for (container,) in found]

    def describe(self, most: int = 3) -> str:
        """Name the first ``most`` images in a message, and count the rest."""
        names = [image.path for image in itertools.islice(self.sorted(), most)]
        further = f" and {len(self) - most:,} more" if len(self) > most else ""
        return ", ".join(names) + further if names else "no images"

    def sorted(self) -> Iterator[Indexed]:
        """Yield the images ordered by the parts of their paths, whatever their order in the containers is."""
        return self._select("ORDER BY key")

    def stored(self) -> Iterator[Indexed]:
        """Yield the images in the order in which they lie in the containers."""
        return self._select("ORDER BY container, offset")

    def _select(self, order: str) -> Iterator[Indexed]:
        for path, label, *location, crc in self._connection.execute(f"SELECT {COLUMNS} FROM members {order}"):
            yield Indexed(path, label, Location(*location), crc)

    def _fill(self, containers: list[str], archives: bool, progress: Callable[[str, int], None]) -> None:
        count = 0
        for container in containers:
            try:
                count = self._add(container, count, progress)
            except NoImagesError:
                if not archives:
                    raise
                self._leave_out(container)
        self._settle()

    def _add(self, container: str, count: int, progress: Callable[[str, int], None]) -> int:
        file = self.root / container if container else self.root
        folder = "".join(container.rpartition("/")[:2])
        rows: list[tuple] = []
        sides: list[tuple] = []
        for entry in members(file):
            if isinstance(entry, Member):
                rows.append(_row(folder, container, entry))
                count += 1
            elif isinstance(entry, SideLabel):
                sides.append((_key(folder + entry.key), entry.label))
            else:
                self._leave_out(folder + entry.path)
            if len(rows) + len(sides) >= BATCH:
                self._insert(rows, sides, file)
                progress(container, count)
        self._insert(rows, sides, file)
        progress(container, count)
        return count

    def _leave_out(self, path: str) -> None:
        self.others += 1
        self.first_other = self.first_other or path

    def _insert(self, rows: list[tuple], sides: list[tuple], file: Path) -> None:
        self._connection.executemany(f"INSERT INTO members VALUES ({','.join('?' * 10)})", rows)
        try:
            self._connection.executemany("INSERT INTO sides VALUES (?, ?)", sides)
        except sqlite3.IntegrityError as error:
            raise DataError(
                f"{file}: holds a .cls file whose name is there already; give each image a name of its own, or each "
                "container a folder of its own"
            ) from error
        rows.clear()
        sides.clear()

    def _settle(self) -> None:
        """Give labels to the images of WebDatasets, name the rows of Parquet files, and refuse duplicates."""
        run = self._connection.execute
        if run("SELECT 1 FROM sides LIMIT 1").fetchone():
            run("UPDATE members SET label = (SELECT label FROM sides WHERE side = members.side) WHERE label IS NULL")
        run("CREATE INDEX by_key ON members (key)")
        unnamed = run("SELECT 1 FROM members WHERE by_number LIMIT 1").fetchone()
        if unnamed or (run("SELECT 1 FROM members WHERE coding = 'row' LIMIT 1").fetchone() and self._twice("row")):
            self._number_rows()
        if (twice := self._twice()) is not None:
            path, one, other = twice
            where = f"in {one} and in {other}" if one != other else f"twice in {one}"
            raise DataError(
                f"{self.root}: image {path} lies {where}; remove one, rename it, or give each container a folder of "
                "its own"
            )

    def _twice(self, coding: str | None = None) -> tuple[str, str, str] | None:
        """An image that is there twice, with its two containers."""
        only = "" if coding is None else f"WHERE coding = '{coding}'"
        found = self._connection.execute(
            f"SELECT key FROM members {only} GROUP BY key HAVING COUNT(*) > 1 ORDER BY key LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        (path, one), (_, other) = self._connection.execute(
            "SELECT path, container FROM members WHERE key = ? ORDER BY container, offset LIMIT 2", found
        ).fetchall()
        return path, one or self.root.name, other or self.root.name

    def _number_rows(self) -> None:
        self.numbered = True

        def name(container: str, row: int) -> str:
            folder = "".join(container.rpartition("/")[:2])
            return folder + numbered(Path(container or self.root.name), row)

        self._connection.create_function("row_name", 2, name, deterministic=True)
        self._connection.create_function("row_key", 1, _key, deterministic=True)
        self._connection.execute("UPDATE members SET path = row_name(container, offset) WHERE coding = 'row'")
        self._connection.execute("UPDATE members SET key = row_key(path) WHERE coding = 'row'")


def _row(folder: str, container: str, member: Member) -> tuple:
    path = folder + member.path
    side = None if member.coding == "row" else _key(key_of(path))
    place = (container, member.offset, member.length, member.coding)
    return _key(path), path, member.label, *place, member.crc, member.by_number, side


def _key(path: str) -> bytes:
    return path.replace("/", "\0").encode()
