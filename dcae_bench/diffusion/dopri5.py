"""Dormand and Prince's adaptive solver from time 0 to 1: the paper's sampler for USiT.

The authors use torchdiffeq's ``dopri5``. It chooses one step size for the whole batch, from the batch's mean error, so
that a sample depends on the other samples of its batch. :func:`solve_each` gives every sample steps of its own.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import RK45
from torch import Tensor

from dcae_bench.diffusion.process import per_sample

ORDER = 5
SMALLEST = 1e-9
"""Smallest step size: a sample that would need a smaller step is given up and becomes NaN."""
SAFETY, MOST_GROWTH, MOST_SHRINKING = 0.9, 10.0, 0.2
STAGES, NODES, WEIGHTS = RK45.A, RK45.C, RK45.B
# The embedded solution is Shampine's, as in torchdiffeq. scipy's is Dormand and Prince's and would give other steps.
EMBEDDED = (1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)
ERROR_WEIGHTS = np.append(WEIGHTS, 0) - EMBEDDED

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps latents (m, c, h, w), times (m,) and the latents' places in the batch (m,) to velocities (m, c, h, w)."""


def solve_together(velocity: Velocity, x: Tensor, *, atol: float, rtol: float) -> Tensor:
    """Solve a batch with torchdiffeq, as the authors do.

    The authors ask for the solution at 250 times between 0 and 1. This function asks for 0 and 1 only, which changes
    neither the steps nor the result at 1. A batch with velocities that are not finite becomes NaN.
    """
    from torchdiffeq import odeint

    indices = torch.arange(len(x), device=x.device)
    ends = torch.tensor([0.0, 1.0], device=x.device)

    def right_hand_side(t: Tensor, x: Tensor) -> Tensor:
        return velocity(x, t.expand(len(x)), indices)

    try:
        return odeint(right_hand_side, x, ends, method="dopri5", atol=atol, rtol=rtol)[-1]
    except AssertionError as error:  # torchdiffeq raises it when no step is small enough
        if not str(error).startswith(("underflow in dt", "non-finite values")):
            raise
        return torch.full_like(x, torch.nan)


def solve_each(velocity: Velocity, x: Tensor, *, atol: float, rtol: float) -> Tensor:
    """Solve each sample of a batch with steps of its own.

    The step control is torchdiffeq's, except that the last step ends at 1 exactly. A finished sample leaves the batch.
    The error of a step is a root mean square over the sample's numbers, in units of ``atol + rtol |x|``. A sample whose
    velocity is not finite becomes NaN.
    """
    done = torch.empty_like(x)
    indices = torch.arange(len(x), device=x.device)
    t = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    slope = velocity(x, t.float(), indices)
    step = _first_step(velocity, x, slope, indices, atol, rtol)
    while len(indices):
        last = t + step >= 1
        step = torch.where(last, 1 - t, step)
        new, new_slope, error = _attempt(velocity, x, slope, t, step, indices)
        ratio = _size(error, atol + rtol * torch.maximum(x.abs(), new.abs()))
        accepted = ratio <= 1
        at = per_sample(accepted, x)
        x, slope = torch.where(at, new, x), torch.where(at, new_slope, slope)
        t = torch.where(accepted, t + step, t)
        # Without this, a sample whose velocity is not finite would retry forever: no step of it is ever accepted.
        broken = ratio.isnan() | (~accepted & (step < SMALLEST))
        finished = broken | (accepted & last)
        step = step * _growth(ratio)
        if finished.any():
            done[indices[finished]] = torch.where(per_sample(broken, x), torch.nan, x)[finished]
            left = ~finished
            indices, x, slope, t, step = indices[left], x[left], slope[left], t[left], step[left]
    return done


def _attempt(
    velocity: Velocity, x: Tensor, slope: Tensor, t: Tensor, step: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step: the new state, the velocity at the new state, and the estimated error."""
    h = per_sample(step.to(x.dtype), x)
    slopes = [slope]
    for stage, node in zip(STAGES[1:], NODES[1:], strict=True):
        moved = x + h * _sum(stage, slopes)
        slopes.append(velocity(moved, (t + float(node) * step).float(), indices))
    new = x + h * _sum(WEIGHTS, slopes)
    slopes.append(velocity(new, (t + step).float(), indices))
    return new, slopes[-1], h * _sum(ERROR_WEIGHTS, slopes)


def _first_step(velocity: Velocity, x: Tensor, slope: Tensor, indices: Tensor, atol: float, rtol: float) -> Tensor:
    """Choose the first step size of each sample (Hairer, Norsett and Wanner, II.4)."""
    scale = atol + rtol * x.abs()
    size, speed = _size(x, scale), _size(slope, scale)
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    moved = x + per_sample(trial.to(x.dtype), x) * slope
    bend = _size(velocity(moved, trial.float(), indices) - slope, scale) / trial
    most = torch.maximum(speed, bend)
    fitting = torch.where(most <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / most) ** (1 / ORDER))
    return torch.minimum(100 * trial, fitting)


def _growth(ratio: Tensor) -> Tensor:
    """Factor from one step size to the next. The step after an accepted step is never smaller."""
    least = torch.where(ratio < 1, 1.0, MOST_SHRINKING)
    return (SAFETY * ratio.clamp(min=1e-10) ** (-1 / ORDER)).clamp(max=MOST_GROWTH).maximum(least)


def _sum(weights: np.ndarray, slopes: list[Tensor]) -> Tensor:
    terms = (float(weight) * slope for weight, slope in zip(weights, slopes, strict=False) if weight)
    return sum(terms, start=torch.zeros_like(slopes[0]))


def _size(values: Tensor, scale: Tensor) -> Tensor:
    """Root mean square of each sample's values, in units of ``scale`` and in float64 (m,)."""
    return (values / scale).double().flatten(1).square().mean(dim=1).sqrt()
