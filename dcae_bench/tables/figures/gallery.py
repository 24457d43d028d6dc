"""Figure of one record's gallery: its worst and its median images, originals above reconstructions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.reading import load_arrays
from dcae_bench.records.record import Record, load
from dcae_bench.tables.figures.style import CENTRED, DPI, WIDTH_IN, save_figure

GROUPS = {"worst": "worst LPIPS", "median": "median LPIPS"}
"""Printed names of the groups of images, in the order of rows."""


@dataclass(frozen=True)
class Gallery:
    """A reconstruction record with the images that stand beside it as ``<set>.gallery.npz``."""

    record: Record
    images: np.ndarray
    """uint8 (k, 2, side, side, 3); index 0 of the second axis is the original, 1 the reconstruction."""
    group: np.ndarray
    """Group of each image, a key of ``GROUPS``."""
    key: np.ndarray
    """Name of each image."""
    psnr: np.ndarray
    """PSNR of each image in dB."""
    lpips: np.ndarray
    """LPIPS (AlexNet) of each image."""


PARTS = ("images", "group", "key", "psnr", "lpips_alex_u8")
"""Arrays of a gallery's file, in the order of the fields."""


def load_gallery(record_path: Path) -> Gallery:
    """Read a record and its gallery. Raises :class:`ResultsError` when one is missing or malformed."""
    path = Path(record_path).with_suffix(".gallery.npz")
    try:
        content = load_arrays(path, PARTS)
        parts = [content[name] for name in PARTS]
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror or error}); run the evaluation again") from error
    except (ValueError, KeyError) as error:
        raise ResultsError(f"{path}: is not a gallery ({error}); run the evaluation again") from error
    return Gallery(load(record_path), *parts)


def gallery_figure(gallery: Gallery, path: Path) -> None:
    """Write a PNG: a pair of rows per group, and a column per image with the image's name, PSNR and LPIPS.

    Raises :class:`ResultsError` for a gallery without images.
    """
    counts = {name: int((gallery.group == name).sum()) for name in GROUPS}
    columns = max(counts.values())
    if not columns:
        raise ResultsError(f"{path}: the gallery of this record is empty; set 'gallery' of its profile's evaluation")
    top, strip, gap, left = 0.34, 0.36, 0.05, 0.3
    cell = (WIDTH_IN - left) / max(columns, 4)
    height = top + len(GROUPS) * (2 * cell + strip)
    figure = Figure(figsize=(left + columns * cell, height), dpi=DPI, facecolor="white")
    width = left + columns * cell
    subject, data = gallery.record.subject, gallery.record.data
    title = f"{subject.autoencoder} on {data.name}, {data.resolution} px, {data.images:,} images"
    figure.text(0.5, 1 - 0.17 / height, title, size=11, weight="bold", **CENTRED)
    for place, (group, label) in enumerate(GROUPS.items()):
        start = height - top - place * (2 * cell + strip)
        figure.text(0.13 / width, (start - strip - cell) / height, label, rotation=90, size=9, **CENTRED)
        for number, index in enumerate(np.flatnonzero(gallery.group == group)):
            at, size = left + number * cell, cell - gap
            caption = (
                f"{_short(str(gallery.key[index]))}\nPSNR {gallery.psnr[index]:.1f}, LPIPS {gallery.lpips[index]:.3f}"
            )
            x = (at + size / 2) / width
            figure.text(x, (start - strip / 2) / height, caption, size=7, **CENTRED)
            for row in range(2):
                bottom = start - strip - (row + 1) * cell + gap
                axes = figure.add_axes((at / width, bottom / height, size / width, size / height))
                axes.set_axis_off()
                axes.imshow(gallery.images[index, row])
    save_figure(figure, path)


def _short(key: str, length: int = 34) -> str:
    return key if len(key) <= length else f"…{key[1 - length :]}"
