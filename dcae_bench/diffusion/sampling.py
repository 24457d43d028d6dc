"""From noise to latents: a denoiser, a sampler and a guidance put together."""

import torch
from torch import Tensor

from dcae_bench.diffusion.ancestral import ancestral
from dcae_bench.diffusion.dopri5 import solve_each, solve_together
from dcae_bench.diffusion.dpm_solver import dpm_solver
from dcae_bench.diffusion.guidance import Guided
from dcae_bench.diffusion.noise import Noise
from dcae_bench.diffusion.process import Process
from dcae_bench.diffusion_specs import AncestralSpec, DPMSolverSpec, GuidanceSpec, SamplerSpec
from dcae_bench.errors import ConfigError, WeightsError
from dcae_bench.models.denoiser import Denoiser

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
    """Sample latents (n, c, h, w) in float32, as the model was trained on: still scaled.

    ``noise`` gives the start and says how many there are; labels (n,) are on its device. Precision is the caller's
    (autocast). Raises :class:`ConfigError` for a sampler of another process or a guidance on an unconditional model,
    :class:`DataError` for labels that do not fit, and :class:`WeightsError` for samples that are not finite.
    """
    if sampler.process != process.name:
        raise ConfigError(
            f"sampler {sampler.name}: it samples process '{sampler.process}', but the denoiser was trained on "
            f"'{process.name}'; choose that process's sampler"
        )
    predict = Guided(model, labels, guidance)
    if isinstance(sampler, DPMSolverSpec):
        x = dpm_solver(predict, noise(), process, sampler.nfe)
    elif isinstance(sampler, AncestralSpec):
        x = ancestral(predict, noise, process, sampler.steps)
    else:
        solve = solve_each if sampler.step_control == "sample" else solve_together
        x = solve(predict, noise(), atol=sampler.atol, rtol=sampler.rtol)
    if bad := int((~x.isfinite().flatten(1).all(dim=1)).sum()):
        raise WeightsError(
            f"{bad} of {len(x)} samples are not finite: the weights diverged, or overflow the precision they are "
            "computed in; use other weights, or bf16 or fp32"
        )
    return x
