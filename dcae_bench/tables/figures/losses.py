"""Figure of training losses: L1 + LPIPS of each autoencoder in the three phases, read from the training logs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dcae_bench.base.errors import ResultsError
from dcae_bench.base.files import read_bytes
from dcae_bench.base.reading import parse_json
from dcae_bench.records.subject import Subject
from dcae_bench.tables.figures.style import (
    CENTRED,
    DPI,
    LINE_STYLES,
    OTHER_COLOUR,
    WIDTH_IN,
    ShownAutoencoder,
    save_figure,
)

PHASES = {1: "low resolution, all", 2: "high resolution, latent layers", 3: "low resolution, GAN, head"}
"""What each phase trains on, and which layers."""


@dataclass(frozen=True)
class LossCurve:
    """The log of one autoencoder's training in one phase."""

    subject: Subject
    path: Path
    """Log with one JSON object a line."""

    @property
    def phase(self) -> int:
        """Phase that was trained."""
        return self.subject.phase or 1


def loss_curves_figure(logs: Sequence[LossCurve], path: Path) -> None:
    """Write a PNG of L1 + LPIPS, as logged and smoothed, over images seen: a panel per phase, a line per autoencoder.

    Raises :class:`ResultsError` when a log cannot be read or holds no line with both losses.
    """
    figure = Figure(figsize=(WIDTH_IN, 3.5), dpi=DPI, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(PHASES))
    shapes = sorted({(log.subject.compression, log.subject.latent_channels) for log in logs})
    lines: dict[str, Line2D] = {}
    for (phase, title), axes in zip(PHASES.items(), panels, strict=True):
        axes.set_title(f"Phase {phase}: {title}", size=9.5)
        axes.set_xlabel("images seen")
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        for log in sorted(
            (log for log in logs if log.phase == phase), key=lambda log: ShownAutoencoder.of(log.subject)
        ):
            curve = log_curve(log.path, ("l1", "lpips"))
            shape = shapes.index((log.subject.compression, log.subject.latent_channels))
            model, style = ShownAutoencoder.of(log.subject), LINE_STYLES[shape % len(LINE_STYLES)]
            (line,) = axes.plot(curve.index, curve.to_numpy(), color=model.colour, linestyle=style, linewidth=1.6)
            lines.setdefault(model.title, line)
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


def log_curve(path: Path, keys: Sequence[str]) -> pd.Series:
    """Sum of the losses ``keys`` over images seen, smoothed by a centred mean over a twentieth of the lines.

    Raises :class:`ResultsError` when the log cannot be read or holds no line with all losses.
    """
    points: dict[int, float] = {}
    try:
        lines = read_bytes(path).splitlines()
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); run the training again") from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
        except ValueError as error:
            if number == len(lines):
                continue  # a killed run may leave half a line; the resumed run logs the step again
            raise ResultsError(f"{path}: line {number} is not JSON ({error}); run the training again") from error
        if isinstance(entry, dict) and all(isinstance(entry.get(key), int | float) for key in ("images", *keys)):
            # A resumed run logs the steps after its checkpoint a second time; the last line of a step counts.
            points[entry["images"]] = sum(entry[key] for key in keys)
    if not points:
        wanted = " and ".join(f"'{key}'" for key in keys)
        raise ResultsError(f"{path}: holds no line with {wanted}; run the training again")
    images, losses = zip(*sorted(points.items()), strict=True)
    return pd.Series(losses, index=images).rolling(max(1, len(losses) // 20), center=True, min_periods=1).mean()


def _scale(axes: Axes) -> None:
    """Print plain numbers on both axes."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}"))
    scale_loss(axes)


def scale_loss(axes: Axes) -> None:
    """Print plain numbers on the loss axis, and make it logarithmic if the loss falls by more than a factor of 3."""
    losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if 0 < losses.min() < losses.max() / 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
