"""Reconstruction quality in one pass: every image is decoded once and feeds every metric."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcae_bench.data.crops import normalise
from dcae_bench.data.images import Crops
from dcae_bench.errors import DataError, WeightsError
from dcae_bench.evaluation.protocols import pinned
from dcae_bench.evaluation.reference import Reference
from dcae_bench.evaluation.store import Store
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.workers import Process, batches_of, read_ahead
from dcae_bench.metrics.image import to_uint8
from dcae_bench.models.autoencoder import Autoencoder, images_at_once

Reconstruct = Callable[[Tensor, range], Tensor]
"""From uint8 images (n, 3, H, W) and their indices to uint8 reconstructions of the same shape, on the same device."""


@dataclass(frozen=True)
class Speed:
    """How fast one process went through its part."""

    images: int
    seconds: float
    waited: float
    """Seconds of these in which nothing was computed because the images were not yet read."""


@dataclass(frozen=True)
class Measured:
    """Per-image values and both sides' features of one set, by image index."""

    value_names: tuple[str, ...]
    values: np.ndarray
    """float64 (n, m)"""
    real: dict[str, np.ndarray]
    """Features float32 (n, dim) of the originals by extractor."""
    fake: dict[str, np.ndarray]
    speed: Speed

    def column(self, name: str) -> np.ndarray:
        """Values (n,) of one metric."""
        return self.values[:, self.value_names.index(name)]


@dataclass
class ReconstructionEvaluator:
    """Measures anything that turns images into images, in one pass over a set of crops.

    Both sides are rounded to 8 bits before any metric sees them. An interrupted pass goes on where it stopped.
    """

    suite: Suite
    batch_size: int
    tf32: bool = False
    threads: int = 0
    keep: bool = True
    """Whether features of originals are taken from the user's cache, or kept there."""
    process: Process = field(default_factory=Process)
    progress: Callable[[int, int], None] = lambda done, total: None

    def measure(self, reconstruct: Reconstruct, crops: Crops, folder: Path) -> Measured:
        """Measure every crop once; the state lives in ``folder`` until :meth:`forget`.

        Features of originals that are kept from before are not computed again. With several processes each does its
        share, and all return the whole. Raises :class:`DataError` for fewer than two images, and
        :class:`ResultsError`, also for kept features that were changed.
        """
        if len(crops) < 2:
            raise DataError(f"{len(crops)} images cannot be evaluated: a Fréchet distance needs at least 2")
        references = self._references(crops)
        # A cache on a disk of one machine alone, or another evaluation that keeps its features just now.
        there = self.process.common([name for name, reference in references.items() if reference.there])
        kept = {name: references[name].read() for name in there}
        dims = {name: extractor.dim for name, extractor in self.suite.extractors.items()}
        wanted = {f"fake-{name}": dim for name, dim in dims.items()}
        wanted |= {f"real-{name}": dims[name] for name in dims if name not in kept}
        store = Store(folder, len(crops), self.suite.value_names, wanted)
        if self.process.first:
            store.create()
            if not set(wanted) <= set(store.feature_names):  # kept features are gone since the interruption
                self.forget(folder)
                store = Store(folder, len(crops), self.suite.value_names, wanted).create()
        self.process.wait()
        store.take_up()
        missing = [name for name in dims if f"real-{name}" in store.feature_names]
        with pinned(self.tf32), torch.inference_mode():
            speed = self._go_through(reconstruct, crops, store, missing)
        self.process.wait()
        store.require_complete()
        if self.process.first:
            for name in set(missing) & set(references):
                references[name].keep(store.path(f"real-{name}"))
        real = {name: store.features(f"real-{name}") if name in missing else kept[name] for name in dims}
        fake = {name: store.features(f"fake-{name}") for name in dims}
        return Measured(self.suite.value_names, np.array(store.values()), real, fake, speed)

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove the state of a finished pass; the arrays of its :class:`Measured` must not be used any more."""
        shutil.rmtree(folder, ignore_errors=True)

    def _references(self, crops: Crops) -> dict[str, Reference]:
        if not self.keep:
            return {}
        kind = self.suite.device.type
        return {
            name: Reference(crops, extractor, device=kind, tf32=self.tf32)
            for name, extractor in self.suite.extractors.items()
        }

    def _go_through(self, reconstruct: Reconstruct, crops: Crops, store: Store, missing: list[str]) -> Speed:
        batches = self.process.share(batches_of(len(crops), self.batch_size))
        pending = [batch for batch in batches if not store.done(batch)]
        total = sum(map(len, batches))
        done = total - sum(map(len, pending))
        images, start, waited = 0, time.perf_counter(), 0.0
        reading = start
        names = list(self.suite.extractors)
        for batch, real in read_ahead(crops, pending, self.threads):
            waited += time.perf_counter() - reading
            real = real.to(self.suite.device, non_blocking=True)
            fake = reconstruct(real, batch)
            features = {f"fake-{name}": x.numpy() for name, x in self.suite.features(fake, names).items()}
            features |= {f"real-{name}": x.numpy() for name, x in self.suite.features(real, missing).items()}
            store.write(batch, self._finite(self.suite.values(real, fake), batch, crops), features)
            images += len(batch)
            self.progress(done + images, total)
            reading = time.perf_counter()
        return Speed(images, time.perf_counter() - start, waited)

    def _finite(self, values: Tensor, batch: range, crops: Crops) -> np.ndarray:
        """Refuse NaN, which marks rows that are not measured and which no reconstruction can have."""
        bad = values.isnan().any(dim=1).nonzero()
        if len(bad):
            row = int(bad[0])
            shown = ", ".join(f"{name} {x:g}" for name, x in zip(self.suite.value_names, values[row], strict=True))
            raise DataError(f"{crops.key(batch[row])}: the metrics are not numbers ({shown}); check the weights")
        return values.numpy()


def reconstructor(model: Autoencoder, noise: Callable[[range, torch.Size], Tensor] | None) -> Reconstruct:
    """Reconstruct with an autoencoder in evaluation mode; ``noise`` draws from the posterior where there is one.

    ``noise`` maps indices and a latent's shape (c, h, w) to standard normal numbers (n, c, h, w), so that a draw
    belongs to an image and not to a batch. Without it the posterior's mean is taken. Large images go through in parts.
    Raises :class:`WeightsError` for a reconstruction that is not finite, which 8 bits would hide.
    """

    def part(images: Tensor, indices: range) -> Tensor:
        x = normalise(images)
        draw = None if noise is None else lambda shape: noise(indices, shape).to(images.device)
        y = model.decode(model.encode(x) if draw is None else model.draw(x, draw))
        finite = y.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            index = indices[int(finite.logical_not().nonzero()[0])]
            raise WeightsError(
                f"image {index}: its reconstruction holds values that are not finite; check the autoencoder's weights"
            )
        return to_uint8(y)

    def reconstruct(images: Tensor, indices: range) -> Tensor:
        at_once = images_at_once(max(images.shape[-2:]))
        starts = range(0, len(images), at_once)
        return torch.cat([part(images[i : i + at_once], indices[i : i + at_once]) for i in starts])

    return reconstruct
