"""Figures: reconstructions side by side, and the loss curves of the three phases."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dcae_bench.errors import ResultsError
from dcae_bench.files import write_with
from dcae_bench.records import Record, Subject, load
from dcae_bench.tables.reconstruction import FAMILIES

# Okabe and Ito's palette: told apart with every common colour-vision deficiency, and in grey.
COLOURS = {"sd-vae": "#D55E00", "dc-ae": "#0072B2"}
OTHER_COLOUR = "#555555"
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
WIDTH_IN, DPI = 10.0, 150  # 1500 px: sharp in a README that shows about 1000
CENTRED = {"ha": "center", "va": "center"}
PHASES = {1: "low resolution, all", 2: "high resolution, latent layers", 3: "low resolution, GAN, head"}


class _Column(NamedTuple):
    """One autoencoder's place: by latent shape, and SD-VAE before DC-AE."""

    compression: int
    latent_channels: int
    rank: int
    family: str
    autoencoder: str

    @property
    def title(self) -> str:
        """Short name; the profile's own where it says more than family and latent shape."""
        shape = f"f{self.compression}c{self.latent_channels}"
        if self.autoencoder != f"{self.family}-{shape}":
            return self.autoencoder
        return f"{FAMILIES.get(self.family, self.family)} {shape}"

    @property
    def colour(self) -> str:
        """The family's hue."""
        return COLOURS.get(self.family, OTHER_COLOUR)


@dataclass(frozen=True)
class Samples:
    """Sample images of one reconstruction record."""

    record: Record
    images: np.ndarray
    """uint8 (k, 2, height, width, 3); index 0 of the second axis is the original, 1 the reconstruction."""


@dataclass(frozen=True)
class TrainingLog:
    """The JSON-lines log of one autoencoder in one phase."""

    autoencoder: str
    family: str
    compression: int
    latent_channels: int
    phase: int
    path: Path


def samples_path(record_path: Path) -> Path:
    """Where the sample images of a record lie: ``<name>.samples.npy`` beside ``<name>.json``."""
    record_path = Path(record_path)
    return record_path.with_name(record_path.name.removesuffix(".json") + ".samples.npy")


def load_samples(record_path: Path) -> Samples:
    """Read a record and its sample images. Raises :class:`ResultsError` when either is missing or malformed."""
    path = samples_path(record_path)
    try:
        images = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror or error}); run the evaluation again") from error
    except (ValueError, EOFError) as error:
        raise ResultsError(f"{path}: is not a NumPy array ({error}); run the evaluation again") from error
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[1] != 2 or images.shape[4] != 3 or not len(images):
        raise ResultsError(
            f"{path}: holds {images.dtype} {images.shape}, not uint8 (k, 2, height, width, 3); run the evaluation again"
        )
    return Samples(load(record_path), images)


def reconstructions_figure(items: Sequence[Samples], path: Path, *, images_per_row_group: int = 1) -> None:
    """Write a PNG of originals beside reconstructions: a row per image, a column per autoencoder.

    Rows are the first ``images_per_row_group`` images of every data set and resolution in ``items``. Raises
    :class:`ResultsError` when ``items`` is empty, or when two autoencoders show different originals in one row.
    """
    if not items:
        raise ResultsError(f"{path}: no sample images to draw; run the evaluation first")
    columns = sorted({_column(item.record.subject) for item in items})
    rows = list(_rows(items, images_per_row_group, path))
    # Cells are square; a strip above each holds its caption, one above all the column titles.
    left, top, strip, gap = 0.3, 0.34, 0.24, 0.05
    cell = (WIDTH_IN - left) / (len(columns) + 1)
    height = top + len(rows) * (cell + strip)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    for place, row in enumerate(rows):
        bottom = height - top - (place + 1) * (cell + strip) + gap
        label = f"{row.data_set}, {row.resolution} px"
        figure.text(0.13 / WIDTH_IN, (bottom + cell / 2) / height, label, rotation=90, size=9, **CENTRED)
        for number, column in enumerate([None, *columns]):
            at = left + number * cell
            size = cell - gap
            axes = figure.add_axes((at / WIDTH_IN, bottom / height, size / WIDTH_IN, size / height))
            axes.set_axis_off()
            if column is None:
                _show(axes, row.original, f"{row.resolution}x{row.resolution}x3")
            elif column in row.items:
                item = row.items[column]
                _show(axes, item.images[row.index, 1], _caption(item.record))
            else:
                axes.text(0.5, 0.5, "not run", size=9, color=OTHER_COLOUR, transform=axes.transAxes, **CENTRED)
            title, colour = ("Original", "black") if column is None else (column.title, column.colour)
            if place == 0:
                x, y = (at + size / 2) / WIDTH_IN, 1 - 0.17 / height
                figure.text(x, y, title, size=11, weight="bold", color=colour, **CENTRED)
    save_figure(figure, path)


def loss_curves_figure(logs: Sequence[TrainingLog], path: Path) -> None:
    """Write a PNG of L1 + LPIPS, as logged and smoothed, over images seen: a panel per phase, a line per autoencoder.

    Raises :class:`ResultsError` when a log cannot be read or holds no line with both losses.
    """
    figure = Figure(figsize=(WIDTH_IN, 3.5), dpi=DPI, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(PHASES))
    shapes = sorted({(log.compression, log.latent_channels) for log in logs})
    lines: dict[str, Line2D] = {}
    for (phase, title), axes in zip(PHASES.items(), panels, strict=True):
        axes.set_title(f"Phase {phase}: {title}", size=9.5)
        axes.set_xlabel("images seen")
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        for log in sorted((log for log in logs if log.phase == phase), key=_column):
            curve = log_curve(log.path, ("l1", "lpips"))
            shape = shapes.index((log.compression, log.latent_channels))
            column, style = _column(log), LINE_STYLES[shape % len(LINE_STYLES)]
            (line,) = axes.plot(curve.index, curve.to_numpy(), color=column.colour, linestyle=style, linewidth=1.6)
            lines.setdefault(column.title, line)
        if axes.lines:
            _scale(axes)
        else:
            axes.text(0.5, 0.5, "not run", color=OTHER_COLOUR, transform=axes.transAxes, **CENTRED)
    panels[0].set_ylabel("L1 + LPIPS (smoothed)")
    if lines:
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False, handlelength=3.2
        )
    save_figure(figure, path)


class _Row(NamedTuple):
    data_set: str
    resolution: int
    index: int
    original: np.ndarray
    items: dict[_Column, Samples]


def _rows(items: Sequence[Samples], count: int, path: Path) -> Iterator[_Row]:
    groups: dict[tuple[str, int], dict[_Column, Samples]] = {}
    for item in items:
        data = item.record.data
        members = groups.setdefault((data.name, data.resolution), {})
        if _column(item.record.subject) in members:
            raise ResultsError(f"{path}: two records of one autoencoder on {data.name}; pass those of one phase")
        members[_column(item.record.subject)] = item
    for (name, resolution), members in sorted(groups.items()):
        first = next(iter(members.values()))
        for index in range(min(count, *(len(item.images) for item in [first, *members.values()]))):
            original = first.images[index, 0]
            if not all(np.array_equal(item.images[index, 0], original) for item in members.values()):
                raise ResultsError(f"{path}: autoencoders show different originals of {name}; evaluate them again")
            yield _Row(name, resolution, index, original, members)


def _column(subject: Subject | TrainingLog) -> _Column:
    families = list(FAMILIES)
    rank = families.index(subject.family) if subject.family in families else len(families)
    return _Column(subject.compression, subject.latent_channels, rank, subject.family, subject.autoencoder)


def _show(axes: Axes, image: np.ndarray, caption: str) -> None:
    axes.imshow(image)
    axes.set_title(caption, size=8.5, pad=2.5)


def _caption(record: Record) -> str:
    side = record.data.resolution // record.subject.compression
    shape = f"{side}x{side}x{record.subject.latent_channels}"
    psnr = record.metrics.get("psnr")
    return f"{shape}, mean PSNR {psnr.value:.1f} {psnr.unit or 'dB'}" if psnr else shape


def log_curve(path: Path, keys: Sequence[str]) -> pd.Series:
    """Sum of some losses over images seen, smoothed by a centred mean over a twentieth of the lines.

    Raises :class:`ResultsError` when the log cannot be read or holds no line with all of them.
    """
    points: dict[int, float] = {}
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); run the training again") from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                continue  # a killed run may leave half a line; the resumed one writes it again
            raise ResultsError(f"{path}: line {number} is not JSON ({error.msg}); run the training again") from error
        if isinstance(entry, dict) and all(key in entry for key in keys):
            # A resumed run logs what followed its checkpoint again: the last word counts.
            points[entry["images"]] = sum(entry[key] for key in keys)
    if not points:
        wanted = " and ".join(f"'{key}'" for key in keys)
        raise ResultsError(f"{path}: holds no line with {wanted}; run the training again")
    images, losses = zip(*sorted(points.items()), strict=True)
    return pd.Series(losses, index=images).rolling(max(1, len(losses) // 20), center=True, min_periods=1).mean()


def _scale(axes: Axes) -> None:
    """Plain numbers on both axes."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}"))
    scale_loss(axes)


def scale_loss(axes: Axes) -> None:
    """Plain numbers on the loss axis, which is logarithmic where the loss falls by more than a factor of 3."""
    losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if 0 < losses.min() < losses.max() / 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically. Raises :class:`ResultsError` when the folder cannot be written."""

    def save(file: BinaryIO) -> None:
        # Without the version stamp, equal inputs give equal bytes.
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})

    write_with(Path(path), save)
