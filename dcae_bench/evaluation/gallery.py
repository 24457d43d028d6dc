"""Gallery of reconstructions: the worst images, which a mean hides, and the median ones for comparison."""

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
    images = [_pair(reconstruct, crops, index, device) for index in indices]
    side = min(crops.resolution, SIDE)
    content: dict[str, np.ndarray] = {
        "images": np.stack(images) if images else np.empty((0, 2, side, side, 3), np.uint8),
        "group": np.array(["worst"] * len(choice.worst) + ["median"] * len(choice.median)),
        "key": np.array([crops.key(index) for index in indices]),
        **{name: measured.column(name)[indices] for name in measured.value_names},
    }
    write_with(path, lambda file: np.savez(file, allow_pickle=False, **content))


def _pair(reconstruct: Reconstruct, crops: Crops, index: int, device: torch.device) -> np.ndarray:
    real = crops[index][None].to(device)
    with torch.inference_mode():
        fake = reconstruct(real, range(index, index + 1))
    pair = torch.cat([real, fake]).permute(0, 2, 3, 1).cpu().numpy()
    if crops.resolution <= SIDE:
        return pair
    return np.stack([np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BOX)) for x in pair])
