"""A case's denoiser with random weights, its diffusion process and sampler, and latents that stand ready for it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dcae_bench.diffusion.processes import build_process
from dcae_bench.diffusion_specs import ProcessName, SamplerSpec, paper_sampler
from dcae_bench.measurement.cases import CLASSES, Case
from dcae_bench.measurement.job import BUFFERS, Inputs, Job
from dcae_bench.models.zoo import build_denoiser


def process_of(case: Case) -> ProcessName:
    """The diffusion process that the paper trains a denoiser on."""
    return "vp" if case.spec.family == "uvit" else "learned-range"


def sampler_of(case: Case) -> tuple[SamplerSpec, int]:
    """The paper's sampler for a denoiser, and its number of function evaluations (each two passes under guidance)."""
    sampler = paper_sampler(process_of(case))
    return sampler, sampler.nfe if sampler.name == "dpm-solver" else sampler.steps


def network(case: Case, device: torch.device, seed: int) -> nn.Module:
    """The case's denoiser with weights under which nothing is zero: DiT's own start predicts zero for all inputs."""
    model = build_denoiser(case.spec, seed=seed).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=generator)
    return model


def train_inputs(job: Job) -> list[Inputs]:
    """Latents (n, c, h, w), times (n,), noise (n, c, h, w) and labels (n,), in rotation."""
    process, device = build_process(process_of(job.case)), job.device
    return [
        (
            x,
            process.times(torch.rand(job.batch, generator=generator, device=device)),
            torch.randn(x.shape, generator=generator, device=device),
            y,
        )
        for x, y, generator in _latents(job)
    ]


def forward_inputs(job: Job) -> list[Inputs]:
    """Latents (n, c, h, w), times (n,) and labels (n,), in rotation."""
    weights = job.dtype if "autocast" not in job.precision else torch.float32
    return [
        (x.to(weights), 1000 * torch.rand(job.batch, generator=generator, device=job.device), y)
        for x, y, generator in _latents(job)
    ]


def _latents(job: Job) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    space = job.case.space
    for number in range(BUFFERS):
        generator = torch.Generator(job.device).manual_seed(job.seed + number)
        shape = (job.batch, space.channels, space.side, space.side)
        x = torch.randn(shape, generator=generator, device=job.device)
        yield x, torch.randint(0, CLASSES, (job.batch,), generator=generator, device=job.device), generator
