"""Feature pass: the features of every image of a set, in one pass that resumes after an interruption."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dcae_bench.base.errors import DataError
from dcae_bench.data.images import Crops
from dcae_bench.data.native import batches_by_size
from dcae_bench.data.read_ahead import read_ahead
from dcae_bench.evaluation.reference import Reference
from dcae_bench.evaluation.store import Store, forget
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker

Features = dict[str, np.ndarray]
"""Features, float32 (n, dim), mapped read-only, by the extractor's registry name."""


@dataclass
class FeaturePass:
    """Computes features by several extractors and reads each image once; several processes share the work."""

    extractors: Mapping[str, FeatureExtractor]
    device: torch.device
    batch_size: int
    tf32: bool = False
    threads: int = 0
    process: Worker = field(default_factory=Worker)
    progress: Callable[[int, int], None] = lambda done, total: None

    def extract(self, images: Crops, folder: Path) -> Features:
        """Compute features of every image. Features and state live in ``folder`` until :meth:`forget`.

        Raises :class:`DataError` for fewer than two images and for features that are not finite, and
        :class:`ResultsError`.
        """
        return self._extract(images, folder, list(self.extractors))

    def extract_reference(self, images: Crops, folder: Path) -> Features:
        """Like :meth:`extract`, for reference images: takes features from the user's cache and adds missing ones."""
        kind = self.device.type
        references = {
            name: Reference(images, extractor, device=kind, tf32=self.tf32)
            for name, extractor in self.extractors.items()
        }
        read = {name: found for name, reference in references.items() if (found := reference.read()) is not None}
        # Processes may see different caches; a feature counts as cached only where every process has it.
        features = {name: read[name] for name in self.process.names_everywhere(list(read))}
        missing = [name for name in references if name not in features]
        features |= self._extract(images, folder, missing) if missing else {}
        if self.process.first:
            for name in missing:
                references[name].keep(self._store(images, folder, missing).path(name))
        self.process.wait()
        return {name: features[name] for name in references}

    @staticmethod
    def forget(folder: Path) -> None:
        """Delete the state of a finished pass. Do not use the features of that pass afterwards."""
        forget(folder)

    def _store(self, images: Crops, folder: Path, names: list[str]) -> Store:
        return Store(folder, len(images), (), {name: self.extractors[name].dim for name in names})

    def _extract(self, images: Crops, folder: Path, names: list[str]) -> Features:
        if len(images) < 2:
            raise DataError(f"{images.name}: {len(images)} images; a Fréchet distance needs at least 2")
        store = self._store(images, folder, names)
        if self.process.first:
            store.create()
        self.process.wait()
        store.open_existing()
        batches = self.process.share(batches_by_size(images, len(images), self.batch_size))
        pending = store.unfinished(batches)
        total = sum(map(len, batches))
        done = total - sum(map(len, pending))
        with pinned(self.tf32), torch.inference_mode(), store:
            for batch, pixels in read_ahead(images, pending, self.threads):
                pixels = pixels.to(self.device, non_blocking=True)
                features = {name: self.extractors[name](pixels).float().cpu().numpy() for name in store.feature_names}
                self._require_finite(features, batch, images)
                store.write(batch, features)
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
