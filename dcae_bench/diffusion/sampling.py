"""Sampling: latents from noise, by a denoiser, a sampler and a guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from dcae_bench.base.errors import ConfigError, WeightsError
from dcae_bench.diffusion.ancestral import sample_ancestral
from dcae_bench.diffusion.dopri5 import solve_each, solve_together
from dcae_bench.diffusion.dpm_solver import dpm_solver
from dcae_bench.diffusion.flow import FlowMatching
from dcae_bench.diffusion.guidance import GuidedDenoiser
from dcae_bench.diffusion.learned_range import LearnedRange
from dcae_bench.diffusion.noise import Noise
from dcae_bench.diffusion.process import Process
from dcae_bench.diffusion.vp import VariancePreserving
from dcae_bench.models.denoiser import Denoiser
from dcae_bench.specs.diffusion import AncestralSpec, Dopri5Spec, DPMSolverSpec, GuidanceSpec, SamplerSpec

UNGUIDED = GuidanceSpec(s=1)


@torch.inference_mode()
def sample(
    model: Denoiser,
    process: Process,
    sampler: SamplerSpec,
    noise: Noise,
    labels: Tensor | None = None,
    guidance: GuidanceSpec = UNGUIDED,
) -> Tensor:
    """Sample latents (n, c, h, w) in float32. The latents keep the scale of the model's training latents.

    ``noise`` draws the starting point, and thereby sets n. ``labels`` (n,) are on the device of the noise. The caller
    chooses the precision (autocast). Raises :class:`ConfigError` for a sampler of another process or a guidance on an
    unconditional model, :class:`DataError` for labels that do not fit, and :class:`WeightsError` for samples that are
    not finite.
    """
    draw = _sampling(process, sampler)
    x = draw(GuidedDenoiser(model, labels, guidance), noise)
    if bad := int((~x.isfinite().flatten(1).all(dim=1)).sum()):
        raise WeightsError(
            f"{bad} of {len(x)} samples are not finite: the weights diverged, or overflow the precision they are "
            "computed in; use other weights, or bf16 or fp32"
        )
    return x


def _sampling(process: Process, sampler: SamplerSpec) -> Callable[[GuidedDenoiser, Noise], Tensor]:
    """Return the function that samples ``process`` as ``sampler`` says. Raises :class:`ConfigError` if they differ."""
    if isinstance(process, VariancePreserving) and isinstance(sampler, DPMSolverSpec):
        return lambda predict, noise: dpm_solver(predict, noise(), process, sampler.nfe)
    if isinstance(process, LearnedRange) and isinstance(sampler, AncestralSpec):
        return lambda predict, noise: sample_ancestral(predict, noise, process, sampler.steps)
    if isinstance(process, FlowMatching) and isinstance(sampler, Dopri5Spec):
        solve = solve_each if sampler.step_control == "sample" else solve_together
        return lambda predict, noise: solve(predict, noise(), atol=sampler.atol, rtol=sampler.rtol)
    raise ConfigError(
        f"sampler {sampler.name}: it samples process '{sampler.process}', but the denoiser was trained on "
        f"'{process.name}'; choose that process's sampler"
    )
