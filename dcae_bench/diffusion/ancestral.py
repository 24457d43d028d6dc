"""Ancestral sampling with a learned variance: the paper's sampler for DiT.

diffusers' ``DDPMScheduler`` takes the same steps, and a test compares the two. ``DDPMScheduler`` draws one noise tensor
for the whole batch; this sampler takes the noise from its caller, so that each sample can have a stream of its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dcae_bench.diffusion.learned_range import LearnedRange
from dcae_bench.diffusion.noise import Noise


def sample_ancestral(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Noise, process: LearnedRange, count: int
) -> Tensor:
    """Sample latents (n, c, h, w) in ``count`` of the process's 1000 steps.

    ``predict`` maps latents and times (n,) to noise and variance (n, 2c, h, w). Nothing is clipped. The last step adds
    no noise.
    """
    steps = process.spaced(count)
    x = noise()
    for step in reversed(range(count)):
        t = torch.full((len(x),), step, device=x.device)
        mean, log_variance = steps.predicted(x, t, predict(x, torch.full_like(t, int(steps.times[step]))))
        x = mean + (0.5 * log_variance).exp() * noise() if step else mean
    return x
