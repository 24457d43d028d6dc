"""Features of every image of a set, in one pass that an interruption does not undo."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dcae_bench.data.images import Crops
from dcae_bench.errors import DataError
from dcae_bench.evaluation.protocols import pinned
from dcae_bench.evaluation.reference import Reference
from dcae_bench.evaluation.store import Store
from dcae_bench.evaluation.workers import Process, batches_of, read_ahead
from dcae_bench.metrics.features import FeatureExtractor

Features = dict[str, np.ndarray]
"""float32 (n, dim) by the registry name of the extractor, mapped read-only."""


@dataclass
class FeaturePass:
    """Looks at images through several extractors, each image read once; several processes share the work."""

    extractors: Mapping[str, FeatureExtractor]
    device: torch.device
    batch_size: int
    tf32: bool = False
    threads: int = 0
    process: Process = field(default_factory=Process)
    progress: Callable[[int, int], None] = lambda done, total: None

    def of(self, images: Crops, folder: Path) -> Features:
        """Features of every image; they and the state live in ``folder`` until it is forgotten.

        Raises :class:`DataError` for features that are not finite, and :class:`ResultsError`.
        """
        return self._measure(images, folder, list(self.extractors))

    def of_reference(self, images: Crops, folder: Path) -> Features:
        """The same of images that serve again: features are taken from the user's cache, or kept there."""
        kind = self.device.type
        kept = {
            name: Reference(images, extractor, device=kind, tf32=self.tf32)
            for name, extractor in self.extractors.items()
        }
        there = self.process.common([name for name, reference in kept.items() if reference.there])
        found = {name: kept[name].read() for name in there}
        missing = [name for name in kept if name not in found]
        found |= self._measure(images, folder, missing) if missing else {}
        if self.process.first:
            for name in missing:
                kept[name].keep(self._store(images, folder, missing).path(name))
        self.process.wait()
        return {name: found[name] for name in kept}

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove the state of a finished pass; its features must not be used any more."""
        shutil.rmtree(folder, ignore_errors=True)

    def _store(self, images: Crops, folder: Path, names: list[str]) -> Store:
        # Nothing is measured per image but that it was seen.
        return Store(folder, len(images), ("seen",), {name: self.extractors[name].dim for name in names})

    def _measure(self, images: Crops, folder: Path, names: list[str]) -> Features:
        if len(images) < 2:
            raise DataError(f"{images.name}: {len(images)} images; a Fréchet distance needs at least 2")
        store = self._store(images, folder, names)
        if self.process.first:
            store.create()
            if not set(names) <= set(store.feature_names):  # kept features are gone since the interruption
                self.forget(folder)
                store = self._store(images, folder, names).create()
        self.process.wait()
        batches = self.process.share(batches_of(len(images), self.batch_size))
        pending = [batch for batch in batches if not store.done(batch)]
        total = sum(map(len, batches))
        done = total - sum(map(len, pending))
        with pinned(self.tf32), torch.inference_mode():
            for batch, pixels in read_ahead(images, pending, self.threads):
                pixels = pixels.to(self.device, non_blocking=True)
                features = {name: self.extractors[name](pixels).float().cpu().numpy() for name in names}
                self._require_finite(features, batch, images)
                store.write(batch, np.ones((len(batch), 1)), features)
                done += len(batch)
                self.progress(done, total)
        self.process.wait()
        store.require_complete()
        return {name: store.features(name) for name in names}

    def _require_finite(self, features: Features, batch: range, images: Crops) -> None:
        for name, rows in features.items():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise DataError(f"{images.key(batch[int(bad[0])])}: its features by {name} are not finite; check them")
