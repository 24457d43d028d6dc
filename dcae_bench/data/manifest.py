"""Manifests of image files: every file of a split with its hash and size, written and read in streams."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, PositiveInt

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import atomic_write, require_regular_file
from dcae_bench.base.known_hashes import known_sha256
from dcae_bench.base.sealed import read_sealed, write_sealed
from dcae_bench.base.typed import Strict
from dcae_bench.data.containers.kinds import place_of
from dcae_bench.data.containers.member import Coding, Location
from dcae_bench.data.decode import decode_rgb, path_inside
from dcae_bench.data.layout import FileSplit

ROWS = 2048
"""Rows of a row group: the writer holds one group in memory, and a row out of order costs the read of one group."""
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("status", pa.string(), nullable=False),
    ]
)
PLACES = pa.schema(
    [
        pa.field("container", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("coding", pa.string(), nullable=False),
    ]
)
"""Further columns of a manifest of images in containers (:class:`~dcae_bench.data.containers.member.Location`)."""
IN_CONTAINERS = pa.schema([*SCHEMA, *PLACES])
TREE = b"tree_sha256"
"""Key of the tree's hash in the Parquet file's own metadata."""
KEPT_GROUPS = 4
"""Row groups that an open manifest keeps in memory."""


class ManifestRow(NamedTuple):
    """One image file. ``status`` is ``ok``, ``greyscale``, ``small`` or ``greyscale+small``.

    The fields from ``container`` on are those of a location in a container; None for a file.
    """

    path: str
    bytes: int
    sha256: str
    width: int
    height: int
    mode: str
    label: str | None
    status: str
    container: str | None = None
    offset: int | None = None
    length: int | None = None
    coding: Coding | None = None

    @property
    def location(self) -> Location | None:
        """Where the image lies in its container; None for a file."""
        if self.container is None or self.offset is None or self.length is None or self.coding is None:
            return None
        return Location(self.container, self.offset, self.length, self.coding)


class ManifestInfo(Strict):
    """Summary of a manifest, stored beside its rows as ``<split>.json``."""

    version: Literal[1] = 1
    name: str = Field(description="name of the data set")
    split: FileSplit
    root: str = Field(description="folder that the rows' paths are relative to, or the container of all images")
    containers: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda containers: not containers,
        description="containers that hold the images, below the root ('': the root itself); none: the images are files",
    )
    follow_links: bool = Field(
        default=False,
        exclude_if=lambda follow: not follow,
        description="whether links that lead out of the root are followed, because the user vouches for them",
    )
    pattern: str = Field(description="pattern of the split's images below the root")
    layout_version: PositiveInt
    count: PositiveInt
    expected: PositiveInt | None = Field(description="the publisher's number of images; null: not checked")
    partial: bool = Field(description="whether a number other than the expected one was accepted (--partial)")
    bytes: NonNegativeInt = Field(description="size of all files together")
    min_side: PositiveInt | None = Field(
        description="images with a shorter side below min_side px have status small; null: sizes were not checked"
    )
    problems: dict[str, NonNegativeInt] = Field(description="number of files of each status other than ok")
    left_out: NonNegativeInt = Field(description="number of files beside the images that the layout does not name")
    tree_sha256: str = Field(description="hash over path, bytes and sha256 of every file, in order")
    sha256: str = Field(description="hash of the .parquet file, which also covers labels and sizes")


class ManifestWriter:
    """Writer of a manifest's rows. Use :func:`open_writer`."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema):
        self._writer, self._schema = writer, schema
        self._rows: list[ManifestRow] = []
        self._tree = hashlib.sha256()
        self.count, self.bytes = 0, 0
        self.problems: dict[str, int] = {}

    def add(self, row: ManifestRow) -> None:
        """Add the next file's row."""
        # No path holds the byte 0, so different lists of files never give the same bytes.
        self._tree.update(f"{row.sha256} {row.bytes} {row.path}\0".encode())
        self.count += 1
        self.bytes += row.bytes
        if row.status != "ok":
            self.problems[row.status] = self.problems.get(row.status, 0) + 1
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self._flush()

    def finish(self) -> str:
        """Write the remaining rows; returns the hash over all files."""
        self._flush()
        tree_sha256 = self._tree.hexdigest()
        self._writer.add_key_value_metadata({TREE: tree_sha256.encode()})
        return tree_sha256

    def _flush(self) -> None:
        if self._rows:
            columns = list(zip(*self._rows, strict=True))[: len(self._schema)]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._rows.clear()


@contextmanager
def open_writer(path: Path, *, in_containers: bool = False) -> Iterator[ManifestWriter]:
    """Open a writer whose file replaces ``path`` if the block ends without an error. Raises :class:`ResultsError`.

    ``in_containers``: every row has a location.
    """
    schema = IN_CONTAINERS if in_containers else SCHEMA
    with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield ManifestWriter(writer, schema)


def info_path(path: Path) -> Path:
    """Path of a manifest's summary."""
    return Path(path).with_suffix(".json")


def write_info(info: ManifestInfo, path: Path) -> None:
    """Write the summary of the manifest at ``path``. The summary is written last: its presence vouches for the rows."""
    write_sealed(info_path(path), info)


class FileManifest:
    """The files of one split, from a manifest on disk. Opening reads no row.

    The first use of ``sizes`` loads two numbers per file; all other columns are read a row group at a time. Several
    threads may share a manifest. Processes may inherit a manifest by a fork or receive it pickled.
    """

    def __init__(self, path: Path):
        """Open ``<split>.parquet``. Raises :class:`DataError` when it is missing, damaged, or not the summary's."""
        self.path = Path(path)
        remedy = "prepare the data again (dcae-bench prepare)"
        try:
            self.info = read_sealed(info_path(self.path), ManifestInfo)
        except OSError as error:
            raise DataError(f"{error.filename or self.path}: cannot be read ({_reason(error)}); {remedy}") from error
        except ValueError as error:
            raise DataError(f"{info_path(self.path)}: is not a manifest's summary ({error}); {remedy}") from error
        try:
            require_regular_file(self.path)
            self._file = pq.ParquetFile(self.path, pre_buffer=False)  # one group at a time is read, and once
        except OSError as error:
            raise DataError(f"{error.filename or self.path}: cannot be read ({_reason(error)}); {remedy}") from error
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"{self.path}: is not a manifest ({_reason(error)}); {remedy}") from error
        self._schema = IN_CONTAINERS if self.info.containers else SCHEMA
        metadata = self._file.metadata
        found = (metadata.num_rows, (metadata.metadata or {}).get(TREE, b"").decode(errors="replace"))
        if found != (self.info.count, self.info.tree_sha256) or not self._file.schema_arrow.equals(self._schema):
            raise DataError(f"{self.path}: does not belong to {info_path(self.path).name}; {remedy}")
        if (sha256 := known_sha256(self.path)) != self.info.sha256:
            raise DataError(
                f"{self.path}: sha256 is {sha256}, {info_path(self.path).name} says {self.info.sha256}; {remedy}"
            )
        self.root = Path(self.info.root)
        # Row groups hold ROWS rows each, except for the last.
        self._starts = np.cumsum([0, *(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))])
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._sizes: np.ndarray | None = None
        self._lock = Lock()

    @classmethod
    def open_split(cls, data: Path, dataset: str, split: FileSplit) -> Self:
        """Open the manifest of a split in the folder ``data`` of prepared data.

        Raises :class:`DataError` as the constructor does, and also for a manifest of another data set or split, and
        where the folder of the images is gone.
        """
        manifest = cls(data / dataset / f"{split}.parquet")
        info = manifest.info
        if (info.name, info.split) != (dataset, split):
            raise DataError(
                f"{manifest.path}: lists {info.name} {info.split} images, not {dataset} {split}; prepare {dataset} "
                "into this folder"
            )
        if not manifest.root.exists():
            raise DataError(
                f"{manifest.path}: its images lay in {manifest.root}, which is not there; bring it back, or prepare it "
                "where it is now (dcae-bench prepare --root)"
            )
        return manifest

    def __len__(self) -> int:
        return self.info.count

    def __reduce__(self) -> tuple[type["FileManifest"], tuple[Path]]:
        return FileManifest, (self.path,)

    def __getitem__(self, index: int) -> ManifestRow:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        inner = index - int(self._starts[group])
        return ManifestRow(*(column[inner].as_py() for column in self._group(group).columns))

    def __iter__(self) -> Iterator[ManifestRow]:
        for group in range(len(self._starts) - 1):
            columns = self._read(group).columns
            yield from (
                ManifestRow(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)
            )

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of every file, int32 (n, 2): read at the first use, then kept (8 bytes a file)."""
        with self._lock:
            if self._sizes is None:
                columns = [batch.columns for batch in self._file.iter_batches(columns=["height", "width"])]
                self._sizes = np.concatenate([np.stack([c.to_numpy() for c in pair], axis=1) for pair in columns])
            return self._sizes

    def labels(self) -> tuple[list[str | None], np.ndarray]:
        """Return the distinct labels in sorted order, and the index of each file's label in them, int64 (n,).

        Files without a label have the label None, which sorts first. Labels that are all numbers are sorted by value.
        """
        codes: dict[str | None, int] = {}
        parts = []
        for batch in self._file.iter_batches(columns=["label"]):
            column = batch.column(0).dictionary_encode(null_encoding="encode")
            known = np.array([codes.setdefault(label, len(codes)) for label in column.dictionary.to_pylist()])
            parts.append(known[column.indices.to_numpy()])
        by_value = all(label is None or (label.isascii() and label.isdigit()) for label in codes)
        names = sorted(codes, key=lambda label: (label is not None, int(label or 0) if by_value else 0, label))
        places = np.empty(len(names), np.int64)
        places[[codes[name] for name in names]] = np.arange(len(names))
        return names, places[np.concatenate(parts)]

    def shortest_side(self) -> int:
        """Shortest side of all images in pixels, from the statistics that Parquet keeps of its columns."""
        metadata = self._file.metadata
        columns = [SCHEMA.get_field_index(name) for name in ("width", "height")]
        groups = range(metadata.num_row_groups)
        return min(metadata.row_group(group).column(column).statistics.min for group in groups for column in columns)

    def describe(self, index: int) -> str:
        """Place of an image for messages: its file, or its container and its name there."""
        row = self[index]
        return place_of(self.root, row.path, row.location).name

    def read(self, index: int) -> np.ndarray:
        """Read an image as uint8 RGB (height, width, 3) and check its hash. Raises :class:`DataError`."""
        row = self[index]
        below = row.path if row.container is None else row.container
        if not self.info.follow_links and below:
            path_inside(self.root, below)
        place = place_of(self.root, row.path, row.location)
        return decode_rgb(place.read(), place.name, row.sha256)

    def _group(self, group: int) -> pa.Table:
        with self._lock:  # pyarrow's reader does not bear two threads at a time
            if group in self._groups:
                self._groups.move_to_end(group)
                return self._groups[group]
            table = self._groups[group] = self._read(group)
            while len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        return table

    def _read(self, group: int) -> pa.Table:
        try:
            return self._file.read_row_group(group, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.path}: cannot be read ({_reason(error)}); prepare the data again (dcae-bench prepare)"
            ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
