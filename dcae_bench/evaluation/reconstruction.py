"""Reconstruction evaluator: one pass reconstructs every image once and feeds all metrics."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcae_bench.base.errors import DataError, WeightsError
from dcae_bench.data.images import Crops
from dcae_bench.data.native import batches_by_size
from dcae_bench.data.pixels import normalise, to_uint8
from dcae_bench.data.read_ahead import read_ahead
from dcae_bench.evaluation.reference import Reference
from dcae_bench.evaluation.store import Store, forget
from dcae_bench.evaluation.suite import Suite
from dcae_bench.models.autoencoder import Autoencoder, images_at_once, same_size
from dcae_bench.running.precision import pinned
from dcae_bench.running.processes import Worker
from dcae_bench.specs.protocols import Precision

Reconstruct = Callable[[Tensor, range], Tensor]
"""Maps uint8 images (n, 3, H, W) and their indices to uint8 reconstructions of equal shape on the same device."""


@dataclass(frozen=True)
class Speed:
    """How fast one process measured its share of the images."""

    images: int
    seconds: float
    waited: float
    """Part of ``seconds`` spent waiting for images to be read."""


@dataclass(frozen=True)
class MeasuredSet:
    """Values of every image of a set, and features of originals and reconstructions, by image index."""

    value_names: tuple[str, ...]
    values: np.ndarray
    """Values, float64 (n, m): one row per image, one column per name in ``value_names``."""
    real: dict[str, np.ndarray]
    """Features of the originals, float32 (n, dim), by extractor."""
    fake: dict[str, np.ndarray]
    """Features of the reconstructions, float32 (n, dim), by extractor."""
    speed: Speed

    def column(self, name: str) -> np.ndarray:
        """Values (n,) of one metric."""
        return self.values[:, self.value_names.index(name)]


@dataclass
class ReconstructionEvaluator:
    """Measures any :data:`Reconstruct` in one pass over a set of crops.

    Every metric sees originals and reconstructions as 8-bit images. An interrupted pass resumes where it stopped.
    """

    suite: Suite
    batch_size: int
    tf32: bool = False
    threads: int = 0
    use_cache: bool = True
    """Whether to read and write the originals' features in the user's cache."""
    process: Worker = field(default_factory=Worker)
    progress: Callable[[int, int], None] = lambda done, total: None

    def measure(self, reconstruct: Reconstruct, crops: Crops, folder: Path) -> MeasuredSet:
        """Measure every crop once. The state of the pass lives in ``folder`` until :meth:`forget`.

        Cached features of originals are not computed again. With several processes, each measures its share of the
        crops and all return the result for all crops. Raises :class:`DataError` for fewer than two images, and
        :class:`ResultsError`.
        """
        if len(crops) < 2:
            raise DataError(f"{len(crops)} images cannot be evaluated: a Fréchet distance needs at least 2")
        references = self._references(crops)
        # Processes may see different caches: the cache may be on one machine's disk, or another evaluation may be
        # writing to it. A feature counts as cached only where every process has it.
        read = {name: found for name, reference in references.items() if (found := reference.read()) is not None}
        cached = {name: read[name] for name in self.process.names_everywhere(list(read))}
        dims = {name: extractor.dim for name, extractor in self.suite.extractors.items()}
        wanted = {f"fake-{name}": dim for name, dim in dims.items()}
        wanted |= {f"real-{name}": dims[name] for name in dims if name not in cached}
        store = Store(folder, len(crops), self.suite.value_names, wanted)
        if self.process.first:
            store.create()
        self.process.wait()
        store.open_existing()
        missing = [name for name in dims if f"real-{name}" in store.feature_names]
        with pinned(self.tf32), torch.inference_mode(), store:
            speed = self._measure_batches(reconstruct, crops, store, missing)
        self.process.wait()
        store.require_complete()
        if self.process.first:
            for name in set(missing) & set(references):
                references[name].keep(store.path(f"real-{name}"))
        real = {name: store.features(f"real-{name}") if name in missing else cached[name] for name in dims}
        fake = {name: store.features(f"fake-{name}") for name in dims}
        return MeasuredSet(self.suite.value_names, np.array(store.values()), real, fake, speed)

    @staticmethod
    def forget(folder: Path) -> None:
        """Delete the state of a finished pass. Do not use the arrays of its :class:`MeasuredSet` afterwards."""
        forget(folder)

    def _references(self, crops: Crops) -> dict[str, Reference]:
        if not self.use_cache:
            return {}
        kind = self.suite.device.type
        return {
            name: Reference(crops, extractor, device=kind, tf32=self.tf32)
            for name, extractor in self.suite.extractors.items()
        }

    def _measure_batches(self, reconstruct: Reconstruct, crops: Crops, store: Store, missing: list[str]) -> Speed:
        batches = self.process.share(batches_by_size(crops, len(crops), self.batch_size))
        pending = store.unfinished(batches)
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
            store.write(batch, features, self._require_numbers(self.suite.values(real, fake), batch, crops))
            images += len(batch)
            self.progress(done + images, total)
            reading = time.perf_counter()
        return Speed(images, time.perf_counter() - start, waited)

    def _require_numbers(self, values: Tensor, batch: range, crops: Crops) -> np.ndarray:
        """Return values as an array. Raises :class:`DataError` for NaN."""
        bad = values.isnan().any(dim=1).nonzero()
        if len(bad):
            row = int(bad[0])
            shown = ", ".join(f"{name} {x:g}" for name, x in zip(self.suite.value_names, values[row], strict=True))
            raise DataError(f"{crops.key(batch[row])}: the metrics are not numbers ({shown}); check the weights")
        return values.numpy()


IndexNoise = Callable[[range, torch.Size], Tensor]
"""Maps image indices and the shape (c, h, w) of a latent to standard normal numbers (n, c, h, w)."""


def reconstruct_part(model: Autoencoder, noise: IndexNoise | None, images: Tensor, indices: range) -> Tensor:
    """Reconstructions, float (n, 3, H, W) about [-1, 1], of uint8 images that fit into memory together."""
    x = normalise(images)
    draw = None if noise is None else lambda shape: noise(indices, shape).to(images.device)
    return same_size(model.decode(model.encode(x) if draw is None else model.draw(x, draw)), x)


def reconstructor(model: Autoencoder, noise: IndexNoise | None, precision: Precision = "fp32") -> Reconstruct:
    """Make a :data:`Reconstruct` of an autoencoder in evaluation mode.

    ``noise`` draws latents from the posterior; each draw depends on the image, not on the batch. None takes the
    posterior's mean. A batch of large images is split into parts that fit in memory. The reconstruction raises
    :class:`WeightsError` for values that are not finite, which rounding to 8 bits would hide; it names the
    ``precision`` of the autoencoder.
    """
    remedy = {
        "fp32": "check the autoencoder's weights",
        "bf16": "check the autoencoder's weights, or measure it in fp32",
        "fp16": "numbers above 65,504 are infinite in it; measure the autoencoder in bf16 or fp32",
    }

    def part(images: Tensor, indices: range) -> Tensor:
        y = reconstruct_part(model, noise, images, indices)
        finite = y.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            index = indices[int(finite.logical_not().nonzero()[0])]
            where = "" if precision == "fp32" else f" in {precision}"
            raise WeightsError(
                f"image {index}: its reconstruction{where} holds values that are not finite; {remedy[precision]}"
            )
        return to_uint8(y)

    def reconstruct(images: Tensor, indices: range) -> Tensor:
        at_once = images_at_once(math.isqrt(images.shape[-2] * images.shape[-1]))
        starts = range(0, len(images), at_once)
        return torch.cat([part(images[i : i + at_once], indices[i : i + at_once]) for i in starts])

    return reconstruct
