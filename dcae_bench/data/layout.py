"""Layouts: patterns that say where a data set keeps the images of a split, and the listing of those images."""

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from dcae_bench.base.errors import DataError
from dcae_bench.data.containers.kinds import is_container
from dcae_bench.data.containers.member import Location
from dcae_bench.data.decode import SUFFIXES, path_inside

FileSplit = Literal["train", "eval", "test"]

ANY = "**"
"""Pattern of a folder without a layout: every file whose name ends as an image's, at any depth."""


class Listed(NamedTuple):
    """An image of a split: its path below the root, with forward slashes, and its label if the layout has labels.

    ``location`` says where in a container the image lies; without one, it is a file. ``crc`` is the checksum that a zip
    archive keeps.
    """

    path: str
    label: str | None
    location: Location | None = None
    crc: int | None = None


@dataclass
class LeftOut:
    """Count of the files beside the images that are not part of the layout, with the first one's path."""

    count: int = 0
    first: str | None = None

    def add(self, path: str) -> None:
        """Count one more file."""
        self.count += 1
        self.first = self.first or path


def list_images(root: Path, pattern: str, left_out: LeftOut | None = None) -> Iterator[Listed]:
    """List the images that fit ``pattern``, sorted by the parts of their paths.

    A pattern is written as in a shell, one part per folder and one for the file: ``train/<n########>/*.JPEG``. In
    addition ``#`` stands for a digit, and angle brackets mark the part that is the label. ``left_out`` counts the files
    beside the images that do not fit. Memory holds the entries of the current folder and of its parents, never the
    whole list. Raises :class:`DataError` for a folder that cannot be read, a link that leads out of the root, and a
    name that is not UTF-8.
    """
    left_out = LeftOut() if left_out is None else left_out
    if pattern == ANY:
        yield from _below(root, "", left_out, _is_image)
    else:
        yield from _fitting(root, "", tuple(pattern.split("/")), None, left_out)


def list_containers(root: Path) -> list[str]:
    """Paths of the containers below ``root``, sorted by their parts; only "" where the root itself is one.

    Raises :class:`DataError` as :func:`list_images` does.
    """
    if root.is_file():
        return [""]
    return [image.path for image in _below(root, "", LeftOut(), is_container)]


def find_pattern(root: Path, patterns: Sequence[str]) -> str | None:
    """The first pattern that any file below ``root`` fits, or None. Raises :class:`DataError`."""
    return next((pattern for pattern in patterns if next(list_images(root, pattern), None) is not None), None)


def describe_patterns(patterns: Sequence[str]) -> str:
    """Name patterns in a message."""
    return " or ".join("images at any depth" if pattern == ANY else pattern for pattern in patterns)


def describe_folder(root: Path, most: int = 4) -> str:
    """Name the first ``most`` entries of a folder in a message, and count the rest. Raises :class:`DataError`."""
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in _entries(root, "")]
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _fitting(root: Path, folder: str, parts: tuple[str, ...], label: str | None, out: LeftOut) -> Iterator[Listed]:
    part, rest = parts[0], parts[1:]
    fits = _expression(part).fullmatch
    for entry in _entries(root, folder):
        path = f"{folder}{entry.name}"
        if not fits(entry.name) or entry.is_dir() != bool(rest):
            if not rest and not entry.is_dir():
                out.add(path)
            continue
        _check(root, entry, path)
        found = entry.name if part.startswith("<") else label
        if rest:
            yield from _fitting(root, f"{path}/", rest, found, out)
        else:
            yield Listed(path, found)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _below(root: Path, folder: str, out: LeftOut, wanted: Callable[[str], bool]) -> Iterator[Listed]:
    for entry in _entries(root, folder):
        path = f"{folder}{entry.name}"
        hidden = entry.name.startswith(".")
        if entry.is_dir():
            if hidden:
                continue
            if entry.is_symlink():
                raise DataError(
                    f"{root / path}: is a link to a folder, whose images might count twice; move the folder itself here"
                )
            yield from _below(root, f"{path}/", out, wanted)
        elif hidden or not wanted(entry.name):
            out.add(path)
        else:
            _check(root, entry, path)
            yield Listed(path, None)


def _entries(root: Path, folder: str) -> list[os.DirEntry]:
    """Entries of a folder, sorted by the code points of their names: the same order on every system."""
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{root / folder}: cannot be listed ({error.strerror}); make the folder readable") from error


def _check(root: Path, entry: os.DirEntry, path: str) -> None:
    if entry.is_symlink():
        path_inside(root, path)
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{root}: holds the name {entry.name!r}, which is not UTF-8; rename it") from error


@cache
def _expression(part: str) -> re.Pattern:
    return re.compile(fnmatch.translate(part.strip("<>").replace("#", "[0-9]")))
