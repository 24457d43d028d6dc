"""Precision and recall of generated images (Kynkäänniemi et al., 2019), as torch-fidelity defines the two shares."""

from dataclasses import dataclass

from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

NEIGHBOURS = 3
ROWS = 2000
"""Features whose distances to all others are in memory at a time. torch-fidelity's default, 10,000, takes 5 times the
memory."""


@dataclass(frozen=True)
class PrecisionRecall:
    """The share of each side's images that lies on the other side's manifold (a union of balls around its images)."""

    precision: float
    """Share of the generated images that lie inside a ball around a real image."""
    recall: float
    """Share of the real images that lie inside a ball around a generated image."""


def precision_recall(real: Tensor, fake: Tensor) -> PrecisionRecall:
    """Precision and recall of features (n, d) and (m, d). A ball reaches to an image's third-nearest neighbour.

    Published tables follow ADM and use Inception features; the authors of the metric and torch-fidelity's default use
    VGG16 features. Both shares depend on both image counts, so compare at equal counts only. Raises ValueError for
    fewer than 4 features on a side, for features of different length, and for values that are not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) <= NEIGHBOURS:
        raise ValueError(
            f"precision and recall need two sets (n, d) of {NEIGHBOURS + 1} feature vectors or more, "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features hold values that are not finite")
    found = prc_features_to_metric(
        fake.float(),
        real.float(),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return PrecisionRecall(found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL])
