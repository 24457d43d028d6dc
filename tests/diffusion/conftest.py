"""A latent space whose exact denoisers are known: two numbers per latent, one round Gaussian per class."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dcae_bench.diffusion.learned_range import ReverseSteps
from dcae_bench.diffusion.vp import VariancePreserving
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.specs.denoisers import LatentSpace, UViTSpec


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with equal weights in two dimensions; latents are (n, 2, 1, 1)."""

    means: Tensor
    deviations: Tensor

    @property
    def classes(self) -> int:
        return len(self.means)

    def draw(self, count: int, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            labels = torch.randint(self.classes, (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=self.means.dtype)
        return (self.means[labels] + self.deviations[labels, None] * noise)[..., None, None]

    def log_density(self, x: Tensor) -> Tensor:
        """Log density (n,) of latents."""
        variance = self.deviations**2
        square = (x[:, None, :, 0, 0] - self.means).square().sum(-1)
        terms = -square / (2 * variance) - torch.log(2 * torch.pi * variance)
        return terms.logsumexp(1) - torch.log(torch.tensor(float(self.classes)))

    def posterior(self, x: Tensor, signal: Tensor, noise: Tensor, y: Tensor | None = None):
        """Given x = signal * data + noise * z: the data's mean and variance, and the mean of the normal noise z.

        ``signal`` and ``noise`` are (n,); ``y`` (n,) restricts samples to their class, ``classes`` meaning none.
        All of the result is (n, 2, 1, 1).
        """
        x, signal, noise = x[:, None, :, 0, 0], signal[:, None, None], noise[:, None, None]
        scale = self.deviations[None, :, None]
        total = (signal * scale) ** 2 + noise**2
        off = x - signal * self.means
        logits = -(off.square() / total).sum(-1) / 2 - total[..., 0].log()
        if y is not None:
            only = (y[:, None] == self.classes) | (y[:, None] == torch.arange(self.classes))
            logits = logits.masked_fill(~only, -torch.inf)
        weight = logits.softmax(1)[..., None]
        each = self.means + signal * scale**2 / total * off
        mean = (weight * each).sum(1)
        variance = (weight * (scale**2 * noise**2 / total + each.square())).sum(1) - mean.square()
        noise_mean = (weight * noise / total * off).sum(1)
        return mean[..., None, None], variance[..., None, None], noise_mean[..., None, None]


@pytest.fixture
def mixture() -> Mixture:
    means = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
    return Mixture(means, torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64))


class ExactVP:
    """The exact predictor of the noise under UViT's process, at any time from 1 to 1000."""

    def __init__(self, data: Mixture) -> None:
        self.data, self.process = data, VariancePreserving()

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        scales = torch.tensor([self.process.alpha_sigma(float(time) / 1000) for time in t.unique()]).double()
        signal, noise = scales[t.unique(return_inverse=True)[1]].T
        return self.data.posterior(x, signal, noise, y)[2]


class ExactLearnedRange:
    """The exact predictor of noise and variance under DiT's process, for given reverse steps."""

    def __init__(self, data: Mixture, steps: ReverseSteps) -> None:
        self.data, self.steps = data, steps
        self.index = {int(time): index for index, time in enumerate(steps.times)}

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        t = torch.tensor([self.index[int(time)] for time in t.unique()])[t.unique(return_inverse=True)[1]]
        x = x.double()
        signal, noise = (self.steps._tables.at(name, t, x) for name in ("signal", "noise"))
        _, variance, noise_mean = self.data.posterior(x, signal.flatten(), noise.flatten(), y)
        from_x0, low, high = (self.steps._tables.at(name, t, x) for name in ("from_x0", "low", "high"))
        # The variance of x_{t-1} given x_t: its variance for known data, plus the part from the data's uncertainty.
        wanted = (low.exp() + from_x0.square() * variance).log()
        return torch.cat([noise_mean, 2 * (wanted - low) / (high - low) - 1], dim=1)


class ExactFlow:
    """The exact predictor of the velocity under USiT's process."""

    def __init__(self, data: Mixture) -> None:
        self.data = data

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        t = t.double()
        mean, _, noise_mean = self.data.posterior(x.double(), t, 1 - t, y)
        return mean - noise_mean


class AsDenoiser(Denoiser):
    """Wraps a function of latents, times and labels as a denoiser of the mixture's latents."""

    def __init__(self, function, classes: int | None) -> None:
        latent = LatentSpace(channels=2, side=1)
        super().__init__(UViTSpec(family="uvit", latent=latent, width=4, depth=2, heads=1, classes=classes))
        self.function = function

    def _forward(self, x, t, y):
        return self.function(x, t, y)

    def transformer_blocks(self) -> list[nn.Module]:
        return []


@pytest.fixture
def exact():
    """The exact predictors, by process."""
    return {"vp": ExactVP, "learned-range": ExactLearnedRange, "flow": ExactFlow}


@pytest.fixture
def as_denoiser():
    return AsDenoiser
