"""Specs of diffusion: the process that a denoiser is trained on, its sampler and its guidance."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dcae_bench.base.typed import Strict

ProcessName = Literal["vp", "learned-range", "flow"]
"""Diffusion processes.

``vp``: UViT's discrete variance-preserving process; the network predicts the noise.
``learned-range``: DiT's process; the network predicts noise and variance, trained by the hybrid loss.
``flow``: USiT's linear path; the network predicts the velocity.
"""

ONE_CONVENTION = "guidance is given either as 's' or as 'w' (s = 1 + w)"


class GuidanceSpec(Strict):
    """Scale of classifier-free guidance on all channels, in one of two conventions.

    The guided prediction is unconditional + s (conditional - unconditional) = conditional + w (conditional -
    unconditional), so s = 1 + w. DiT and the paper print s; U-ViT prints w (its 0.7 is s = 1.7).
    """

    s: float | None = Field(default=None, ge=0, description="the paper's cfg scale; 1: no guidance")
    w: float | None = Field(default=None, ge=-1, description="U-ViT's scale; 0: no guidance")

    @model_validator(mode="after")
    def _one_convention(self) -> Self:
        if (self.s is None) == (self.w is None):
            raise ValueError(ONE_CONVENTION)
        return self

    @property
    def scale(self) -> float:
        """The scale in convention s."""
        if self.s is not None:
            return self.s
        if self.w is not None:
            return 1 + self.w
        raise ValueError(ONE_CONVENTION)

    @property
    def plain(self) -> bool:
        """Whether there is no guidance: the conditional prediction is used alone."""
        return self.scale == 1


class DPMSolverSpec(Strict):
    """DPM-Solver++, single-step, third order, on uniform times (the paper's sampler for UViT)."""

    name: Literal["dpm-solver"] = "dpm-solver"
    nfe: PositiveInt = Field(default=30, ge=3, description="number of function evaluations")

    @property
    def process(self) -> ProcessName:
        """Diffusion process that the sampler reverses."""
        return "vp"


class AncestralSpec(Strict):
    """Ancestral DDPM sampling with learned variance, on evenly spaced steps (the paper's sampler for DiT)."""

    name: Literal["ddpm"] = "ddpm"
    steps: PositiveInt = Field(default=250, ge=2, le=1000, description="steps, chosen from the 1000 of training")

    @property
    def process(self) -> ProcessName:
        """Diffusion process that the sampler reverses."""
        return "learned-range"


class Dopri5Spec(Strict):
    """Dormand and Prince's adaptive fifth-order solver (the paper's sampler for USiT)."""

    name: Literal["dopri5"] = "dopri5"
    atol: PositiveFloat = 1e-6
    rtol: PositiveFloat = 1e-3
    step_control: Literal["sample", "batch"] = Field(
        default="sample",
        description="sample: each sample has its own step sizes; batch: one step size for all, from their mean error, "
        "as the authors do, so that a sample depends on the others in its batch",
    )

    @property
    def process(self) -> ProcessName:
        """Diffusion process that the sampler reverses."""
        return "flow"


SamplerSpec = Annotated[DPMSolverSpec | AncestralSpec | Dopri5Spec, Field(discriminator="name")]


def paper_sampler(process: ProcessName) -> SamplerSpec:
    """Sampler that the paper uses for a process."""
    samplers: dict[ProcessName, SamplerSpec] = {
        "vp": DPMSolverSpec(),
        "learned-range": AncestralSpec(),
        "flow": Dopri5Spec(),
    }
    return samplers[process]
