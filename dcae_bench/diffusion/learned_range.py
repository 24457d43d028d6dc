"""DiT's process: Gaussian diffusion with a learned variance and the hybrid loss (Nichol and Dhariwal, 2021)."""

import math

import numpy as np
import torch
from torch import Tensor

from dcae_bench.diffusion.process import Model, Process, Tables, mean_per_sample, per_sample

STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02
LIMIT = 0.999
"""A number of the data whose absolute value exceeds the limit counts to the outermost bin, which has no outer edge."""
HALF_BIN = 1 / 255
"""Half the width of a bin of the likelihood at t = 0: the bins of 8-bit images in [-1, 1], which DiT keeps for latents.
"""


class ReverseSteps:
    """The reverse steps of a Gaussian diffusion; step t leads from x_t to x_{t-1}.

    ``alphas_bar`` are the diffusion's cumulative alphas, by step in float64. ``times`` are the times that the model is
    given, by step.
    """

    def __init__(self, alphas_bar: np.ndarray, times: np.ndarray) -> None:
        self.times = times
        before = np.concatenate([[1.0], alphas_bar[:-1]])
        alphas = alphas_bar / before
        betas = 1 - alphas
        variance = betas * (1 - before) / (1 - alphas_bar)
        variance[0] = variance[1]  # step 0 adds no noise: its variance is 0, whose logarithm is not finite
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
        """Noisy latents x_t, made of data x0 and noise."""
        return self._tables.at("signal", t, x0) * x0 + self._tables.at("noise", t, x0) * noise

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1}, given x_t and the data x0."""
        mean = self._tables.at("from_x0", t, x) * x0 + self._tables.at("from_x", t, x) * x
        return mean, self._tables.at("low", t, x)

    def predicted(self, x: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1}, given x_t and a model's output (n, 2c, h, w).

        The first half of the output is the noise. The second half interpolates between the smallest and the largest
        log variance: -1 is the smallest, 1 the largest.
        """
        noise, place = output.chunk(2, dim=1)
        x0 = (x - self._tables.at("noise", t, x) * noise) / self._tables.at("signal", t, x)
        part = (place + 1) / 2
        log_variance = part * self._tables.at("high", t, x) + (1 - part) * self._tables.at("low", t, x)
        return self.posterior(x0, x, t)[0], log_variance


class LearnedRange(Process):
    """Linear betas from 1e-4 to 0.02 in 1000 steps, t from 0 to 999.

    The loss is the squared error of the noise plus the variational bound in bits. The bound takes the predicted mean as
    a constant, so that its gradient trains the variance alone. The bound has weight 1.
    """

    name = "learned-range"

    def __init__(self) -> None:
        self.alphas_bar = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, STEPS))
        self.steps = ReverseSteps(self.alphas_bar, np.arange(STEPS))

    def times(self, uniform: Tensor) -> Tensor:
        """Steps t (n,), 0 to 999."""
        return (uniform * STEPS).long().clamp(max=STEPS - 1)

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """Squared error of the noise plus the variational bound, for each sample (n,)."""
        x = self.steps.noised(x0, t, noise)
        output = model(x, t, y).float()
        predicted, place = output.chunk(2, dim=1)
        fixed_mean = torch.cat([predicted.detach(), place], dim=1)
        return mean_per_sample((predicted - noise).square()) + self.bound(fixed_mean, x0, x, t)

    def bound(self, output: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Term t of the variational bound, in bits per number of the latent (n,).

        The term is the KL divergence of the predicted from the true x_{t-1}; at t = 0 it is minus the data's log
        likelihood.
        """
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
        """The diffusion that uses only ``count`` of the steps: evenly spaced, the first and the last included."""
        stride = (STEPS - 1) / (count - 1)
        times = np.array([round(stride * number) for number in range(count)])
        return ReverseSteps(self.alphas_bar[times], times)


def bin_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log of the probability that a Gaussian gives to the bin around x.

    Inner bins are 2/255 wide; the two outer bins reach to infinity. A hyperbolic tangent approximates the normal
    distribution function, as in DiT's code.
    """
    inverse = (-0.5 * log_variance).exp()
    upper = _normal_cdf(inverse * (x - mean + HALF_BIN))
    lower = _normal_cdf(inverse * (x - mean - HALF_BIN))
    mass = torch.where(x < -LIMIT, upper, torch.where(x > LIMIT, 1 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
