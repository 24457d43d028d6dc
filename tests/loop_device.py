"""A real file system that crashes: an ext4 image on a loop device, copied while a command writes to it.

The copy holds what the kernel has written to the device so far, as a machine without power would. Mounting it replays
the journal of ext4. This needs root and loop devices; elsewhere `crashing_disk.py` stands for it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crashing_disk import CALLS

SIZE = 64 << 20


def run(*command: object) -> None:
    """Run a command of the system. Raises :class:`RuntimeError` with what it printed."""
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.returncode}")


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """Mount an image for the block. Raises :class:`RuntimeError` where this machine cannot."""
    folder = image.with_suffix(".mounted")
    folder.mkdir()
    run("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        # A process of a pool that ends with the command may still have a file open: the folder is detached at once,
        # and the file system ends with that process.
        run("umount", "--lazy", folder)
        folder.rmdir()


def make_image(path: Path) -> Path:
    """Make an empty file system. Raises :class:`RuntimeError` where this machine cannot."""
    with open(path, "wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", path)
    return path


class LoopDisk:
    """Copies the image before some of the calls that change the disk; the command waits for the copy."""

    def __init__(self, image: Path, copies: Path, *, every: int):
        """Copy ``image`` into ``copies`` at every ``every``-th call."""
        self.image, self.copies, self.every = image, copies, every
        self.points = 0
        self.made: list[Path] = []
        copies.mkdir(exist_ok=True)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count and copy while the block runs."""
        real = {name: getattr(os, name) for name in CALLS}

        def watched(name):
            def call(*arguments, **keywords):
                self.points += 1
                if self.points % self.every == 0:
                    for other, function in real.items():  # copying is no event
                        setattr(os, other, function)
                    self._copy()
                    arm()
                return real[name](*arguments, **keywords)

            return call

        def arm():
            for name in CALLS:
                setattr(os, name, watched(name))

        arm()
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _copy(self) -> None:
        target = self.copies / f"{self.points}.img"
        while True:  # a copy during which the kernel wrote is no moment of the disk
            before = self.image.stat()
            shutil.copyfile(self.image, target)
            after = self.image.stat()
            if (before.st_mtime_ns, before.st_blocks) == (after.st_mtime_ns, after.st_blocks):
                self.made.append(target)
                return
