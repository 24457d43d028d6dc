"""Inception Score (Salimans et al., 2016) of generated images, torch-fidelity's way."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

SPLITS = 10
SEED = 2020


@dataclass(frozen=True)
class InceptionScore:
    """The score with its spread."""

    value: float
    spread: float
    """Standard deviation over the splits."""


def inception_score(logits: Tensor) -> InceptionScore:
    """Score of unbiased logits (n, 1008): exp KL(p(y|x) || p(y)), the mean of 10 splits shuffled with seed 2020.

    Raises ValueError for fewer images than splits, or for logits that are not finite.
    """
    if logits.ndim != 2 or len(logits) < SPLITS:
        raise ValueError(f"an Inception Score needs logits (n, classes) of {SPLITS} images, got {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("logits hold values that are not finite")
    found = isc_features_to_metric(logits, splits=SPLITS, shuffle=True, rng_seed=SEED)
    return InceptionScore(found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD])


def unbiased_logits(features: np.ndarray, weight: Tensor, *, rows: int = 4096) -> Tensor:
    """Logits (n, 1008) without bias, torch-fidelity's ``logits_unbiased``, of pooled features (n, 2048)."""
    parts = [torch.from_numpy(np.array(features[start : start + rows])) for start in range(0, len(features), rows)]
    return torch.cat([part.float() @ weight.cpu().float().T for part in parts])
