"""Listing: where the images of a split lie below a root, as files or in containers, and their names in order."""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dcae_bench.base.errors import DataError
from dcae_bench.data.containers.index import Indexed, MemberIndex
from dcae_bench.data.containers.kinds import COMPRESSED, KINDS, is_container
from dcae_bench.data.external import ExternalDataset
from dcae_bench.data.layout import (
    ANY,
    FileSplit,
    LeftOut,
    Listed,
    describe_folder,
    describe_patterns,
    enumerate_names,
    find_pattern,
    fit,
    label_of,
    list_containers,
    list_images,
)

WORDS: dict[str, FileSplit] = {
    "train": "train",
    "training": "train",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "dev": "eval",
    "eval": "eval",
    "evaluation": "eval",
    "test": "test",
    "testing": "test",
}
"""Words in the names of containers that say of which split their images are, as the library ``datasets`` reads them."""


SHARD = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)", re.DOTALL)
"""A container that is one of several, as the library ``datasets`` names them: ``train-00000-of-00014.parquet``."""


class NothingFoundError(DataError):
    """A root without images of a split."""


class MissingShardError(DataError):
    """A root where one of several numbered containers is missing: ``state`` says which, the others fit ``pattern``."""

    def __init__(self, state: str, pattern: str):
        super().__init__(
            f"{state}; get it, name those that you mean by a pattern ({pattern}), or accept them (--partial, or "
            "partial of the profile)"
        )
        self.state, self.pattern = state, pattern


class ImageList:
    """The images of a split, sorted by the parts of their paths, as often as they are asked for.

    :attr:`containers` are paths below :attr:`root` ("" is the root itself); without them, the images are files. An
    image without a label of its own, of a data set without a layout, is labelled by its class folder: the first folder
    that not all images share.
    """

    def __init__(self, root: Path, pattern: str, *, index: MemberIndex | None = None, follow_links: bool = False):
        self.root, self.pattern, self.follow_links = root, pattern, follow_links
        self.containers = () if index is None else tuple(index.containers)
        self._index = index
        self.left_out = LeftOut()
        self.count, self._depth = self._measure()

    def __iter__(self) -> Iterator[Listed]:
        return map(self._labelled, self._listed())

    def in_stored_order(self) -> Iterator[Listed]:
        """The images in the order in which containers hold them, which is the fastest to read; none if files do."""
        return iter(()) if self._index is None else self._fitting(self._index.stored())

    def _listed(self, left_out: LeftOut | None = None) -> Iterator[Listed]:
        if self._index is None:
            return list_images(self.root, self.pattern, left_out, follow_links=self.follow_links)
        return self._fitting(self._index.sorted(), left_out)

    def _fitting(self, images: Iterator[Indexed], left_out: LeftOut | None = None) -> Iterator[Listed]:
        for path, label, location, crc in images:
            if self.pattern == ANY:
                yield Listed(path, label, location, crc)
            elif (match := fit(path, self.pattern)) is not None:
                yield Listed(path, label_of(match) or label, location, crc)
            elif left_out is not None:
                left_out.add(path)

    def _measure(self) -> tuple[int, int | None]:
        """Number of images, and the place of the class folder in their paths; None if folders are no classes."""
        count, labelled = 0, self.pattern != ANY
        shared: list[str] | None = None
        shortest: int | None = None
        for image in self._listed(self.left_out):
            count += 1
            labelled = labelled or image.label is not None
            folders = image.path.split("/")[:-1]
            shortest = len(folders) if shortest is None else min(shortest, len(folders))
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(shared or folders, folders, strict=False))
            shared = [folder for folder, _ in same] if shared != [] else shared
        if self._index is not None:
            self.left_out.count += self._index.others
            self.left_out.first = self.left_out.first or self._index.first_other
            labelled = labelled or self._index.numbered
        # Where all images share all folders, the last folder is their one class.
        depth = None if labelled or not count else max(0, min(len(shared or ()), (shortest or 0) - 1))
        return count, depth

    def _labelled(self, image: Listed) -> Listed:
        if self._depth is None:
            return image
        folders = image.path.split("/")[:-1]
        return image._replace(label=folders[self._depth]) if len(folders) > self._depth else image


def find_images(
    dataset: ExternalDataset,
    root: Path,
    split: str,
    *,
    follow_links: bool = False,
    partial: bool = False,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> ImageList:
    """Find the images of a split below ``root``: files of its layout, else those of containers.

    ``root`` is a folder, a container, or a pattern of containers in one folder (``train-*.tar``). The images of
    containers have the paths that unpacking each where it lies would give them. Where these fit no layout, the names of
    the containers say of which split they are (:data:`WORDS`). ``partial`` accepts shards of which some are missing.
    ``progress`` is called with the container that is being listed and the number of images found. Raises
    :class:`NothingFoundError` and other :class:`DataError`.
    """
    patterns = dataset.patterns(split)
    root = root.absolute()
    whole = root.is_dir()
    if whole:
        if (found := find_pattern(root, patterns, follow_links=follow_links)) is not None:
            return ImageList(root, found, follow_links=follow_links)
        containers = list_containers(root, follow_links=follow_links)
    elif root.exists():
        containers = [""]
    else:
        root, containers = root.parent, _matching(root)
    chosen, sure = _of_split(dataset, split, root, containers)
    if chosen:
        if whole and not partial:
            _require_all_shards(root, chosen)
        index = MemberIndex(root, chosen, progress)
        fitting = _first_pattern(index, patterns) or (ANY if sure and len(index) else None)
        if fitting is not None:
            return ImageList(root, fitting, index=index, follow_links=follow_links)
        seen = f"{enumerate_names([name or root.name for name in chosen])} with {index.describe()}"
    else:
        seen = enumerate_names(containers) if not root.is_dir() else describe_folder(root)
    raise _nothing_found(dataset, root, split, seen, containers, follow_links)


def _matching(pattern: Path) -> list[str]:
    """Containers in the folder of ``pattern`` whose names fit it."""
    names = sorted(entry.name for entry in pattern.parent.iterdir()) if pattern.parent.is_dir() else []
    found = [name for name in names if fnmatchcase(name, pattern.name) and is_container(name)]
    if not found:
        raise DataError(f"{pattern}: is not there; name a folder, a container or a pattern of containers")
    return found


def _require_all_shards(root: Path, containers: Sequence[str]) -> None:
    """Refuse shards that are numbered ``00001-of-00004`` if others of their number are missing."""
    present: dict[tuple[str, str, str], set[int]] = {}
    for match in filter(None, map(SHARD.fullmatch, containers)):
        before, number, total, after = match.groups()
        present.setdefault((before, total, after), set()).add(int(number))
    for (before, total, after), numbers in present.items():
        missing = [number for number in range(int(total)) if number not in numbers]
        if missing:
            name = f"{before}{missing[0]:0{len(total)}}-of-{total}{after}"
            raise MissingShardError(
                f"{root / name}: is missing, as {len(missing):,} of {int(total):,} shards", f"{before}*{after}"
            )


def _of_split(
    dataset: ExternalDataset, split: str, root: Path, containers: Sequence[str]
) -> tuple[Sequence[str], bool]:
    """Containers that may hold images of a split, and whether all their images are of the split.

    A data set of one split has all containers. The user's own data set has all, too, unless their names say several
    splits; then a test split stands in for a missing evaluation split.
    """
    words = {container: _word(container or root.name) for container in containers}
    said = set(words.values()) - {None}
    if len(dataset.splits) == 1:
        return containers, True
    if dataset.is_own:
        if len(said) < 2:
            return containers, True
        wanted = "test" if split == "eval" and "eval" not in said else split
        return [container for container in containers if words[container] == wanted], True
    named = [container for container in containers if words[container] == split]
    return (named, True) if named else ([name for name in containers if words[name] is None], False)


def _word(container: str) -> FileSplit | None:
    """The split that a container's name says, else the folders above it; None if none or several are said."""
    for part in reversed(container.split("/")):
        said = {WORDS[word] for word in re.split("[^a-z]+", part.lower()) if word in WORDS}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _first_pattern(index: MemberIndex, patterns: Sequence[str]) -> str | None:
    for pattern in patterns:
        if pattern != ANY and any(fit(image.path, pattern) for image in index.sorted()):
            return pattern
    return None


def _nothing_found(
    dataset: ExternalDataset, root: Path, split: str, seen: str, containers: Sequence[str], follow_links: bool
) -> NothingFoundError:
    def is_there(other: FileSplit) -> bool:
        if root.is_dir() and find_pattern(root, dataset.patterns(other), follow_links=follow_links) is not None:
            return True
        return any(_word(container or root.name) == other for container in containers)

    there = [other for other in dataset.splits if other != split and is_there(other)]
    options = " ".join(f"--split {other}" for other in there)
    only = f", or prepare only what is there ({options})" if there else ""
    packed = [name for name in os.listdir(root) if name.lower().endswith(COMPRESSED)] if root.is_dir() else []
    decompress = f"decompress {min(packed)}, whose members cannot be read in place, or " if packed else ""
    return NothingFoundError(
        f"{root}: holds no {split} images of data set '{dataset.name}'; looked for "
        f"{describe_patterns(dataset.patterns(split))} in the folder and in {', '.join(KINDS)} files, found {seen}; "
        f"{decompress}{dataset.how_to_get()}set --root to the folder that holds them{only}"
    )
