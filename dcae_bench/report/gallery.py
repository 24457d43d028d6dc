"""The gallery: originals and reconstructions at the same place, worst and median images, and samples by seed."""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dcae_bench.base.errors import ResultsError
from dcae_bench.records.places import Places
from dcae_bench.report.records import Panels
from dcae_bench.report.sources import Source
from dcae_bench.tables.figures.denoisers import first_samples
from dcae_bench.tables.figures.gallery import GROUPS, load_gallery
from dcae_bench.tables.figures.reconstructions import load_samples
from dcae_bench.tables.figures.style import ShownAutoencoder
from dcae_bench.tables.reconstruction.table import Reconstruction

BUDGET = 1_900_000
"""Most characters of all images in the page."""
SHARES = {"reconstructions": 0.55, "extremes": 0.25, "samples": 0.2}
"""Parts of the budget; what one part leaves is the next one's."""
QUALITY, SIDE = 92, 512
"""Quality of the WebP images, and their largest side in px: larger images are reduced."""
CAPTION = 700
"""Characters that the page takes for an image beside its address: caption, element and link."""
SAMPLES = 8
"""Samples of each denoiser."""


@dataclass(frozen=True)
class Picture:
    """One image in the page."""

    uri: str
    caption: str
    record: str | None = None
    """Id of the record that it is of."""


@dataclass(frozen=True)
class Shot:
    """One original and what each autoencoder makes of it."""

    title: str
    side: int
    original: str
    reconstructions: Sequence[Picture]


@dataclass(frozen=True)
class Group:
    """Shots that a reader chooses between: of one data set, or the worst and median images of one autoencoder."""

    name: str
    title: str
    shots: Sequence[Shot]


@dataclass(frozen=True)
class Strip:
    """The samples of one denoiser, by index of the seed."""

    title: str
    pictures: Sequence[Picture]


@dataclass
class Gallery:
    """Everything that the page shows of images."""

    groups: list[Group] = field(default_factory=list)
    extremes: list[Group] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    left_out: int = 0
    """Images that the budget had no place for."""
    remarks: list[str] = field(default_factory=list)
    """What is not shown, and why."""

    @property
    def empty(self) -> bool:
        """Whether there is no image."""
        return not (self.groups or self.extremes or self.strips)


@dataclass
class _Purse:
    """Characters that images may still take."""

    left: float

    def take(self, *uris: str) -> bool:
        """Pay for images together; False if they do not fit, and nothing is paid."""
        size = sum(map(len, uris)) + CAPTION * len(uris)
        if size > self.left:
            return False
        self.left -= size
        return True


def gallery(source: Source, panels: Panels, budget: float = BUDGET) -> Gallery:
    """The images beside the records of a run. Those beyond ``budget``, in characters, are left out and counted.

    Images of a record that has changed since its table was made are left out. Raises :class:`ResultsError` for a file
    of images that is damaged.
    """
    made = Gallery()
    if source.committed:
        return made
    runs, budget = _final_runs(source, made), min(budget, BUDGET)
    purse = _Purse(budget * SHARES["reconstructions"])
    _add_reconstructions(made, source, runs, panels, purse)
    purse.left += budget * SHARES["extremes"]
    _add_extremes(made, source, runs, panels, purse)
    purse.left += budget * SHARES["samples"]
    _add_samples(made, source, panels, purse)
    return made


def _final_runs(source: Source, made: Gallery) -> list[Reconstruction]:
    """Runs of each autoencoder's last phase whose records are still those of the table."""
    last = source.reconstruction.final_runs if source.reconstruction else []
    found = [run for run in last if run.path.exists()]
    if len(found) < len(last):
        made.remarks.append(
            f"{len(last) - len(found)} records are no longer at their place, so their images are not shown"
        )
    return sorted(found, key=lambda run: ShownAutoencoder.of(run.record.subject))


def _add_reconstructions(
    made: Gallery, source: Source, runs: Sequence[Reconstruction], panels: Panels, purse: _Purse
) -> None:
    """The first image of every data set, then the second of every one, until the budget is spent."""
    sets: dict[tuple[str, int], list[tuple[Reconstruction, np.ndarray]]] = {}
    for run in runs:
        if not run.path.with_suffix(".samples.npy").exists():
            made.remarks.append(f"{run.shown_path} has no images beside it")
            continue
        samples = load_samples(run.path)
        if _is_same(made, run, samples.record.digest):
            data = run.record.data
            sets.setdefault((data.name, data.resolution), []).append((run, samples.images))
    shots: dict[tuple[str, int], list[Shot]] = {key: [] for key in sets}
    for number in itertools.count():
        ongoing = False
        for key, members in sorted(sets.items(), key=lambda item: (-item[0][1], item[0][0])):
            if number >= min(len(images) for _, images in members):
                continue
            ongoing = True
            original = members[0][1][number, 0]
            alike = [(run, images[number]) for run, images in members if np.array_equal(images[number, 0], original)]
            shot = _shot(f"image {number + 1}", source, panels, original, [(run, pair[1], "") for run, pair in alike])
            if len(alike) < len(members):
                made.remarks.append(f"some autoencoders were measured on other images of {key[0]}, {key[1]} px")
            if purse.take(shot.original, *(one.uri for one in shot.reconstructions)):
                shots[key].append(shot)
            else:
                made.left_out += 1 + len(alike)
        if not ongoing:
            break
    made.groups = [
        Group(f"set-{place}", f"{name}, {side} px", found)
        for place, ((name, side), found) in enumerate(sorted(shots.items(), key=lambda item: (-item[0][1], item[0][0])))
        if found
    ]


def _shot(
    title: str,
    source: Source,
    panels: Panels,
    original: np.ndarray,
    reconstructions: Iterable[tuple[Reconstruction, np.ndarray, str]],
) -> Shot:
    found = []
    for run, image, said in reconstructions:
        psnr = run.record.metrics.get("psnr")
        mean = f"mean PSNR {psnr.value:.1f} {psnr.unit or 'dB'}" if psnr else ""
        caption = f"{ShownAutoencoder.of(run.record.subject).title}, {run.latent_shape}"
        found.append(
            Picture(encode(image), ", ".join(filter(None, (caption, said or mean))), panels.id(source, run.shown_path))
        )
    return Shot(title, len(original), encode(original), found)


def _add_extremes(made: Gallery, source: Source, runs: Sequence[Reconstruction], panels: Panels, purse: _Purse) -> None:
    """Worst and median images of each autoencoder, the worst first, on the largest images of each data set."""
    largest: dict[str, int] = {}
    for run in runs:
        largest[run.record.data.name] = max(largest.get(run.record.data.name, 0), run.record.data.resolution)
    waiting: dict[str, Iterator[Shot]] = {}
    for run in runs:
        data, subject = run.record.data, run.record.subject
        if data.resolution == largest[data.name] and run.path.with_suffix(".gallery.npz").exists():
            title = f"{ShownAutoencoder.of(subject).title} ({subject.weights_source})"
            waiting[f"{title} on {data.name}, {data.resolution} px"] = _extremes(made, source, run, panels)
    kept: dict[str, list[Shot]] = {title: [] for title in waiting}
    while waiting:
        for title, shots in list(waiting.items()):
            shot = next(shots, None)
            if shot is None:
                del waiting[title]
            elif purse.take(shot.original, *(one.uri for one in shot.reconstructions)):
                kept[title].append(shot)
            else:
                made.left_out += 2
    made.extremes = [
        Group(f"extreme-{place}", title, shots) for place, (title, shots) in enumerate(kept.items()) if shots
    ]


def _extremes(made: Gallery, source: Source, run: Reconstruction, panels: Panels) -> Iterator[Shot]:
    """Worst and median images in turn."""
    shown = load_gallery(run.path)
    if not _is_same(made, run, shown.record.digest):
        return
    groups = [np.flatnonzero(shown.group == name) for name in GROUPS]
    labels = list(GROUPS.values())
    for places in itertools.zip_longest(*groups):
        for label, place in zip(labels, places, strict=True):
            if place is None:
                continue
            said = f"PSNR {shown.psnr[place]:.1f} dB, LPIPS {shown.lpips[place]:.3f}"
            original, image = shown.images[place]
            yield _shot(f"{label}: {shown.key[place]}", source, panels, original, [(run, image, said)])


def _add_samples(made: Gallery, source: Source, panels: Panels, purse: _Purse) -> None:
    for run in source.generation.runs if source.generation else ():
        places = Places.around(run.path)
        file = (
            Path(places.samples(run.denoiser.row, run.path.stem.removeprefix("s"), "samples.npy")) if places else None
        )
        if file is None or not file.exists():
            made.remarks.append(f"{run.shown_path} has no samples beside it")
            continue
        images = first_samples(file, SAMPLES)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ResultsError(f"{file}: holds {images.dtype} {images.shape}, not images; sample again")
        record = panels.id(source, run.shown_path)
        pictures = [Picture(encode(image), f"seed index {place}", record) for place, image in enumerate(images)]
        if not purse.take(*(one.uri for one in pictures)):
            made.left_out += len(pictures)
            continue
        tokens = f"{run.denoiser.tokens} tokens"
        title = f"{run.denoiser.row}: {run.latent_space}, {tokens}, guidance {run.guidance:g}"
        made.strips.append(Strip(title, pictures))


def _is_same(made: Gallery, run: Reconstruction, digest: str | None) -> bool:
    if digest == run.record.digest:
        return True
    made.remarks.append(f"{run.shown_path} has changed since the table was made, so its images are not shown")
    return False


def encode(image: np.ndarray) -> str:
    """A data URI of an image, uint8 (height, width, 3), as WebP; an image beyond :data:`SIDE` is reduced."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
