"""Precision and recall of generated images (Kynkäänniemi et al., 2019), torch-fidelity's way."""

from dataclasses import dataclass

from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

NEIGHBOURS = 3
ROWS = 2000
"""Features whose distances to all others are in memory at a time; torch-fidelity's 10,000 take 5 times as much."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares of images inside the other side's manifold."""

    precision: float
    """Of the generated images, inside the balls around real ones."""
    recall: float
    """Of the real images, inside the balls around generated ones."""


def precision_recall(real: Tensor, fake: Tensor) -> PrecisionRecall:
    """Precision and recall of features (n, d) and (m, d); a ball reaches to an image's third-nearest neighbour.

    The field's tables follow ADM and take Inception features, while the authors of the metric and torch-fidelity's
    default take VGG16's. Both shares depend on both counts: compare at equal counts. Raises ValueError for fewer than 4
    features on a side, features of different length, or values that are not finite.
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
