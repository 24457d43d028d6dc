"""DPM-Solver++, single-step, with a fixed number of function evaluations (NFE): the paper's sampler for UViT.

diffusers' ``DPMSolverSinglestepScheduler`` cannot replace this module: it rounds times to whole steps, counts steps
from 0, and uses one kind of second-order update where this solver needs two. Its times and its results differ.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dcae_bench.diffusion.vp import STEPS, VariancePreserving

START, END = 1.0, 1 / STEPS


def step_orders(nfe: int) -> list[int]:
    """Orders of the solver's steps, which use ``nfe`` evaluations in all: third order, then one or two lower ones."""
    thirds, rest = divmod(nfe, 3)
    return [3] * (thirds - 1) + [2, 1] if rest == 0 else [3] * thirds + [rest]


def dpm_solver(
    predict: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    process: VariancePreserving,
    nfe: int,
    *,
    end: float = END,
) -> Tensor:
    """Solve the probability flow ODE from noise x (n, c, h, w) at time 1 to time ``end``.

    ``predict`` maps latents and times (n,) to noise; the times are on the model's scale, 1 to 1000, and may be
    fractions. The times of all evaluations are spaced evenly. No denoising step follows the last evaluation.
    """
    times = np.linspace(START, end, nfe + 1)
    first = 0
    for order in step_orders(nfe):
        x = _Step(predict, process, times[first : first + order + 1]).solve(x)
        first += order
    return x


class _Step:
    """One step from times[0] to times[-1] (Lu et al., 2022b; data prediction).

    The step evaluates the model at every time except the last. The number of its evaluations is its order.
    """

    def __init__(
        self, predict: Callable[[Tensor, Tensor], Tensor], process: VariancePreserving, times: np.ndarray
    ) -> None:
        self.predict = predict
        self.times = times
        self.alpha, self.sigma = np.array([process.alpha_sigma(time) for time in times]).T
        half_log_snr = np.log(self.alpha / self.sigma)
        self.h = half_log_snr - half_log_snr[0]
        """Distance of each time from the first time, in half the log of the signal-to-noise ratio."""

    def solve(self, x: Tensor) -> Tensor:
        start = self._data(x, 0)
        if len(self.times) == 2:
            return self._linear(x, start, 1)
        difference = self._data(self._linear(x, start, 1), 1) - start
        if len(self.times) == 3:
            phi = np.expm1(-self.h[2])
            return self._linear(x, start, 2) - float(0.5 * self.alpha[2] * phi * self.h[2] / self.h[1]) * difference
        inner = self._linear(x, start, 2) + self._slope(2, 1) * difference
        return self._linear(x, start, 3) + self._slope(3, 2) * (self._data(inner, 2) - start)

    def _linear(self, x: Tensor, data: Tensor, to: int) -> Tensor:
        """First-order update to ``times[to]``: the data prediction counts as constant."""
        ratio, part = self.sigma[to] / self.sigma[0], self.alpha[to] * np.expm1(-self.h[to])
        return float(ratio) * x - float(part) * data

    def _slope(self, to: int, inner: int) -> float:
        """Weight, in the update to ``times[to]``, of the data prediction's change up to ``times[inner]``."""
        h = self.h[to]
        return float(self.alpha[to] * (np.expm1(-h) / h + 1) * h / self.h[inner])

    def _data(self, x: Tensor, at: int) -> Tensor:
        """Data prediction at ``times[at]``."""
        t = torch.full((len(x),), float(self.times[at] * STEPS), device=x.device)
        return (x - float(self.sigma[at]) * self.predict(x, t)) / float(self.alpha[at])
