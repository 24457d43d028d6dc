"""Parquet files with a column of encoded images, as the library ``datasets`` writes them."""

import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import require_regular_file
from dcae_bench.data.containers.member import Member, clean_path, faults_named

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png")
"""Names of a column of plain bytes that is taken for the images."""
LABEL_NAMES = ("label", "cls", "class", "category")
"""Names of the column of classes, where ``datasets`` describes none; the first that is there counts."""
UNLABELLED = "-1"
"""What ``datasets`` writes for an image without a class."""
GROUP_BYTES = 2**27
"""Row groups whose images take more are read in steps, which is slower, so that memory stays bounded."""
KEPT_BYTES = 2**27
"""Bytes of row groups and steps that stay in memory."""
STEP = 16
"""Rows of a step."""


class NoImagesError(DataError):
    """A Parquet file without a column of images, such as a table of captions."""


class Columns(NamedTuple):
    """Columns of a Parquet file that matter here, as Parquet spells nested ones."""

    content: str
    path: str | None
    label: str | None


def members(container: Path) -> Iterator[Member]:
    """Yield an image for each row. Only names and classes are read. Raises :class:`DataError`.

    An image has the name that its row gives, else the file's name with the number of the row.
    """
    file, columns = _open(container)
    wanted = [column for column in (columns.path, columns.label) if column is not None]
    number = 0
    with faults_named(container, "Parquet file", pa.ArrowException):
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            table = file.read_row_group(group, columns=wanted, use_threads=False) if wanted else None
            names = _values(table, columns.path, count)
            labels = _values(table, columns.label, count)
            for name, label in zip(names, labels, strict=True):
                given = _name(name)
                path = numbered(container, number) if given is None else clean_path(given, container)
                yield Member(path, number, 0, "row", _label(label, container, number), by_number=given is None)
                number += 1


def numbered(container: Path, row: int) -> str:
    """Name of a row that gives none."""
    return f"{container.stem}/{row:08}"


def _name(value: object) -> str | None:
    """A row's file name. Of a path on the machine that made the file, only the last part says anything."""
    if not isinstance(value, str) or not value:
        return None
    value = value.replace("\\", "/") if "/" not in value else value
    return value.rpartition("/")[2] if value.startswith("/") or ":" in value.partition("/")[0] else value


def _label(value: object, container: Path, row: int) -> str | None:
    """Class of a row as text. pandas turns whole numbers into floats where some are missing."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(
                f"{container}: row {row:,} has the label {value}; write classes as whole numbers or as text"
            )
        value = int(value)
    return None if value is None or str(value) in ("", UNLABELLED) else str(value)


def _values(table: pa.Table | None, column: str | None, count: int) -> list[Any]:
    if table is None or column is None:
        return [None] * count
    values = table
    for part in column.split("."):
        values = values[part] if isinstance(values, pa.Table) else _field(values, part)
    return values.to_pylist()


def _field(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    # `flatten` sets the fields of a missing struct to null; `field` alone would not.
    chunks = [chunk.flatten()[chunk.type.get_field_index(name)] for chunk in values.chunks]
    return pa.chunked_array(chunks, values.type.field(name).type)


def _open(container: Path) -> tuple[pq.ParquetFile, Columns]:
    """Open a file and find its columns. Raises :class:`DataError`."""
    with faults_named(container, "Parquet file", pa.ArrowException):
        require_regular_file(container)
        # A buffer keeps a large row group out of memory while it is read in steps.
        file = pq.ParquetFile(container, buffer_size=1 << 20, pre_buffer=False)
        schema = file.schema_arrow
    return file, _columns(container, schema)


def _columns(container: Path, schema: pa.Schema) -> Columns:
    features = _features(schema)
    images = [name for name, kind in features.items() if kind == "Image" and name in schema.names]
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    plain = [field.name for field in schema if _is_binary(field.type) and field.name in IMAGE_NAMES]
    found = images or structs or plain
    if not found:
        raise NoImagesError(
            f"{container}: has no column of images (a struct with bytes and path, or bytes named "
            f"{', '.join(IMAGE_NAMES)}); it has {_columns_text(schema)}; take it away, or name the files "
            "that hold images by a pattern (train-*.parquet)"
        )
    if len(found) > 1:
        raise DataError(f"{container}: has several columns of images ({', '.join(found)}); keep one")
    (image,) = found
    kind = schema.field(image).type
    if _is_binary(kind):
        content, path = image, None
    elif _is_image_struct(kind):
        content = f"{image}.bytes"
        path = f"{image}.path" if kind.get_field_index("path") >= 0 else None
    else:
        raise DataError(f"{container}: column {image} is {kind}, not a struct with bytes; write it with `datasets`")
    classes = [name for name, kind in features.items() if kind == "ClassLabel" and name in schema.names]
    named = [name for name in LABEL_NAMES if name in schema.names and _is_label(schema.field(name).type)]
    label = classes[0] if len(classes) == 1 else next(iter(named), None)
    return Columns(content, path, label)


def _columns_text(schema: pa.Schema) -> str:
    """Columns with their types in a message; a column of texts named `image` holds addresses, not images."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"


def _features(schema: pa.Schema) -> dict[str, str]:
    """Kinds of the columns, as ``datasets`` notes them in the file; empty where it did not write the file."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in noted.items() if "_type" in feature}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or (place := kind.get_field_index("bytes")) < 0:
        return False
    return _is_binary(kind.field(place).type)


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(test(kind) for test in tests)


class Rows:
    """Images of a Parquet file by row. Several threads may share them.

    What was read last stays in memory, in all :data:`KEPT_BYTES` of a process. A row group is kept whole,
    or in steps if it is large.
    """

    def __init__(self, container: Path):
        self.container = container
        self.number = next(_NUMBERS)
        self._file, self._columns = _open(container)
        metadata = self._file.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._column = next(
            number
            for number in range(metadata.num_columns)
            if metadata.schema.column(number).path == self._columns.content
        )
        self._steps: Iterator[pa.RecordBatch] = iter(())
        self._at: tuple[int, int] | None = None
        """Row group and step that :attr:`_steps` gives next."""
        self._lock = RLock()

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, row: int) -> bytes:
        """Content of an image. Raises :class:`DataError` for a row without one, and for a damaged file."""
        if not 0 <= row < len(self):
            raise DataError(f"{self.container}: has {len(self):,} rows and no row {row:,}; prepare the data again")
        group = next(number for number in range(len(self._starts) - 1) if row < self._starts[number + 1])
        content = self._in_group(group, row - self._starts[group])
        if content is None:
            raise DataError(
                f"{self.container}: row {row:,} has no bytes, only a path at most; write the file with the images in it"
            )
        return content

    def _in_group(self, group: int, inner: int) -> bytes | None:
        with self._lock, faults_named(self.container, "Parquet file", pa.ArrowException):
            if self._file.metadata.row_group(group).column(self._column).total_uncompressed_size > GROUP_BYTES:
                return self._in_steps(group, inner)
            key = (self.number, group, 0)
            if (found := _KEPT.find(key)) is None:
                found = _KEPT.keep(key, self._read_group(group))
            return found[inner].as_py()

    def _in_steps(self, group: int, inner: int) -> bytes | None:
        step = inner // STEP
        if (known := _KEPT.find((self.number, group, step))) is not None:
            return known[inner % STEP].as_py()
        if self._at != (group, step):
            columns = [self._columns.content]
            self._steps = self._file.iter_batches(STEP, row_groups=[group], columns=columns, use_threads=False)
            for _ in itertools.islice(self._steps, step):
                pass
        batch = self._content(pa.Table.from_batches([next(self._steps)]))
        self._at = (group, step + 1)
        return _KEPT.keep((self.number, group, step), batch)[inner % STEP].as_py()

    def _read_group(self, group: int) -> pa.ChunkedArray:
        """Contents of the images of a row group."""
        return self._content(self._file.read_row_group(group, columns=[self._columns.content], use_threads=False))

    def _content(self, table: pa.Table) -> pa.ChunkedArray:
        column = table.column(0)
        return column if self._columns.content == table.column_names[0] else _field(column, "bytes")


Key = tuple[int, int, int]
"""Number of the file, row group, and step in it."""


class _Kept:
    """Row groups and steps that were read last, of all files of this process."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Key, pa.ChunkedArray] = OrderedDict()
        self._lock = RLock()

    def find(self, key: Key) -> pa.ChunkedArray | None:
        """A part that is kept, or None."""
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
            return self._parts.get(key)

    def keep(self, key: Key, part: pa.ChunkedArray) -> pa.ChunkedArray:
        """Keep a part, and forget those that were not used for longest; returns the part."""
        with self._lock:
            self._parts[key] = part
            while sum(kept.nbytes for kept in self._parts.values()) > KEPT_BYTES and len(self._parts) > 1:
                self._parts.popitem(last=False)
        return part


_NUMBERS = itertools.count()
_KEPT = _Kept()
