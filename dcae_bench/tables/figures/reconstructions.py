"""Figure of reconstructions: originals beside what each autoencoder makes of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.reading import load_array
from dcae_bench.records.record import Record, load
from dcae_bench.tables.figures.style import (
    CENTRED,
    DPI,
    OTHER_COLOUR,
    WIDTH_IN,
    ShownAutoencoder,
    save_figure,
)


@dataclass(frozen=True)
class ShownSamples:
    """A reconstruction record with its sample images."""

    record: Record
    images: np.ndarray
    """uint8 (k, 2, height, width, 3); index 0 of the second axis is the original, 1 the reconstruction."""


def samples_path(record_path: Path) -> Path:
    """Path of a record's sample images: ``<name>.samples.npy`` beside ``<name>.json``."""
    record_path = Path(record_path)
    return record_path.with_name(record_path.name.removesuffix(".json") + ".samples.npy")


def load_samples(record_path: Path) -> ShownSamples:
    """Read a record and its sample images. Raises :class:`ResultsError` when one is missing or malformed."""
    path = samples_path(record_path)
    try:
        images = load_array(path)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror or error}); run the evaluation again") from error
    except ValueError as error:
        raise ResultsError(f"{path}: is not a NumPy array ({error}); run the evaluation again") from error
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[1] != 2 or images.shape[4] != 3 or not len(images):
        raise ResultsError(
            f"{path}: holds {images.dtype} {images.shape}, not uint8 (k, 2, height, width, 3); run the evaluation again"
        )
    return ShownSamples(load(record_path), images)


def reconstructions_figure(items: Sequence[ShownSamples], path: Path, *, images_per_row_group: int = 1) -> None:
    """Write a PNG of originals beside reconstructions: a row per image, a column per autoencoder.

    Each data set and resolution in ``items`` gets rows for its first ``images_per_row_group`` images. The PSNR above a
    reconstruction is the mean over the data set. Raises
    :class:`ResultsError` when ``items`` is empty, or when two autoencoders show different originals in one row.
    """
    if not items:
        raise ResultsError(f"{path}: no sample images to draw; run the evaluation first")
    columns = sorted({ShownAutoencoder.of(item.record.subject) for item in items})
    rows = list(_rows(items, images_per_row_group, path))
    # Cells are square. A strip above each cell holds its caption; a strip at the top holds the column titles.
    left, top, strip, gap = 0.3, 0.34, 0.24, 0.05
    cell = (WIDTH_IN - left) / (len(columns) + 1)
    caption_size = min(8.5, 5.2 * cell)  # points, so that the longest caption fits above a cell
    longest = max(len(column.title) for column in columns)
    title_size = min(11.0, 72 * (cell - gap) / (0.72 * longest))  # a bold letter is about 0.7 of its size wide
    height = top + len(rows) * (cell + strip)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    for line, row in enumerate(rows):
        bottom = height - top - (line + 1) * (cell + strip) + gap
        label = f"{row.data_set}, {row.resolution} px"
        figure.text(0.13 / WIDTH_IN, (bottom + cell / 2) / height, label, rotation=90, size=9, **CENTRED)
        for number, column in enumerate([None, *columns]):
            at = left + number * cell
            size = cell - gap
            axes = figure.add_axes((at / WIDTH_IN, bottom / height, size / WIDTH_IN, size / height))
            axes.set_axis_off()
            if column is None:
                _show(axes, row.original, f"{row.resolution}x{row.resolution}x3", caption_size)
            elif column in row.items:
                item = row.items[column]
                _show(axes, item.images[row.place, 1], _caption(item.record), caption_size)
            else:
                axes.text(0.5, 0.5, "not run", size=9, color=OTHER_COLOUR, transform=axes.transAxes, **CENTRED)
            title, colour = ("Original", "black") if column is None else (column.title, column.colour)
            if line == 0:
                x, y = (at + size / 2) / WIDTH_IN, 1 - 0.17 / height
                figure.text(x, y, title, size=title_size, weight="bold", color=colour, **CENTRED)
    save_figure(figure, path)


class _Row(NamedTuple):
    """One row of the figure: an image, with the samples of every autoencoder that reconstructed it."""

    data_set: str
    resolution: int
    place: int
    original: np.ndarray
    items: dict[ShownAutoencoder, ShownSamples]


def _rows(items: Sequence[ShownSamples], count: int, path: Path) -> Iterator[_Row]:
    groups: dict[tuple[str, int], dict[ShownAutoencoder, ShownSamples]] = {}
    for item in items:
        data = item.record.data
        members = groups.setdefault((data.name, data.resolution), {})
        column = ShownAutoencoder.of(item.record.subject)
        if column in members:
            raise ResultsError(f"{path}: two records of one autoencoder on {data.name}; pass those of one phase")
        members[column] = item
    for (name, resolution), members in sorted(groups.items()):
        first = next(iter(members.values()))
        for place in range(min(count, *(len(item.images) for item in [first, *members.values()]))):
            original = first.images[place, 0]
            if not all(np.array_equal(item.images[place, 0], original) for item in members.values()):
                raise ResultsError(f"{path}: autoencoders show different originals of {name}; evaluate them again")
            yield _Row(name, resolution, place, original, members)


def _show(axes: Axes, image: np.ndarray, caption: str, size: float) -> None:
    axes.imshow(image)
    axes.set_title(caption, size=size, pad=2.5)


def _caption(record: Record) -> str:
    shape = record.latent_shape
    psnr = record.metrics.get("psnr")
    return f"{shape}, PSNR {psnr.value:.1f} {psnr.unit or 'dB'}" if psnr else shape
