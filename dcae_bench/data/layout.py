"""Layouts: where a data set keeps the images of each split, and how they are listed without holding the list."""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from dcae_bench.data.decode import inside
from dcae_bench.errors import DataError

FileSplit = Literal["train", "eval", "test"]

ANY = "**"
"""The pattern of any image folder: every file with one of :data:`SUFFIXES`, at any depth."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})


class Listed(NamedTuple):
    """An image of a split: its path below the root with forward slashes, and its label, if the layout has any."""

    path: str
    label: str | None


@dataclass
class LeftOut:
    """Files beside the images that are not part of the layout."""

    count: int = 0
    first: str | None = None

    def add(self, path: str) -> None:
        """Count one."""
        self.count += 1
        self.first = self.first or path


def listing(root: Path, pattern: str, left_out: LeftOut | None = None) -> Iterator[Listed]:
    """List the images that ``pattern`` describes, in the order of their path's parts.

    A pattern has one part per folder and one for the file, as in a shell, where ``#`` is a digit and the part in angle
    brackets is the label: ``train/<n########>/*.JPEG``. One folder's names are held at a time. Raises
    :class:`DataError` for a folder that cannot be read, a link out of the root and a name that is not text.
    """
    left_out = LeftOut() if left_out is None else left_out
    if pattern == ANY:
        yield from _below(root, "", left_out)
    else:
        yield from _fitting(root, "", tuple(pattern.split("/")), None, left_out)


def choose(root: Path, patterns: Sequence[str]) -> str | None:
    """The first pattern that any file fits, or None. Raises :class:`DataError`."""
    return next((pattern for pattern in patterns if next(listing(root, pattern), None) is not None), None)


def shown(patterns: Sequence[str]) -> str:
    """Patterns as a message names them."""
    return " or ".join("images at any depth" if pattern == ANY else pattern for pattern in patterns)


def contents(root: Path, most: int = 4) -> str:
    """What a folder holds, in a phrase."""
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


def _below(root: Path, folder: str, out: LeftOut) -> Iterator[Listed]:
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
            yield from _below(root, f"{path}/", out)
        elif hidden or os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
            out.add(path)
        else:
            _check(root, entry, path)
            yield Listed(path, None)


def _entries(root: Path, folder: str) -> list[os.DirEntry]:
    """What a folder holds, by name: the order of code points, the same on every system."""
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{root / folder}: cannot be listed ({error.strerror}); make the folder readable") from error


def _check(root: Path, entry: os.DirEntry, path: str) -> None:
    if entry.is_symlink():
        inside(root, path)
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{root}: holds the name {entry.name!r}, which is not UTF-8; rename it") from error


@cache
def _expression(part: str) -> re.Pattern:
    return re.compile(fnmatch.translate(part.strip("<>").replace("#", "[0-9]")))
