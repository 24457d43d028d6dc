"""Each process on data whose best predictions are known in closed form, and against published constants."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from dcae_bench.diffusion.flow import FlowMatching
from dcae_bench.diffusion.learned_range import LearnedRange, bin_log_likelihood
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.vp import VariancePreserving

COUNT = 60_000
# Directions in which a prediction could be wrong, as functions of latent and time (both about 1 in size).
DIRECTIONS = {
    "constant": lambda x, t: torch.ones_like(x),
    "scale": lambda x, t: x,
    "wave": lambda x, t: torch.sin(3 * x),
    "late": lambda x, t: t * x.flip(1),
    "early": lambda x, t: (1 - t) * x.square(),
}


def make(name, mixture, exact):
    process = build_process(name)
    model = exact[name](mixture, process.steps) if name == "learned-range" else exact[name](mixture)
    return process, model


def slope(process, model, mixture, direction, *, part=0, off=0.0):
    """Derivative of the mean loss where a direction is added to the exact prediction, in standard errors from zero.

    ``part`` is the prediction that is changed (0 noise or velocity, 1 variance); ``off`` spoils the exact model.
    """
    generator = torch.Generator().manual_seed(0)
    x0 = mixture.draw(COUNT, generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand(COUNT, generator=generator, dtype=torch.float64)
    # The variance matters in the early steps; step 0 has a likelihood of bins, which another one fits best.
    t = process.times(uniform**4).clamp(min=1) if part else process.times(uniform)
    amount = torch.zeros(COUNT, 1, 1, 1, dtype=torch.float64, requires_grad=True)

    def changed(x, t, y):
        with torch.no_grad():
            parts = list(model(x, t).chunk(2, dim=1)) if process.name == "learned-range" else [model(x, t)]
            share = (t.double() / (1 if process.name == "flow" else 1000)).reshape(-1, 1, 1, 1)
            step = DIRECTIONS[direction](x.double(), share)
        parts[part] = parts[part] + off + amount * step
        return torch.cat(parts, dim=1)

    process.loss(changed, x0, t, noise).sum().backward()
    each = amount.grad.flatten()
    return (each.mean() / (each.std() / math.sqrt(COUNT))).item()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["vp", "learned-range", "flow"])
def test_the_exact_prediction_is_the_best(name, direction, mixture, exact):
    process, model = make(name, mixture, exact)
    assert abs(slope(process, model, mixture, direction)) < 4


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_exact_variance_is_the_best(direction, mixture, exact):
    process, model = make("learned-range", mixture, exact)
    assert abs(slope(process, model, mixture, direction, part=1)) < 4


@pytest.mark.parametrize(("name", "part"), [("vp", 0), ("learned-range", 0), ("learned-range", 1), ("flow", 0)])
def test_a_spoilt_prediction_is_not(name, part, mixture, exact):
    process, model = make(name, mixture, exact)
    assert slope(process, model, mixture, "constant", part=part, off=0.1) > 8
    assert slope(process, model, mixture, "constant", part=part, off=-0.1) < -8


def test_constants_of_the_vp_schedule():
    process = VariancePreserving()
    assert process.alphas_bar[[0, 1, 500, 1000]] == pytest.approx([1, 0.99915, 0.277670, 0.00466010], rel=1e-5)
    for time, wanted in [(0.001, 3.53470), (0.5, -0.478026), (1, -2.682024)]:
        alpha, sigma = process.alpha_sigma(time)
        assert math.log(alpha / sigma) == pytest.approx(wanted, abs=2e-5)
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-12)
    between = [process.alpha_sigma(time)[0] for time in (0.5, 0.5004, 0.501)]
    assert np.log(between[1]) == pytest.approx(0.6 * np.log(between[0]) + 0.4 * np.log(between[2]), rel=1e-10)


def test_constants_of_the_learned_range_schedule():
    process = LearnedRange()
    assert process.alphas_bar[[0, 499, 999]] == pytest.approx([0.9999, 0.0785872, 4.0358e-5], rel=1e-5)
    spaced = process.spaced(250)
    assert len(spaced) == 250
    assert spaced.times[:4].tolist() == [0, 4, 8, 12] and spaced.times[-3:].tolist() == [991, 995, 999]


@pytest.mark.parametrize(
    ("name", "first", "last"), [("vp", 1, 1000), ("learned-range", 0, 999), ("flow", 0.0, 1 - 1e-9)]
)
def test_times_cover_the_process_evenly(name, first, last):
    process = build_process(name)
    uniform = torch.linspace(0, 1 - 1e-9, 10_001, dtype=torch.float64)
    times = process.times(uniform)
    assert (times[0].item(), times[-1].item()) == (first, pytest.approx(last, abs=1e-6))
    if name != "flow":
        # The first of the grid falls on a boundary of every step, the last is left out.
        counts = times.bincount()[first:]
        assert times.dtype == torch.int64 and len(counts) == 1000 and set(counts.tolist()) <= {9, 10, 11}


def test_losses_of_known_predictions():
    x0, noise = torch.full((2, 3, 1, 1), 2.0), torch.full((2, 3, 1, 1), -1.0)
    y = torch.tensor([4, 5])
    seen = []

    def nothing(x, t, labels):
        seen.append((x, t, labels))
        return torch.zeros_like(x)

    assert VariancePreserving().loss(nothing, x0, torch.tensor([1000, 1]), noise, y).tolist() == [1, 1]
    x, t, labels = seen.pop()
    assert x[:, 0, 0, 0].tolist() == pytest.approx(
        [2 * 0.0046601**0.5 - (1 - 0.0046601) ** 0.5, 2 * 0.99915**0.5 - 0.00085**0.5], abs=1e-5
    )
    assert t.tolist() == [1000, 1] and labels is y
    assert FlowMatching().loss(nothing, x0, torch.tensor([0.25, 1.0]), noise, y).tolist() == [9, 9]
    assert seen.pop()[0][:, 0, 0, 0].tolist() == [2 * 0.25 - 0.75, 2]


def test_the_bound_is_the_divergence_of_gaussians():
    """By torch's own divergence, with the posterior from Bayes' rule on x_{t-1} and x_t."""
    process = LearnedRange()
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([1, 2, 100, 999])
    x0, noise, output = (torch.randn(4, size, 2, 2, generator=generator).double() for size in (3, 3, 6))
    x = process.steps.noised(x0, t, noise)
    now, before = (torch.from_numpy(process.alphas_bar)[index].reshape(-1, 1, 1, 1) for index in (t, t - 1))
    alpha = now / before
    precision = 1 / (1 - before) + alpha / (1 - alpha)
    mean = (before.sqrt() * x0 / (1 - before) + alpha.sqrt() * x / (1 - alpha)) / precision
    eps, place = output.chunk(2, dim=1)
    guess = (x - (1 - now).sqrt() * eps) / now.sqrt()
    guessed_mean = (before.sqrt() * guess / (1 - before) + alpha.sqrt() * x / (1 - alpha)) / precision
    deviation = ((1 - alpha) ** (0.5 + place / 2) / precision ** (0.5 - place / 2)).sqrt()
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, precision**-0.5), torch.distributions.Normal(guessed_mean, deviation)
    )
    found = process.bound(output, x0, x, t)
    torch.testing.assert_close(found, wanted.flatten(1).mean(1) / math.log(2), rtol=1e-6, atol=1e-9)


def test_likelihood_of_bins():
    mean, log_variance = torch.tensor(0.13).double(), torch.tensor(math.log(0.04)).double()
    centres = torch.linspace(-1, 1, 256, dtype=torch.float64)
    found = bin_log_likelihood(centres, mean, log_variance).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-9)
    edges = norm.cdf((centres.numpy()[:, None] + [[-1 / 255, 1 / 255]] - 0.13) / 0.2)
    edges[0, 0], edges[-1, 1] = 0, 1
    assert found.numpy() == pytest.approx(edges[:, 1] - edges[:, 0], abs=3e-5)


@pytest.mark.parametrize("name", ["vp", "learned-range"])
def test_training_follows_a_use_without_gradients(name):
    """As previews do, which sample in inference mode between steps of training."""
    process = build_process(name)
    x0, noise = torch.randn(2, 3, 2, 1, 1).unbind()
    weight = torch.ones(1, requires_grad=True)

    def model(x, t, y):
        return weight * (torch.cat([x, x], dim=1) if name == "learned-range" else x)

    with torch.inference_mode():
        process.loss(model, x0, torch.tensor([1, 2, 3]), noise)
    process.loss(model, x0, torch.tensor([1, 2, 3]), noise).sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.any()


def test_the_bound_teaches_the_variance_alone():
    process = LearnedRange()
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 2, 3, 3, generator=generator).unbind()
    t = torch.tensor([0, 1, 10, 500, 999])
    output = torch.randn(5, 4, 3, 3, generator=generator).requires_grad_()
    process.loss(lambda x, t, y: output, x0, t, noise).sum().backward()
    torch.testing.assert_close(output.grad[:, :2], 2 * (output[:, :2] - noise).detach() / noise[0].numel())
    assert output.grad[:, 2:].flatten(1).abs().sum(1).min() > 0
