"""Members of containers: their names, their labels, and where their bytes lie."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from dcae_bench.base.errors import DataError
from dcae_bench.data.decode import SUFFIXES

Coding = Literal["stored", "deflate", "row"]


class Location(NamedTuple):
    """Where the bytes of an image lie in its container.

    ``stored``: as ``length`` bytes from byte ``offset`` on; ``deflate``: compressed in those bytes; ``row``: in row
    ``offset`` of a Parquet file, whose ``length`` is 0. ``container`` is the path below the root, empty where the root
    itself is the container.
    """

    container: str
    offset: int
    length: int
    coding: Coding


class Member(NamedTuple):
    """One image of a container. ``path`` is where unpacking would put it, from the folder of its container on.

    ``by_number`` says that the container gives no name, so that ``path`` is made of the row's number. ``crc`` is the
    checksum that a zip archive keeps.
    """

    path: str
    offset: int
    length: int
    coding: Coding
    label: str | None = None
    by_number: bool = False
    crc: int | None = None


class SideLabel(NamedTuple):
    """The class that a file ``key.cls`` of a WebDataset gives to the images ``key.*``."""

    key: str
    label: str


class Other(NamedTuple):
    """A member that is no image."""

    path: str


Entry = Member | SideLabel | Other

MAX_LABEL_BYTES = 4096
"""Largest ``.cls`` file."""


def clean_path(name: str, container: Path) -> str:
    """Path of a member below the folder of its container, with forward slashes.

    Raises :class:`DataError` for a name that is no such path or no UTF-8.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{container}: holds the name {name!r}, which is not UTF-8; pack it again") from error
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        raise DataError(
            f"{container}: holds the name {name!r}, which leads out of a folder; pack it again with relative names"
        )
    return "/".join(parts)


def is_image(path: str) -> bool:
    """Whether a member's name is that of an image: an ending of an image, and no hidden file or folder."""
    return os.path.splitext(path)[1].lower() in SUFFIXES and not any(part.startswith(".") for part in path.split("/"))


def key_of(path: str) -> str:
    """Key of a WebDataset's sample: the path up to the first dot of the file's name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


@contextmanager
def faults_named(container: Path, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the errors of a library on a damaged container into a :class:`DataError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise DataError(f"{container}: cannot be read ({reason}); make it readable, or get it again") from error
    except errors as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{container}: is no whole {kind} ({reason}); get it again") from error
