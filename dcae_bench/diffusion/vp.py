"""UViT's process: discrete, variance-preserving, with the noise predicted."""

import numpy as np
from torch import Tensor

from dcae_bench.diffusion.process import Model, Process, Tables, mean_per_sample

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


class VariancePreserving(Process):
    """x_n = sqrt(abar_n) x0 + sqrt(1 - abar_n) noise, n from 1 to 1000; the loss is the squared error of the noise.

    The betas are linear in their square roots, as Stable Diffusion's (implementation of the authors).
    """

    name = "vp"

    def __init__(self) -> None:
        betas = np.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, STEPS) ** 2
        self.alphas_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
        """abar by n from 0 (data) to 1000, float64."""
        self._tables = Tables(signal=self.alphas_bar**0.5, noise=(1 - self.alphas_bar) ** 0.5)

    def times(self, uniform: Tensor) -> Tensor:
        """Steps n (n,), 1 to 1000."""
        return 1 + (uniform * STEPS).long().clamp(max=STEPS - 1)

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean squared error of the predicted noise, per sample."""
        x = self._tables.at("signal", t, x0) * x0 + self._tables.at("noise", t, x0) * noise
        return mean_per_sample((model(x, t, y).float() - noise).square())

    def alpha_sigma(self, time: float) -> tuple[float, float]:
        """Scales of data and noise at a time in [1/1000, 1], where n = 1000 time: log alpha is linear in between."""
        steps = np.arange(1, STEPS + 1) / STEPS
        log_alpha = 0.5 * float(np.interp(time, steps, np.log(self.alphas_bar[1:])))
        return float(np.exp(log_alpha)), float(np.sqrt(-np.expm1(2 * log_alpha)))
