"""Inception Score (Salimans et al., 2016) of generated images, as torch-fidelity defines the score."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

SPLITS = 10
SEED = 2020


@dataclass(frozen=True)
class InceptionScore:
    """An Inception Score and its spread."""

    value: float
    spread: float
    """Standard deviation of the score over the splits."""


def inception_score(logits: Tensor) -> InceptionScore:
    """Score logits without bias (n, 1008): exp KL(p(y|x) || p(y)), averaged over 10 splits shuffled with seed 2020.

    Raises ValueError for fewer images than splits, and for logits that are not finite.
    """
    if logits.ndim != 2 or len(logits) < SPLITS:
        raise ValueError(f"an Inception Score needs logits (n, classes) of {SPLITS} images, got {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("logits hold values that are not finite")
    found = isc_features_to_metric(logits, splits=SPLITS, shuffle=True, rng_seed=SEED)
    return InceptionScore(found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD])


def unbiased_logits(features: np.ndarray, weight: Tensor, *, rows: int = 4096) -> Tensor:
    """Logits without bias (n, 1008), torch-fidelity's ``logits_unbiased``, from pooled features (n, 2048).

    ``weight`` (1008, 2048) belongs to Inception's classifier; the product is computed for ``rows`` images at a time.
    """
    parts = [torch.from_numpy(np.array(features[start : start + rows])) for start in range(0, len(features), rows)]
    return torch.cat([part.float() @ weight.cpu().float().T for part in parts])
