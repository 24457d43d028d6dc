"""Checks of the evaluator itself: an identity must score perfectly, and stronger JPEG compression must score worse."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from dcae_bench.data.images import Crops
from dcae_bench.evaluation.distances import frechet
from dcae_bench.evaluation.reconstruction import Measured, Reconstruct, ReconstructionEvaluator

QUALITIES = (95, 75, 50, 25, 10)
"""JPEG qualities of the ladder, from the mildest."""


def ladder(
    evaluator: ReconstructionEvaluator, crops: Crops, folder: Path, console: Console
) -> dict[str, dict[str, float]]:
    """Scores of the identity and of every quality by name, measured by the same evaluator as any autoencoder's."""
    steps: list[tuple[str, Reconstruct]] = [("identity", lambda images, indices: images)]
    steps += [(f"JPEG {quality}", jpeg(quality)) for quality in QUALITIES]
    rungs = {}
    for name, reconstruct in steps:
        state = folder / f".sanity-{name.replace(' ', '-').lower()}"
        evaluator.forget(state)
        rungs[name] = _scores(evaluator, evaluator.measure(reconstruct, crops, state))
        evaluator.forget(state)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in rungs[name].items())
        console.print(f"{name}: {shown}", soft_wrap=True)
    return rungs


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


def _scores(evaluator: ReconstructionEvaluator, measured: Measured) -> dict[str, float]:
    extractors = evaluator.suite.extractors
    names = evaluator.suite.protocol.distances
    scores = {f"r{extractors[name].key}": frechet(measured.real[name], measured.fake[name]) for name in names}
    return scores | {name: float(np.mean(measured.column(name))) for name in measured.value_names}
