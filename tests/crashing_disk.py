"""A disk that crashes: copies of a folder as a crash of the machine would leave it, made while a command runs.

Only what was synced is sure to be there: the content of a file as of its last fsync, the names in a folder as of the
folder's last fsync. Everything since then may be there or not, in any order, and blocks of a file that were not synced
may be zeros.
"""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "pwrite", "truncate")
"""Functions of ``os`` that change the disk; a crash may come before each call."""
BLOCK = 64
MODES = (
    ("durable", "durable"),
    ("current", "zeros"),
    ("current", "durable"),
    ("mixed", "blocks"),
    ("mixed", "zeros"),
    ("durable", "blocks"),
)
"""Which names and which contents a crash leaves: a copy takes each in turn."""


class CrashingDisk:
    """Watches one folder. The number of a crash point is the number of calls before it."""

    def __init__(self, root: Path, copies: Path, *, every: int, first: int = 0, modes: int = 1):
        """Make ``modes`` copies of ``root`` in ``copies`` at every ``every``-th point from ``first`` on."""
        self.root, self.copies, self.every, self.first, self.modes = root, copies, every, first, modes
        self.points = 0
        self.made: list[Path] = []
        self._kept = copies / "kept"
        self._contents: dict[int, bytes] = {}
        self._names: dict[tuple, dict[str, tuple]] = {}
        self._generation: dict[int, int] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._kept.mkdir(parents=True)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count and copy while the block runs. What is in the folder before is on disk."""
        for folder, _, files in os.walk(self.root):
            for name in files:
                self._sync_file(Path(folder, name))
            self._sync_folder(Path(folder))
        real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, self._watched(name, real[name]))
        self._real = real
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _watched(self, name, function):
        def call(*arguments, **keywords):
            self._point()
            result = function(*arguments, **keywords)
            if name == "fsync":
                path = Path(os.readlink(f"/proc/self/fd/{arguments[0]}"))
                if path.is_relative_to(self.root):
                    (self._sync_folder if path.is_dir() else self._sync_file)(path)
            elif name == "mkdir" and "dir_fd" not in keywords:
                number = os.stat(arguments[0]).st_ino  # a new folder may have the number of one that was removed
                self._generation[number] = self._generation.get(number, 0) + 1
            return result

        return call

    def _sync_file(self, path: Path) -> None:
        self._contents[self._keep(path)] = path.read_bytes()

    def _sync_folder(self, path: Path) -> None:
        self._names[self._key(path)] = self._list(path, keep=True)

    def _keep(self, path: Path) -> int:
        """Hold a file, so that no other file gets its number."""
        number = path.stat().st_ino
        kept = self._kept / str(number)
        if not kept.exists():
            os.link(path, kept)
        return number

    def _key(self, path: Path) -> tuple:
        number = path.stat().st_ino
        return ("folder", number, self._generation.get(number, 0)) if path.is_dir() else ("file", number)

    def _list(self, path: Path | None, *, keep: bool = False) -> dict[str, tuple]:
        if path is None:
            return {}
        found = {}
        for inner in path.iterdir():
            if keep and not inner.is_dir():
                self._keep(inner)
            found[inner.name] = self._key(inner)
        return found

    def _point(self) -> None:
        number = self.points
        self.points += 1
        if number < self.first or (number - self.first) % self.every:
            return
        for name, function in self._real.items():  # copying is no event
            setattr(os, name, function)
        try:
            for _ in range(self.modes):
                names, content = MODES[len(self.made) % len(MODES)]
                target = self.copies / f"{number}-{names}-{content}"
                self._copy(self._key(self.root), self.root, target, names, content, random.Random(number))
                self.made.append(target)
        finally:
            for name, function in self._real.items():
                setattr(os, name, self._watched(name, function))

    def _copy(self, key, current, target, names, content, chance) -> None:
        """Copy a folder; ``current`` is its path now, or None where only its durable names are left."""
        target.mkdir()
        durable, now = self._names.get(key, {}), self._list(current)
        for name in sorted({*durable, *now}):
            take_now = names == "current" or (names == "mixed" and chance.random() < 0.5)
            found = (now if take_now else durable).get(name)
            if found is None:
                continue
            path = current / name if current is not None and now.get(name) == found else None
            if found[0] == "folder":
                self._copy(found, path, target / name, names, content, chance)
            else:
                (target / name).write_bytes(self._content(found[1], path, content, chance))

    def _content(self, number: int, path: Path | None, content: str, chance: random.Random) -> bytes:
        durable = self._contents.get(number, b"")
        kept = self._kept / str(number)
        now = (path or kept).read_bytes() if path is not None or kept.exists() else durable
        if content == "durable":
            return durable
        padded = durable[: len(now)] + bytes(max(0, len(now) - len(durable)))
        if content == "zeros":
            return padded
        starts = range(0, len(now), BLOCK)
        return b"".join((now if chance.random() < 0.5 else padded)[start : start + BLOCK] for start in starts)

    def clean(self) -> None:
        """Remove what the disk keeps beside the copies."""
        shutil.rmtree(self._kept)
