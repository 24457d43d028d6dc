"""Sampling as a whole: the distribution that comes out, guidance, batches and wrong requests."""

import math

import pytest
import torch

from dcae_bench.base.errors import ConfigError, DataError, WeightsError
from dcae_bench.diffusion.guidance import GuidedDenoiser
from dcae_bench.diffusion.noise import SampleNoise
from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion.sampling import sample
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.denoisers import DiTSpec, LatentSpace, UViTSpec
from dcae_bench.specs.diffusion import AncestralSpec, Dopri5Spec, DPMSolverSpec, GuidanceSpec, paper_sampler

COUNT = 3000
SIZE = {"latent": LatentSpace(channels=3, side=4), "width": 16, "depth": 2, "heads": 2}
# How far a sampler's own error may move means and deviations (in latent units) and the log likelihood (in nats). The
# noise left at DPM-Solver's last time and its coarse last steps are the largest; 120 evaluations leave the former.
ALLOWED = {
    "dpm-solver": (DPMSolverSpec(), 0.04, 0.25),
    "dpm-solver at 120": (DPMSolverSpec(nfe=120), 0.02, 0.08),
    "ddpm": (AncestralSpec(), 0.02, 0.08),
    "dopri5": (Dopri5Spec(), 0.01, 0.02),
    "dopri5 together": (Dopri5Spec(step_control="batch"), 0.01, 0.02),
}


@pytest.fixture
def toy(mixture, exact, as_denoiser):
    """Sample the mixture with the exact model of a sampler's process."""

    def run(sampler, *, labels=None, guidance=None, count=COUNT):
        process = build_process(sampler.process)
        if sampler.process == "learned-range":
            function = exact["learned-range"](mixture, process.spaced(sampler.steps))
        else:
            function = exact[sampler.process](mixture)
        model = as_denoiser(function, None if labels is None else mixture.classes)
        generator = torch.Generator().manual_seed(2)
        arguments = {} if guidance is None else {"guidance": guidance}
        found = sample(
            model, process, sampler, lambda: torch.randn(count, 2, 1, 1, generator=generator), labels, **arguments
        )
        assert found.dtype == torch.float32 and found.shape == (count, 2, 1, 1)
        return found.double()

    return run


@pytest.mark.parametrize("name", ALLOWED)
def test_samples_are_distributed_as_the_data(name, toy, mixture):
    sampler, length, nats = ALLOWED[name]
    x = toy(sampler)
    truth = mixture.draw(200_000, torch.Generator().manual_seed(1))
    likelihood, wanted = mixture.log_density(x), mixture.log_density(truth)
    assert abs(likelihood.mean() - wanted.mean()) < nats + 4 * wanted.std() / math.sqrt(COUNT)
    nearest = (x[:, None, :, 0, 0] - mixture.means).norm(dim=-1).argmin(1)
    for number in range(mixture.classes):
        one = x[nearest == number][:, :, 0, 0]
        share = len(one) / COUNT
        assert abs(share - 1 / 3) < 4 * math.sqrt(2 / 9 / COUNT) + 0.01
        scatter = 4 * mixture.deviations[number] / math.sqrt(len(one))
        assert (one.mean(0) - mixture.means[number]).abs().max() < length + scatter
        assert (one.std(0) - mixture.deviations[number]).abs().max() < length + scatter


@pytest.mark.parametrize("name", ["dpm-solver", "ddpm", "dopri5"])
def test_labels_choose_the_class(name, toy, mixture):
    labels = torch.arange(600) % 3
    x = toy(ALLOWED[name][0], labels=labels, count=600)[:, :, 0, 0]
    for number in range(3):
        assert (x[labels == number].mean(0) - mixture.means[number]).abs().max() < 0.12


@pytest.mark.parametrize("name", ["dpm-solver", "dopri5"])
def test_guidance_moves_samples_from_the_other_classes(name, toy, mixture):
    labels = torch.zeros(400, dtype=torch.int64)
    plain, guided, same = (
        toy(ALLOWED[name][0], labels=labels, guidance=guidance, count=400)
        for guidance in (GuidanceSpec(s=1), GuidanceSpec(s=3), GuidanceSpec(w=2))
    )
    away = mixture.means[0] / mixture.means[0].norm()
    assert ((guided - plain)[:, :, 0, 0] @ away).mean() > 0.05
    assert same.equal(guided)


def nano(family, **changes):
    fields = {"family": family, "classes": 10, **SIZE, **changes}
    return (UViTSpec if family == "uvit" else DiTSpec)(**fields)


@pytest.fixture
def network():
    """A denoiser with weights that say something, DiT's zeros replaced."""

    def make(family, **changes):
        model = build_denoiser(nano(family, **changes), seed=0).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return model

    return make


@pytest.mark.parametrize(
    ("family", "sampler"),
    [
        ("uvit", DPMSolverSpec(nfe=6)),
        ("dit", AncestralSpec(steps=12)),
        ("uvit", Dopri5Spec()),
    ],
)
def test_samples_of_networks_do_not_depend_on_the_batch(family, sampler, network):
    model, process = network(family), build_process(sampler.process)
    labels = torch.tensor([3, 0, 9, 9, 1, 4])

    def run(indices):
        noise = SampleNoise(4, indices, (3, 4, 4))
        return sample(model, process, sampler, noise, labels[list(indices)], GuidanceSpec(s=1.5))

    together = run(range(6))
    apart = torch.cat([run(range(2)), run([2]), run([3, 4, 5])])
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-4 * together.abs().max().item())
    assert (together[2] - together[3]).abs().max() > 0.1, "equal labels are different samples"


@torch.no_grad()
def test_guidance_is_on_all_channels_but_the_variance(network):
    model = network("dit")
    x, t, y = torch.randn(4, 3, 4, 4), torch.full((4,), 500.0), torch.tensor([0, 1, 2, 3])
    conditional, unconditional = model(x, t, y), model(x, t, torch.full_like(y, 10))
    found = GuidedDenoiser(model, y, GuidanceSpec(s=2.5))(x, t)
    wanted = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(found[:, :3], wanted[:, :3], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 3:], conditional[:, 3:], rtol=0, atol=1e-5)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(GuidedDenoiser(model, y, GuidanceSpec(s=2.5))(x[rows], t[rows], rows), found[rows])


def test_scale_one_takes_one_pass(network):
    model, sizes = network("uvit"), []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    x, t, y = torch.randn(2, 3, 4, 4), torch.full((2,), 500.0), torch.tensor([0, 1])
    for guidance in (GuidanceSpec(s=1), GuidanceSpec(w=0), GuidanceSpec(s=0), GuidanceSpec(w=0.5)):
        GuidedDenoiser(model, y, guidance)(x, t)
    assert sizes == [2, 2, 4, 4]


def test_conventions_of_the_scale():
    assert GuidanceSpec(w=0.7).scale == pytest.approx(1.7) and GuidanceSpec(s=1.5).scale == 1.5
    for fields in ({}, {"s": 1.5, "w": 0.5}, {"s": -1}, {"s": math.inf}, {"scale": 1.5}):
        with pytest.raises(ValueError):
            GuidanceSpec(**fields)


@pytest.mark.parametrize(
    ("changes", "labels", "guidance", "process", "error", "words"),
    [
        ({"classes": None}, None, 1.5, "vp", ConfigError, "guidance s = 1.5: the model is unconditional"),
        ({"classes": None}, [1, 2], 1, "vp", DataError, "labels are given, but the model is unconditional"),
        ({}, None, 1, "vp", DataError, "labels are missing, but the model has 10 classes"),
        ({}, [3, 10], 1, "vp", DataError, "label 10: the model has classes 0 to 9"),
        ({}, [-1, 3], 1, "vp", DataError, "label -1: the model has classes 0 to 9"),
        ({}, [1, 2], 1, "flow", ConfigError, "sampler dpm-solver: it samples process 'vp'"),
    ],
)
def test_requests_that_do_not_fit(changes, labels, guidance, process, error, words, network):
    labels = None if labels is None else torch.tensor(labels)
    noise = SampleNoise(0, range(2), (3, 4, 4))
    with pytest.raises(error, match=words) as caught:
        sample(
            network("uvit", **changes),
            build_process(process),
            DPMSolverSpec(nfe=3),
            noise,
            labels,
            GuidanceSpec(s=guidance),
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dpm-solver", "ddpm", "dopri5", "dopri5 together"])
def test_samples_that_are_not_finite(name, as_denoiser):
    sampler = ALLOWED[name][0]

    def broken(x, t, y):
        out = torch.where(torch.arange(len(x)) == 1, torch.nan, 0.0).reshape(-1, 1, 1, 1).expand_as(x)
        return torch.cat([out, out], dim=1) if sampler.process == "learned-range" else out

    noise = SampleNoise(0, range(3), (2, 1, 1))
    with pytest.raises(WeightsError, match="samples are not finite"):
        sample(as_denoiser(broken, None), build_process(sampler.process), sampler, noise)


def test_the_papers_samplers():
    assert [paper_sampler(name) for name in ("vp", "learned-range", "flow")] == [
        DPMSolverSpec(nfe=30),
        AncestralSpec(steps=250),
        Dopri5Spec(atol=1e-6, rtol=1e-3),
    ]
    assert all(paper_sampler(name).process == name for name in ("vp", "learned-range", "flow"))
