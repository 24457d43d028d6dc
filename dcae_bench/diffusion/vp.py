"""UViT's process: discrete and variance-preserving; the model predicts the noise."""

import numpy as np
from torch import Tensor

from dcae_bench.diffusion.process import Model, Process, Tables, mean_per_sample

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


class VariancePreserving(Process):
    """x_n = sqrt(abar_n) x0 + sqrt(1 - abar_n) noise, n from 1 to 1000; the loss is the squared error of the noise.

    The square roots of the betas are linear in n, as in Stable Diffusion and in the authors' code.
    """

    name = "vp"

    def __init__(self) -> None:
        betas = np.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, STEPS) ** 2
        self.alphas_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
        """abar_n for n from 0 (data) to 1000, float64."""
        self._tables = Tables(signal=self.alphas_bar**0.5, noise=(1 - self.alphas_bar) ** 0.5)

    def times(self, uniform: Tensor) -> Tensor:
        """Steps n (n,), 1 to 1000."""
        return 1 + (uniform * STEPS).long().clamp(max=STEPS - 1)

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean squared error of the predicted noise, for each sample (n,)."""
        x = self._tables.at("signal", t, x0) * x0 + self._tables.at("noise", t, x0) * noise
        return mean_per_sample((model(x, t, y).float() - noise).square())

    def alpha_sigma(self, time: float) -> tuple[float, float]:
        """Scales of data and noise at a time n / 1000 in [1/1000, 1]; log alpha is linear between two steps."""
        steps = np.arange(1, STEPS + 1) / STEPS
        log_alpha = 0.5 * float(np.interp(time, steps, np.log(self.alphas_bar[1:])))
        return float(np.exp(log_alpha)), float(np.sqrt(-np.expm1(2 * log_alpha)))
