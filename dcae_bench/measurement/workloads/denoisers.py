"""A case's denoiser with random weights, its diffusion process, its sampler and its inputs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dcae_bench.base.errors import MeasurementError
from dcae_bench.diffusion.processes import build_process
from dcae_bench.measurement.workloads.cases import CLASSES, Case
from dcae_bench.measurement.workloads.job import BUFFERS, Inputs, Job
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.models.zoo import build_denoiser
from dcae_bench.specs.diffusion import AncestralSpec, DPMSolverSpec, ProcessName, SamplerSpec, paper_sampler


def process_of(case: Case) -> ProcessName:
    """The diffusion process with which the paper trains the case's denoiser."""
    return "vp" if case.spec.family == "uvit" else "learned-range"


def sampler_of(case: Case) -> tuple[SamplerSpec, int]:
    """The paper's sampler for the case's denoiser, and its number of function evaluations (NFE).

    Under guidance each evaluation runs the denoiser on two images: conditional and unconditional. Raises
    :class:`MeasurementError` for a sampler with adaptive steps, whose NFE is not known before it runs.
    """
    sampler = paper_sampler(process_of(case))
    if isinstance(sampler, DPMSolverSpec):
        return sampler, sampler.nfe
    if isinstance(sampler, AncestralSpec):
        return sampler, sampler.steps
    raise MeasurementError(f"{case.name}: sampler {sampler.name} has no fixed number of steps; time --work forward")


def random_denoiser(case: Case, device: torch.device, seed: int) -> Denoiser:
    """The case's denoiser with random weights, of which none is zero.

    DiT initialises its output layer to zero and would predict zero for every input: GPUs multiply zeros faster, and
    the check of a faster mode would compare nothing. The weights are drawn on the device.
    """
    model = build_denoiser(case.spec, seed=seed, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=generator)
    return model


def train_inputs(job: Job) -> list[Inputs]:
    """Several batches of latents (n, c, h, w), times (n,), noise (n, c, h, w) and labels (n,)."""
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
    """Several batches of latents (n, c, h, w), times (n,) and labels (n,). Latents have the type of the weights."""
    weights = job.dtype if "autocast" not in job.precision else torch.float32
    return [
        (x.to(weights), 1000 * torch.rand(job.batch, generator=generator, device=job.device), y)
        for x, y, generator in _latents(job)
    ]


def _latents(job: Job) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """Batches of random latents and labels, each with the generator that drew them."""
    space = job.case.space
    for number in range(BUFFERS):
        generator = torch.Generator(job.device).manual_seed(job.seed + number)
        shape = (job.batch, space.channels, space.side, space.side)
        x = torch.randn(shape, generator=generator, device=job.device)
        yield x, torch.randint(0, CLASSES, (job.batch,), generator=generator, device=job.device), generator
