"""Preparation of a data set of files: find its layout, count and read every image, write manifest and problems."""

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import atomic_write, sha256_file
from dcae_bench.base.terminal import Console, Progress, TextColumn
from dcae_bench.data.containers.kinds import place_of
from dcae_bench.data.decode import GREYSCALE
from dcae_bench.data.external import ExternalDataset
from dcae_bench.data.layout import FileSplit, Listed, enumerate_names
from dcae_bench.data.listing import find_images
from dcae_bench.data.manifest import ManifestInfo, ManifestRow, ManifestWriter, open_writer, write_info
from dcae_bench.data.scan import Reading, ScanCache, scan

LINE_S = 60.0
"""Seconds between two progress lines in a log file."""


class _Unusable(DataError):
    """Some files are no usable images: no manifest is written, but the list of problems is."""


def prepare_files(
    dataset: ExternalDataset,
    split: FileSplit,
    root: Path,
    output: Path,
    *,
    min_side: int | None = None,
    partial: bool = False,
    follow_links: bool = False,
    workers: int = 1,
    console: Console | None = None,
) -> ManifestInfo:
    """Write ``<split>.parquet``, ``<split>.json`` and ``<split>.problems.csv`` of the images below ``root``.

    The three files go into ``output``. ``root`` is a folder, a container or a pattern of containers
    (:func:`~dcae_bench.data.listing.find_images`). An image whose shorter side is below ``min_side`` pixels gets the
    status ``small``. ``partial`` accepts a number of images other than the publisher's, and missing shards;
    ``follow_links`` follows links out of the root. After an interruption the same call continues where it stopped
    (:class:`dcae_bench.data.scan.ScanCache`). Raises :class:`DataError` for a layout, a count or images that do not
    fit, and :class:`ResultsError` when ``output`` cannot be written.
    """
    with _counting(console, f"{dataset.name} {split}") as found:
        images = find_images(dataset, Path(root), split, follow_links=follow_links, partial=partial, progress=found)
    root, pattern, count, left_out = images.root, images.pattern, images.count, images.left_out
    if left_out.containers and console is not None:
        console.print(
            f"{dataset.name} {split}: {enumerate_names(left_out.containers)} not read, because image files lie beside; "
            "name containers as the root to read them",
            soft_wrap=True,
        )
    expected = dataset.expected_count(split)
    if expected is not None and count != expected and not partial:
        raise DataError(
            f"{root}: holds {count:,} {split} images of data set '{dataset.name}' as {pattern}, expected {expected:,}; "
            "complete it or remove what does not belong to it, or accept the count (--partial, or "
            "partial of the profile)"
        )
    path = output / f"{split}.parquet"
    failure: _Unusable | None = None
    with (
        ScanCache(root) as cache,
        atomic_write(path.with_suffix(".problems.csv")) as report,
        _progress(console, f"{dataset.name} {split}", count) as progress,
    ):
        try:
            # A first pass in the order of the containers reads each once; the second then finds all in the cache.
            for _ in scan(root, images.in_stored_order(), cache, workers=workers, progress=progress):
                pass
            scanned = scan(root, images, cache, workers=workers, progress=progress)
            with closing(scanned) as rows, open_writer(path, in_containers=bool(images.containers)) as writer:
                _fill(writer, rows, min_side, _Problems(report), root)
                if writer.count != count:
                    raise DataError(
                        f"{root}: held {count:,} {split} images when they were counted and {writer.count:,} when they "
                        "were read; prepare again when nothing changes the folder"
                    )
                tree_sha256 = writer.finish()
        except _Unusable as error:
            failure = error
    if failure is not None:
        raise DataError(f"{failure}; all are listed in {path.with_suffix('.problems.csv')}")
    info = ManifestInfo(
        name=dataset.name,
        split=split,
        root=str(root),
        containers=images.containers,
        follow_links=follow_links,
        pattern=pattern,
        layout_version=dataset.layout.version,
        count=writer.count,
        expected=expected,
        partial=expected is not None and writer.count != expected,
        bytes=writer.bytes,
        min_side=min_side,
        problems=dict(sorted(writer.problems.items())),
        left_out=left_out.count,
        tree_sha256=tree_sha256,
        sha256=sha256_file(path),
    )
    write_info(info, path)
    return info


class _Problems:
    """Writer of the list of problems, a CSV file with the columns path, problem and detail."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._write("path", "problem", "detail")

    def add(self, path: str, problem: str, detail: str) -> None:
        self._write(path, problem, detail)

    def _write(self, *cells: str) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.write(line.getvalue().encode())


def _fill(
    writer: ManifestWriter,
    rows: Iterable[tuple[Listed, Reading]],
    min_side: int | None,
    problems: _Problems,
    root: Path,
) -> None:
    """Write a row for each usable file. Raises :class:`_Unusable` after the last file if some were not usable."""
    bad: Counter[str] = Counter()
    first = ""
    for image, reading in rows:
        if reading.problem is not None:
            place = place_of(root, image.path, image.location)
            first = first or f"{place.name}: {reading.problem} ({reading.detail})"
            bad[reading.problem] += 1
            problems.add(image.path, reading.problem, reading.detail)
            continue
        size = f"{reading.width}x{reading.height}"
        found = {"greyscale": f"mode {reading.mode}"} if reading.mode in GREYSCALE else {}
        if min_side is not None and min(reading.width, reading.height) < min_side:
            found["small"] = f"{size}, asked for {min_side}"
        for problem, detail in found.items():
            problems.add(image.path, problem, detail)
        writer.add(
            ManifestRow(
                image.path,
                reading.bytes,
                reading.sha256,
                reading.width,
                reading.height,
                reading.mode,
                image.label,
                "+".join(found) or "ok",
                *(image.location or ()),
            )
        )
    if bad:
        kinds = ", ".join(f"{number:,} {problem}" for problem, number in bad.most_common())
        # No publisher has another file of a kind that is whole but not supported.
        remedy = "save them with 8 bits" if set(bad) == {"unsupported"} else "replace them by their publisher's"
        raise _Unusable(
            f"{first}; {bad.total():,} of {bad.total() + writer.count:,} files cannot be used ({kinds}): {remedy} "
            "and run the same command again, which reads only those"
        )


@contextmanager
def _counting(console: Console | None, name: str) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that shows how many images were found in containers, like :func:`_progress`."""
    on_terminal = console is not None and console.is_terminal
    said = time.monotonic()
    with Progress(TextColumn("{task.description}"), console=console, disable=not on_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        def found(container: str, count: int) -> None:
            nonlocal said
            line = f"{name}: {count:,} images found, listing {container or 'the container'}"
            bar.update(task, description=line)
            if console is not None and not on_terminal and time.monotonic() - said > LINE_S:
                said = time.monotonic()
                console.print(line, soft_wrap=True)

        yield found


@contextmanager
def _progress(console: Console | None, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many images are done: a bar on a terminal, a line a minute in a log file."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    on_terminal = console is not None and console.is_terminal
    said = time.monotonic()
    with Progress(*columns, console=console, disable=not on_terminal) as bar:
        task = bar.add_task(name, total=total)

        def progress(done: int) -> None:
            nonlocal said
            bar.update(task, completed=done)
            if console is not None and not on_terminal and time.monotonic() - said > LINE_S:
                said = time.monotonic()
                console.print(f"{name}: {done:,} of {total:,} images", soft_wrap=True)

        yield progress
