"""Checks of the evaluator itself: identity, a ladder of JPEG qualities, and other batches, threads and order."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from dcae_bench.data.images import Crops
from dcae_bench.evaluation.distances import frechet
from dcae_bench.evaluation.reconstruction import Reconstruct, ReconstructionEvaluator

QUALITIES = (95, 75, 50, 25, 10)
"""JPEG qualities of the ladder, from the mildest."""
MIDDLE = 50


def ladder(
    evaluator: ReconstructionEvaluator, crops: Crops, folder: Path, console: Console
) -> dict[str, dict[str, float]]:
    """Scores of the identity and of every quality by name, measured by the same evaluator as any autoencoder's."""
    steps: list[tuple[str, Reconstruct]] = [("identity", lambda images, indices: images)]
    steps += [(f"JPEG {quality}", jpeg(quality)) for quality in QUALITIES]
    rungs = {}
    for name, reconstruct in steps:
        rungs[name] = _once(evaluator, reconstruct, crops, folder / ".sanity-ladder")
        shown = ", ".join(f"{key} {value:.4g}" for key, value in rungs[name].items())
        console.print(f"{name}: {shown}", soft_wrap=True)
    return rungs


def invariance(
    evaluator: ReconstructionEvaluator, crops: Crops, folder: Path, console: Console
) -> dict[str, dict[str, float]]:
    """Scores of one JPEG quality measured as the evaluator is set, then in other batches, order and threads."""
    larger = 2 * evaluator.batch_size + 1
    variants: dict[str, tuple[ReconstructionEvaluator, Crops]] = {
        f"batches of {evaluator.batch_size}": (evaluator, crops),
        "batches of 1": (replace(evaluator, batch_size=1), crops),
        f"batches of {larger}": (replace(evaluator, batch_size=larger), crops),
        "4 threads": (replace(evaluator, threads=4), crops),
        "reversed order": (evaluator, Reversed(crops)),
    }
    found = {}
    for name, (variant, images) in variants.items():
        found[name] = _once(variant, jpeg(MIDDLE), images, folder / ".sanity-invariance")
        console.print(f"{name}: measured", soft_wrap=True)
    return found


class Reversed:
    """The same crops from the last to the first."""

    def __init__(self, crops: Crops):
        self._crops = crops
        self.name, self.split, self.resolution = crops.name, crops.split, crops.resolution
        self.manifest_sha256, self.sha256 = crops.manifest_sha256, f"{crops.sha256} reversed"

    def __len__(self) -> int:
        return len(self._crops)

    def key(self, index: int) -> str:
        """Name of the crop at a place of the new order."""
        return self._crops.key(len(self) - 1 - index)

    def __getitem__(self, index: int) -> Tensor:
        return self._crops[range(len(self))[-1 - index]]


def jpeg(quality: int) -> Reconstruct:
    """Compress and decompress with Pillow's JPEG at ``quality``."""

    def reconstruct(images: Tensor, indices: range) -> Tensor:
        return torch.stack([_compressed(image, quality) for image in images.cpu()]).to(images.device)

    return reconstruct


def _compressed(image: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "jpeg", quality=quality)
    with Image.open(buffer) as found:
        return torch.from_numpy(np.array(found)).permute(2, 0, 1)


def _once(evaluator: ReconstructionEvaluator, reconstruct: Reconstruct, crops: Crops, state: Path) -> dict[str, float]:
    """Fréchet distances, and means over images, of a pass that takes nothing up and leaves nothing behind."""
    evaluator.forget(state)
    measured = evaluator.measure(reconstruct, crops, state)
    extractors = evaluator.suite.extractors
    names = evaluator.suite.protocol.distances
    scores = {f"r{extractors[name].key}": frechet(measured.real[name], measured.fake[name]) for name in names}
    scores |= {name: float(np.mean(measured.column(name))) for name in measured.value_names}
    evaluator.forget(state)
    return scores
