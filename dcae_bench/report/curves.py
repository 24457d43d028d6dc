"""Loss curves of trainings, read from the logs that lie beside the records of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dcae_bench.records.places import Places
from dcae_bench.records.record import Record, load
from dcae_bench.report.sources import Source
from dcae_bench.tables.figures.losses import log_curve
from dcae_bench.tables.runs import CONTROL

LOSSES = {"l1": "L1", "lpips": "LPIPS"}
"""Losses of an autoencoder's training, with their printed names."""
POINTS = 80
"""Most points of a curve: a chart is no wider than a few hundred px."""


@dataclass(frozen=True)
class Curve:
    """A smoothed loss by images seen or by operations."""

    name: str
    family: str
    points: Sequence[tuple[float, float]]


def phase_curves(source: Source) -> dict[tuple[int, tuple[str, ...]], list[Curve]]:
    """Losses by images seen of the trainings behind a run's reconstructions, by phase and by the summed losses.

    The losses are those of :data:`LOSSES` that a training has.

    A training whose weights are not those that were measured is left out. Raises :class:`ResultsError` for a log that
    is damaged.
    """
    found: dict[tuple[int, tuple[str, ...]], list[Curve]] = {}
    seen = set()
    for run in source.reconstruction.runs if source.reconstruction else ():
        subject, places = run.record.subject, Places.around(run.path)
        key = subject.autoencoder, subject.phase
        if places is None or subject.phase is None or subject.family == CONTROL or key in seen:
            continue
        seen.add(key)
        path = Path(places.training(subject.autoencoder, subject.phase, "record.json"))
        log = path.with_name("log.jsonl")
        if not path.exists() or not log.exists():
            continue
        record = load(path)
        losses = tuple(key for key in LOSSES if key in record.metrics)
        if losses and record.subject.weights_sha256 == subject.weights_sha256:
            curve = log_curve(log, losses)
            found.setdefault((subject.phase, losses), []).append(
                Curve(subject.autoencoder, subject.family, list(_points(curve)))
            )
    return dict(sorted(found.items()))


def denoiser_curves(source: Source) -> dict[str, list[Curve]]:
    """Loss by training FLOPs of the denoisers that were sampled, by process, as their losses differ in meaning."""
    found: dict[str, list[Curve]] = {}
    seen = set()
    for run in source.generation.runs if source.generation else ():
        denoiser, places, training = run.denoiser, Places.around(run.path), run.training
        if places is None or training is None or denoiser.row in seen:
            continue
        seen.add(denoiser.row)
        log = Path(places.denoiser(denoiser.row, "log.jsonl"))
        if log.exists() and _same(Path(places.denoiser(denoiser.row, "record.json")), training):
            per_image = training.metrics["flops_per_image"].value
            points = [(images * per_image, loss) for images, loss in _points(log_curve(log, ("loss",)))]
            found.setdefault(denoiser.process, []).append(Curve(denoiser.row, run.record.subject.family, points))
    return found


def _same(path: Path, record: Record) -> bool:
    return path.exists() and load(path).digest == record.digest


def _points(curve: pd.Series) -> Iterator[tuple[float, float]]:
    """A curve with at most :data:`POINTS` points; the first and the last are kept."""
    count = len(curve)
    places = range(count) if count <= POINTS else [round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)]
    for place in places:
        yield float(curve.index[place]), float(f"{curve.iloc[place]:.5g}")
