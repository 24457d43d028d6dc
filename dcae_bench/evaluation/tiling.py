"""Error of tiles: tiled reconstructions of the first images of a set beside the untiled ones."""

import math

import torch

from dcae_bench.data.images import Crops
from dcae_bench.evaluation.reconstruction import IndexNoise, reconstructor
from dcae_bench.execution.tiles import Tiled
from dcae_bench.metrics.image import PEAK
from dcae_bench.models.autoencoder import ran_out_of_memory
from dcae_bench.profile.evaluation import TilesSpec
from dcae_bench.records.tiling import Tiling

COMPARED = 4
"""Images that are computed whole too: enough to tell seams from noise, and cheap beside a set."""


def measure_tiling(
    model: Tiled, spec: TilesSpec, noise: IndexNoise | None, crops: Crops, device: torch.device
) -> Tiling:
    """Reconstruct the first images tiled and whole, one by one, until the whole one does not fit in memory.

    Raises :class:`WeightsError` for reconstructions that are not finite.
    """
    squared, values, largest, compared, reason = 0.0, 0, 0, 0, None
    tiled, whole = reconstructor(model, noise), reconstructor(model.inner, noise)
    for index in range(min(COMPARED, len(crops))):
        image, at = crops[index][None].to(device), range(index, index + 1)
        with torch.inference_mode():
            try:
                wanted = whole(image, at).int()
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                reason = f"the whole image {index} does not fit in memory"
                break
            difference = (tiled(image, at).int() - wanted).abs()
        squared += float(difference.double().square().sum())
        values, largest, compared = values + difference.numel(), max(largest, int(difference.max())), index + 1
    return Tiling(
        size=spec.size,
        overlap=spec.overlap,
        encode=spec.encode,
        images=compared,
        psnr=10 * math.log10(PEAK**2 * values / squared) if squared else None,
        max_difference=largest if compared else None,
        reason=reason,
    )
