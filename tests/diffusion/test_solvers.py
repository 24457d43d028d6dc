"""Each solver by itself: constants of the authors' runs, other libraries' solvers, and known solutions."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverSinglestepScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from dcae_bench.diffusion.ancestral import sample_ancestral
from dcae_bench.diffusion.dopri5 import solve_each, solve_together
from dcae_bench.diffusion.dpm_solver import dpm_solver, step_orders
from dcae_bench.diffusion.learned_range import LearnedRange
from dcae_bench.diffusion.vp import VariancePreserving

VP = VariancePreserving()
TOLERANCE = {"atol": 1e-6, "rtol": 1e-3}


class Narrow:
    """The exact noise of data N(0, 0.25), and the times it was asked for."""

    def __init__(self) -> None:
        self.times = []

    def __call__(self, x, t):
        assert t.shape == x.shape[:1] and t.unique().numel() == 1
        self.times.append(t[0].item())
        alpha, sigma = VP.alpha_sigma(t[0].item() / 1000)
        return sigma * x / (0.25 * alpha**2 + sigma**2)

    @staticmethod
    def ratio(end: float) -> float:
        """What the exact flow makes of noise between time 1 and ``end``."""
        first, last = ((0.25 * a**2 + s**2) for a, s in map(VP.alpha_sigma, (1, end)))
        return (last / first) ** 0.5


def test_dpm_solver_scales_noise_as_the_authors_solver():
    model = Narrow()
    x = dpm_solver(model, torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1), VP, 30)
    assert x.flatten().tolist() == pytest.approx([0.47983, -2 * 0.47983], abs=1e-5)
    assert Narrow.ratio(0.001) == pytest.approx(0.50151, abs=1e-5)
    assert len(model.times) == 30
    assert model.times[:3] == pytest.approx([1000, 966.7, 933.4], abs=0.01) and model.times[-1] == pytest.approx(34.3)


def test_dpm_solver_is_of_third_order():
    errors = []
    for nfe in (14, 29, 59):  # ending in a second-order step, whose error counts once
        x = dpm_solver(Narrow(), torch.ones(1, 1, 1, 1, dtype=torch.float64), VP, nfe, end=0.2)
        errors.append(abs(x.item() / Narrow.ratio(0.2) - 1))
    assert errors[0] / errors[1] > 6 and errors[1] / errors[2] > 6


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
def test_dpm_solver_agrees_with_diffusers_on_equal_times(mixture, exact):
    """diffusers' scheduler with our noise levels, and with the inner update of a third-order step as it is here."""
    model = exact["vp"](mixture)
    times = np.linspace(1, 0.001, 31)
    scheduler = DPMSolverSinglestepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        solver_order=3,
        lower_order_final=True,
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(30)
    scheduler.sigmas = torch.tensor([sigma / alpha for alpha, sigma in map(VP.alpha_sigma, times)]).double()
    start = torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start
    for index, step in enumerate(scheduler.timesteps):
        inner = scheduler.order_list[index] == 2 and index + 1 < 30 and scheduler.order_list[index + 1] == 3
        scheduler.register_to_config(solver_type="heun" if inner else "midpoint")
        t = torch.full((50,), times[index] * 1000)
        x = scheduler.step(model(x, t), step, x).prev_sample
    found = dpm_solver(model, start, VP, 30)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)


@given(st.integers(3, 500))
def test_orders_use_up_the_evaluations(nfe):
    found = step_orders(nfe)
    assert sum(found) == nfe and found == sorted(found, reverse=True) and set(found) <= {1, 2, 3}
    assert found.count(1) + found.count(2) <= 2


def test_ancestral_steps_are_those_of_diffusers():
    """Same prediction and same noise; diffusers keeps its betas in float32."""
    process = LearnedRange()
    steps = process.spaced(20)
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(20, 3, 4, 2, 2, generator=generator)
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    scheduler.set_timesteps(timesteps=steps.times[::-1].tolist())
    x = start = torch.randn(3, 2, 2, 2, generator=generator)
    draws = torch.Generator().manual_seed(1)
    for index, t in enumerate(scheduler.timesteps):
        x = scheduler.step(output[index], t, x, generator=draws).prev_sample
    again, calls = torch.Generator().manual_seed(1), iter(range(100))

    def noise():
        return torch.randn(start.shape, generator=again) if next(calls) else start

    told = []

    def predict(x, t):
        told.append(t)
        return output[len(told) - 1]

    found = sample_ancestral(predict, noise, process, 20)
    assert [t.tolist() for t in told] == [[time] * 3 for time in steps.times[::-1].tolist()]
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3 * x.abs().max().item())
    assert next(calls) == 20, "one draw for the start and for each step but the last"


def flow(mixture, exact):
    model = exact["flow"](mixture)
    return lambda x, t, rows: model(x, t).to(x.dtype)


def starts(count: int, dtype=torch.float64):
    return torch.randn(count, 2, 1, 1, generator=torch.Generator().manual_seed(5), dtype=dtype)


def test_dopri5_finds_the_solution(mixture, exact):
    velocity = flow(mixture, exact)
    x = starts(8)

    def right(t, flat):
        latents = torch.from_numpy(flat).reshape(8, 2, 1, 1)
        return velocity(latents, torch.full((8,), t, dtype=torch.float64), None).flatten().numpy()

    wanted = solve_ivp(right, (0, 1), x.flatten().numpy(), method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    wanted = torch.from_numpy(wanted).reshape(x.shape)
    for solve in (solve_each, solve_together):
        torch.testing.assert_close(solve(velocity, x, **TOLERANCE), wanted, rtol=0, atol=0.02)
        # Times are told to the model in float32, which ends the gain at about 1e-6.
        torch.testing.assert_close(solve(velocity, x, atol=1e-8, rtol=1e-7), wanted, rtol=0, atol=5e-6)


def test_dopri5_takes_torchdiffeqs_steps(mixture, exact):
    """For one sample, where torchdiffeq too is made to end at 1 instead of stepping over it."""
    velocity, calls = flow(mixture, exact), {"each": 0, "other": 0}

    def counted(key):
        def call(x, t, rows):
            calls[key] += 1
            return velocity(x, t, rows)

        return call

    for x in starts(5).split(1):
        found = solve_each(counted("each"), x, **TOLERANCE)
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        wanted = odeint(
            lambda t, x: counted("other")(x, t.expand(1).float(), None),
            x,
            ends,
            method="dopri5",
            options={"step_t": ends[1:]},
            **TOLERANCE,
        )[-1]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert calls["each"] == calls["other"] > 5 * 14


def test_the_authors_250_output_times_change_nothing(mixture, exact):
    velocity = flow(mixture, exact)
    x = starts(6, torch.float32)
    grid = torch.linspace(0, 1, 250)
    wanted = odeint(lambda t, x: velocity(x, t.expand(6), None), x, grid, method="dopri5", **TOLERANCE)[-1]
    torch.testing.assert_close(solve_together(velocity, x, **TOLERANCE), wanted, rtol=0, atol=1e-6)


def test_own_steps_do_not_depend_on_the_batch_and_shared_steps_do(mixture, exact):
    velocity = flow(mixture, exact)
    x = starts(12)
    alone = torch.cat([solve_each(velocity, one, **TOLERANCE) for one in x.split(1)])
    torch.testing.assert_close(solve_each(velocity, x, **TOLERANCE), alone, rtol=0, atol=1e-12)
    together = solve_together(velocity, x, **TOLERANCE)
    alone = torch.cat([solve_together(velocity, one, **TOLERANCE) for one in x.split(1)])
    assert (together - alone).abs().max() > 1e-6


def test_finished_samples_cost_nothing():
    seen = []

    def velocity(x, t, rows):
        seen.append(rows.tolist())
        return torch.sin(x * torch.tensor([1.0, 40.0])[rows, None, None, None])

    solve_each(velocity, torch.ones(2, 1, 1, 1), atol=1e-6, rtol=1e-5)
    assert seen[0] == [0, 1] and seen[-1] == [1] and 0 < sum(0 in rows for rows in seen) < len(seen) / 2


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_velocity_that_is_not_finite_ends_as_nan(value):
    def velocity(x, t, rows):
        return torch.where((rows == 1) & (t > 0.5), value, 1.0).reshape(-1, 1, 1, 1).expand_as(x)

    found = solve_each(velocity, torch.zeros(3, 1, 1, 1), **TOLERANCE).flatten()
    assert found[1].isnan() and found[[0, 2]].tolist() == pytest.approx([1, 1])
