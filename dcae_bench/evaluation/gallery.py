"""Gallery of reconstructions: the worst images, which a mean hides, and the median ones for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dcae_bench.base.files import write_with
from dcae_bench.data.images import Crops
from dcae_bench.evaluation.reconstruction import MeasuredSet, Reconstruct

SIDE = 512
"""Largest side in px; larger images are reduced, since a gallery is only looked at."""
RANKED_BY = "lpips_alex_u8"
"""Metric that ranks the images."""


@dataclass(frozen=True)
class Choice:
    """Indices of the worst images, worst first, and of the images around the median."""

    worst: tuple[int, ...]
    median: tuple[int, ...]


def choose_images(distances: np.ndarray, count: int) -> Choice:
    """Choose ``count`` worst and ``count`` median images by their distances (n,), at most n of each."""
    order = np.argsort(-distances, kind="stable")
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    return Choice(tuple(order[:count].tolist()), tuple(order[middle : middle + count].tolist()))


def write_gallery(
    path: Path, measured: MeasuredSet, reconstruct: Reconstruct, crops: Crops, device: torch.device, count: int
) -> None:
    """Reconstruct the worst and the median images again and write them to the ``.npz`` file ``path``.

    The file holds ``images``, uint8 (k, 2, side, side, 3), original and reconstruction; ``group``, "worst" or "median";
    ``key``; and the per-image values of every metric under the metric's name. Raises :class:`ResultsError`.
    """
    choice = choose_images(measured.column(RANKED_BY), count)
    indices = [*choice.worst, *choice.median]
    images = on_one_canvas([_reduced(pair_of(reconstruct, crops, index, device)) for index in indices])
    side = min(crops.resolution, SIDE)
    content: dict[str, np.ndarray] = {
        "images": np.stack(images) if images else np.empty((0, 2, side, side, 3), np.uint8),
        "group": np.array(["worst"] * len(choice.worst) + ["median"] * len(choice.median)),
        "key": np.array([crops.key(index) for index in indices]),
        **{name: measured.column(name)[indices] for name in measured.value_names},
    }
    write_with(path, lambda file: np.savez(file, allow_pickle=False, **content))


def pair_of(reconstruct: Reconstruct, crops: Crops, index: int, device: torch.device) -> np.ndarray:
    """An image and its reconstruction, uint8 (2, height, width, 3)."""
    real = crops[index][None].to(device)
    with torch.inference_mode():
        fake = reconstruct(real, range(index, index + 1))
    return torch.cat([real, fake]).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def on_one_canvas(pairs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pairs (2, height, width, 3) of one size: smaller ones get white on the right and at the bottom."""
    height, width = (max((pair.shape[axis] for pair in pairs), default=0) for axis in (1, 2))
    return [
        np.pad(pair, [(0, 0), (0, height - pair.shape[1]), (0, width - pair.shape[2]), (0, 0)], constant_values=255)
        for pair in pairs
    ]


def _reduced(pair: np.ndarray) -> np.ndarray:
    """A pair whose longer side is at most ``SIDE``."""
    _, height, width, _ = pair.shape
    scale = SIDE / max(height, width)
    if scale >= 1:
        return pair
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in pair])
