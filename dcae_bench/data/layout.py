"""Layouts: patterns that say where a data set keeps the images of a split, and the listing of those images."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
    """The files beside the images that are not part of the layout: their number, the first one, and containers."""

    count: int = 0
    first: str | None = None
    containers: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """Count one more file."""
        self.count += 1
        self.first = self.first or path
        if is_container(path):
            self.containers.append(path)


def list_images(
    root: Path, pattern: str, left_out: LeftOut | None = None, *, follow_links: bool = False
) -> Iterator[Listed]:
    """List the images that fit ``pattern``, sorted by the parts of their paths.

    A pattern is written as in a shell, one part per folder and one for the file: ``train/<n########>/*.JPEG``. In
    addition ``#`` stands for a digit, and angle brackets mark the text that is the label. ``left_out`` counts the files
    beside the images that do not fit. ``follow_links`` takes what lies behind links out of the root for part of it.
    Memory holds the entries of the current folder and of its parents, never the whole list. Raises :class:`DataError`
    for a folder that cannot be read, a link that leads out of the root, images that links would count twice, and a name
    that is not UTF-8.
    """
    walk = _Walk(root, LeftOut() if left_out is None else left_out, follow_links)
    if pattern == ANY:
        yield from walk.below("", _is_image)
    else:
        yield from walk.fitting("", tuple(pattern.split("/")), None)


def list_containers(root: Path, *, follow_links: bool = False) -> list[str]:
    """Paths of the containers below ``root``, sorted by their parts; only "" where the root itself is one.

    Linked folders are left out unless ``follow_links``. Raises :class:`DataError` as :func:`list_images` does.
    """
    if root.is_file():
        return [""]
    walk = _Walk(root, LeftOut(), follow_links, skip_links=True)
    return [image.path for image in walk.below("", is_container)]


def find_pattern(root: Path, patterns: Sequence[str], *, follow_links: bool = False) -> str | None:
    """The first pattern that any file below ``root`` fits, or None. Raises :class:`DataError`."""
    for pattern in patterns:
        if next(list_images(root, pattern, follow_links=follow_links), None) is not None:
            return pattern
    return None


def fit(path: str, pattern: str) -> re.Match | None:
    """Match the path of an image in a container with a pattern; its group ``label`` is the label, if there is one."""
    return _whole(pattern).fullmatch(path)


def label_of(match: re.Match) -> str | None:
    """Label in a path that fits a pattern."""
    return match.groupdict().get("label")


def describe_patterns(patterns: Sequence[str]) -> str:
    """Name patterns in a message."""
    return " or ".join("images at any depth" if pattern == ANY else pattern for pattern in patterns)


def describe_folder(root: Path, most: int = 4) -> str:
    """Name the first ``most`` entries of a folder in a message, and count the rest. Raises :class:`DataError`."""
    return enumerate_names([entry.name + ("/" if entry.is_dir() else "") for entry in _entries(root, "")], most)


def enumerate_names(names: Sequence[str], most: int = 4) -> str:
    """Name the first ``most`` of some names in a message, and count the rest."""
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class _Walk:
    """One pass over the folders below a root."""

    def __init__(self, root: Path, left_out: LeftOut, follow_links: bool, *, skip_links: bool = False):
        self.root, self.left_out, self.follow_links, self.skip_links = root, left_out, follow_links, skip_links
        self._linked: set[Path] = set()
        self._above: set[Path] = set()

    def fitting(self, folder: str, parts: tuple[str, ...], label: str | None) -> Iterator[Listed]:
        """Files whose further path fits ``parts``."""
        part, rest = parts[0], parts[1:]
        for entry in _entries(self.root, folder):
            path = f"{folder}{entry.name}"
            match = _expression(part).fullmatch(entry.name)
            if match is None or entry.is_dir() != bool(rest):
                if not rest and not entry.is_dir():
                    self.left_out.add(path)
                continue
            self._check(entry, path)
            found = label_of(match) or label
            if rest:
                yield from self.fitting(f"{path}/", rest, found)
            else:
                yield Listed(path, found)

    def below(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Listed]:
        """Files at any depth whose names are ``wanted``."""
        for entry in _entries(self.root, folder):
            path = f"{folder}{entry.name}"
            hidden = entry.name.startswith(".")
            if entry.is_dir():
                if hidden or (self.skip_links and not self.follow_links and entry.is_symlink()):
                    continue
                if entry.is_symlink() and not self.follow_links:
                    raise DataError(
                        f"{self.root / path}: is a link to a folder, whose images might count twice; move the folder "
                        "itself here, or let links be followed (--follow-links, or follow_links of the profile)"
                    )
                self._check(entry, path, once=True)
                yield from self.below(f"{path}/", wanted)
            elif hidden or not wanted(entry.name):
                self.left_out.add(path)
            else:
                self._check(entry, path)
                yield Listed(path, None)

    def _check(self, entry: os.DirEntry, path: str, *, once: bool = False) -> None:
        """Refuse an entry that may not be listed; ``once``: also a link to a folder that is listed anyway."""
        if entry.is_symlink():
            if not self.follow_links:
                path_inside(self.root, path)
            elif entry.is_dir():
                self._require_new(path, once)
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{self.root}: holds the name {entry.name!r}, which is not UTF-8; rename it") from error

    def _require_new(self, path: str, once: bool) -> None:
        """Refuse a link to a folder that the walk has behind another link, or would see for ever."""
        real = Path(os.path.realpath(self.root / path))
        root = Path(os.path.realpath(self.root))
        if real == root or real in root.parents or (once and root in real.parents):
            twice = str(root)
        elif root in real.parents:
            return  # a layout does not list both
        else:
            twice = next((str(other) for other in (real, *real.parents) if other in self._linked), "")
            twice = twice or (str(real) if real in self._above else "")
        if twice:
            raise DataError(
                f"{self.root / path}: is a link to {real}, whose images would count twice, because {twice} is listed "
                "too; remove the link"
            )
        self._linked.add(real)
        self._above.update(real.parents)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entries(root: Path, folder: str) -> list[os.DirEntry]:
    """Entries of a folder, sorted by the code points of their names: the same order on every system."""
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{root / folder}: cannot be listed ({error.strerror}); make the folder readable") from error


@cache
def _expression(part: str) -> re.Pattern:
    return re.compile(_translated(part), re.DOTALL)


@cache
def _whole(pattern: str) -> re.Pattern:
    return re.compile("/".join(map(_translated, pattern.split("/"))), re.DOTALL)


TOKEN = re.compile(r"\[[^]]+\]|.", re.DOTALL)
MEANINGS = {"*": "[^/]*", "?": "[^/]", "#": "[0-9]", "<": "(?P<label>", ">": ")"}


def _translated(part: str) -> str:
    """Regular expression of one part of a pattern."""
    tokens = TOKEN.findall(part)
    return "".join(
        token.replace("[!", "[^") if len(token) > 1 else MEANINGS.get(token, re.escape(token)) for token in tokens
    )
