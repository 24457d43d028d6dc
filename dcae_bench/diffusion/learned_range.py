"""DiT's process: Gaussian diffusion with a learned variance and the hybrid loss (Nichol and Dhariwal, 2021)."""

import math

import numpy as np
import torch
from torch import Tensor

from dcae_bench.diffusion.process import Model, Process, Tables, mean_per_sample, per_sample

STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02
LIMIT = 0.999
"""Data beyond it counts as the last bin, which has no outer edge."""
BIN = 1 / 255
"""Half a bin of the likelihood at t = 0. It is that of 8-bit images in [-1, 1]; DiT keeps it for latents."""


class ReverseSteps:
    """The steps of a Gaussian diffusion, from its cumulative alphas (float64); step t leads from x_t to x_{t-1}.

    ``times`` are the times that the model is told.
    """

    def __init__(self, alphas_bar: np.ndarray, times: np.ndarray) -> None:
        self.times = times
        before = np.concatenate([[1.0], alphas_bar[:-1]])
        alphas = alphas_bar / before
        betas = 1 - alphas
        variance = betas * (1 - before) / (1 - alphas_bar)
        variance[0] = variance[1]  # that of step 0 is zero, its logarithm not finite; no noise follows that step
        self._tables = Tables(
            signal=alphas_bar**0.5,
            noise=(1 - alphas_bar) ** 0.5,
            from_x0=betas * before**0.5 / (1 - alphas_bar),
            from_x=(1 - before) * alphas**0.5 / (1 - alphas_bar),
            low=np.log(variance),
            high=np.log(betas),
        )

    def __len__(self) -> int:
        return len(self.times)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of data and noise."""
        return self._tables.at("signal", t, x0) * x0 + self._tables.at("noise", t, x0) * noise

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1} given x_t and the data."""
        mean = self._tables.at("from_x0", t, x) * x0 + self._tables.at("from_x", t, x) * x
        return mean, self._tables.at("low", t, x)

    def predicted(self, x: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1} given x_t, as a model predicts: noise, then the place in the range."""
        noise, place = output.chunk(2, dim=1)
        x0 = (x - self._tables.at("noise", t, x) * noise) / self._tables.at("signal", t, x)
        part = (place + 1) / 2
        log_variance = part * self._tables.at("high", t, x) + (1 - part) * self._tables.at("low", t, x)
        return self.posterior(x0, x, t)[0], log_variance


class LearnedRange(Process):
    """Linear betas from 1e-4 to 0.02 in 1000 steps, t from 0 to 999.

    The loss is the squared error of the noise plus the variational bound in bits, in which the mean is a constant, so
    that it teaches the variance alone. The bound is not scaled.
    """

    name = "learned-range"

    def __init__(self) -> None:
        self.alphas_bar = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, STEPS))
        self.steps = ReverseSteps(self.alphas_bar, np.arange(STEPS))

    def times(self, uniform: Tensor) -> Tensor:
        """Steps t (n,), 0 to 999."""
        return (uniform * STEPS).long().clamp(max=STEPS - 1)

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Squared error of the noise plus the bound, per sample."""
        x = self.steps.noised(x0, t, noise)
        output = model(x, t, y).float()
        predicted, place = output.chunk(2, dim=1)
        fixed_mean = torch.cat([predicted.detach(), place], dim=1)
        return mean_per_sample((predicted - noise).square()) + self.bound(fixed_mean, x0, x, t)

    def bound(self, output: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Term t of the variational bound in bits per number (n,): a divergence, at t = 0 the data's likelihood."""
        mean, log_variance = self.steps.predicted(x, t, output)
        true_mean, true_log_variance = self.steps.posterior(x0, x, t)
        divergence = 0.5 * (
            log_variance
            - true_log_variance
            - 1
            + (true_log_variance - log_variance).exp()
            + (true_mean - mean).square() * (-log_variance).exp()
        )
        terms = torch.where(per_sample(t, x) == 0, -bin_log_likelihood(x0, mean, log_variance), divergence)
        return mean_per_sample(terms) / math.log(2)

    def spaced(self, count: int) -> ReverseSteps:
        """A diffusion of ``count`` of the steps, evenly chosen with the first and the last."""
        stride = (STEPS - 1) / (count - 1)
        times = np.array([round(stride * number) for number in range(count)])
        return ReverseSteps(self.alphas_bar[times], times)


def bin_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log of a Gaussian's mass in the bin of 2/255 around x; the outer bins reach to infinity.

    The normal distribution is approximated by a hyperbolic tangent, as in DiT's code.
    """
    inverse = (-0.5 * log_variance).exp()
    upper = _normal_cdf(inverse * (x - mean + BIN))
    lower = _normal_cdf(inverse * (x - mean - BIN))
    mass = torch.where(x < -LIMIT, upper, torch.where(x > LIMIT, 1 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
