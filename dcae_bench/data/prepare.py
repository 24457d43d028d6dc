"""From a folder of image files to a manifest: layout, counts, every image read once, problems listed."""

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcae_bench.data.decode import GREYSCALE
from dcae_bench.data.external import ExternalDataset
from dcae_bench.data.layout import FileSplit, LeftOut, Listed, listing
from dcae_bench.data.manifest import ManifestInfo, ManifestWriter, Row, write_info, writing
from dcae_bench.data.scan import Memory, Reading, scan
from dcae_bench.errors import DataError
from dcae_bench.files import atomic_write

LINE_S = 60.0
"""Seconds between two lines about the progress where there is no terminal."""


class _Unusable(DataError):
    """Files that are no images: the manifest is not written, the list of problems is."""


def prepare_files(
    dataset: ExternalDataset,
    split: FileSplit,
    root: Path,
    output: Path,
    *,
    min_side: int | None = None,
    partial: bool = False,
    workers: int = 1,
    console: Console | None = None,
) -> ManifestInfo:
    """Write ``<split>.parquet``, ``<split>.json`` and ``<split>.problems.csv`` into ``output``.

    ``min_side`` is the shorter side in pixels below which an image is listed as small; ``partial`` accepts another
    count than the publisher's. Interrupted, the same call goes on where it was (:class:`dcae_bench.data.scan.Memory`).
    Raises :class:`DataError` for a layout, a count or images that do not fit, and ResultsError when ``output`` cannot
    be written.
    """
    root = Path(root).absolute()
    pattern = dataset.choose(root, split)
    left_out = LeftOut()
    count = sum(1 for _ in listing(root, pattern, left_out))
    expected = dataset.count(split)
    if expected is not None and count != expected and not partial:
        raise DataError(
            f"{root}: holds {count:,} {split} images of data set '{dataset.name}' as {pattern}, expected {expected:,}; "
            "complete it or remove what does not belong to it, or accept the count with --partial"
        )
    path = output / f"{split}.parquet"
    failure: _Unusable | None = None
    with (
        Memory(root) as memory,
        atomic_write(path.with_suffix(".problems.csv")) as report,
        _progress(console, f"{dataset.name} {split}", count) as progress,
    ):
        images = scan(root, listing(root, pattern), memory, workers=workers, progress=progress)
        try:
            with closing(images) as rows, writing(path) as writer:
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
    )
    write_info(info, path)
    return info


class _Problems:
    """The list of problems: path, problem, detail. Header alone where there are none."""

    def __init__(self, file: io.IOBase):
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
    """Write a row per sound file. Raises :class:`_Unusable` at the end if some were not."""
    bad: Counter[str] = Counter()
    first = ""
    for image, reading in rows:
        if reading.problem is not None:
            first = first or f"{root / image.path}: {reading.problem} ({reading.detail})"
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
            Row(
                image.path,
                reading.bytes,
                reading.sha256,
                reading.width,
                reading.height,
                reading.mode,
                image.label,
                "+".join(found) or "ok",
            )
        )
    if bad:
        kinds = ", ".join(f"{number:,} {problem}" for problem, number in bad.most_common())
        raise _Unusable(
            f"{first}; {bad.total():,} of {bad.total() + writer.count:,} files cannot be used ({kinds}): replace them "
            "by their publisher's and prepare again, which reads only those"
        )


@contextmanager
def _progress(console: Console | None, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many images are done: a bar on a terminal, a line a minute in a log file."""
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
