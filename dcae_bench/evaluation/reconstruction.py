"""Reconstruction quality in one pass: every image is decoded once and feeds every metric."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcae_bench.data.crops import normalise
from dcae_bench.errors import DataError
from dcae_bench.metrics.features import FeatureExtractor
from dcae_bench.metrics.frechet import FrechetResult, frechet_distance
from dcae_bench.metrics.image import psnr, ssim, to_uint8
from dcae_bench.metrics.lpips import LPIPS
from dcae_bench.models.autoencoder import Autoencoder
from dcae_bench.records import Metric

PROTOCOL = "reconstruction/photos-v1"


@dataclass(frozen=True)
class Measured:
    """Metrics of one set of images and the first few reconstructions."""

    metrics: dict[str, Metric]
    samples: np.ndarray
    """uint8 (k, 2, height, width, 3): original and reconstruction."""


class ReconstructionEvaluator:
    """Protocol ``reconstruction/photos-v1``: both sides rounded to uint8 before every metric.

    PSNR is per image over its three channels, SSIM 11x11 Gaussian with data range 255, LPIPS v0.1 AlexNet on the
    rounded images; each is averaged over images. The Fréchet distance takes EfficientNet-Lite0's features of the
    reconstructions and of the same rounded originals, so it is not an FID and is not called one.
    """

    def __init__(self, extractor: FeatureExtractor, lpips: LPIPS, *, batch_size: int, device: torch.device):
        self.extractor, self.lpips = extractor, lpips.to(device)
        self.batch_size, self.device = batch_size, device

    @torch.inference_mode()
    def measure(self, model: Autoencoder, images: Tensor, *, samples: int) -> Measured:
        """Measure ``model`` on uint8 images (n, 3, H, W). Raises :class:`DataError` for fewer than two images."""
        if len(images) < 2:
            raise DataError(f"{len(images)} images cannot be evaluated: a Fréchet distance needs at least 2")
        values: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips_alex_u8": []}
        real_features, fake_features, kept = [], [], []
        for real, fake in self._reconstructions(model, images):
            values["psnr"].append(psnr(real, fake))
            values["ssim"].append(ssim(real, fake))
            values["lpips_alex_u8"].append(self.lpips(normalise(fake), normalise(real)))
            real_features.append(self.extractor(real))
            fake_features.append(self.extractor(fake))
            if sum(map(len, kept)) < samples:
                kept.append(torch.stack([real, fake], dim=1).cpu())
        means = {name: torch.cat(parts).double().mean().item() for name, parts in values.items()}
        if not all(math.isfinite(mean) for mean in means.values()):
            shown = ", ".join(f"{name} {mean:g}" for name, mean in means.items())
            raise DataError(f"the metrics are not finite ({shown}): an image was reproduced exactly, or not at all")
        distance = frechet_distance(_join(real_features), _join(fake_features))
        return Measured(
            self._metrics(means, distance), torch.cat(kept)[:samples].permute(0, 1, 3, 4, 2).contiguous().numpy()
        )

    def _reconstructions(self, model: Autoencoder, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for real in images.split(self.batch_size):
            real = real.to(self.device)
            yield real, to_uint8(model(normalise(real)).float())

    def _metrics(self, means: dict[str, float], distance: FrechetResult) -> dict[str, Metric]:
        notes = ()
        if distance.rank_deficient:
            notes = (
                f"{distance.images} images for {distance.dim} features: the covariances are rank-deficient, the "
                "distance is computed exactly from singular values, and it is biased upwards; compare it only at equal "
                "image counts",
            )
        return {
            "rfd_efficientnet_lite0": Metric(
                label="rFD (EfficientNet-Lite0)",
                value=distance.value,
                better="lower",
                notes=notes,
                weights_sha256=self.extractor.weights_sha256,
            ),
            "psnr": Metric(label="PSNR", value=means["psnr"], better="higher", unit="dB"),
            "ssim": Metric(label="SSIM", value=means["ssim"], better="higher"),
            "lpips_alex_u8": Metric(
                label="LPIPS (AlexNet)",
                value=means["lpips_alex_u8"],
                better="lower",
                weights_sha256=self.lpips.weights_sha256,
            ),
        }


def _join(features: list[Tensor]) -> np.ndarray:
    return torch.cat(features).double().cpu().numpy()
