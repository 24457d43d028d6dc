"""Specs of diffusion: which process a denoiser was trained on, how it is sampled, and how strongly it is guided."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

ProcessName = Literal["vp", "learned-range", "flow"]
"""``vp``: UViT's discrete variance-preserving process, noise predicted; ``learned-range``: DiT's, with learned
variance and hybrid loss; ``flow``: USiT's linear path, velocity predicted."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GuidanceSpec(_Spec):
    """Classifier-free guidance on all channels, in one of the two conventions in use.

    The prediction is unconditional + s (conditional - unconditional) = conditional + w (conditional - unconditional),
    so that s = 1 + w. DiT and the paper print s, U-ViT prints w (its 0.7 is s = 1.7).
    """

    s: float | None = Field(default=None, ge=0, description="1 is the plain conditional model; the paper's cfg scale")
    w: float | None = Field(default=None, ge=-1, description="0 is the plain conditional model; U-ViT's scale")

    @model_validator(mode="after")
    def _one_convention(self) -> Self:
        if (self.s is None) == (self.w is None):
            raise ValueError("guidance is given either as 's' or as 'w' (s = 1 + w)")
        return self

    @property
    def scale(self) -> float:
        """The scale in the convention s."""
        return self.s if self.s is not None else 1 + self.w

    @property
    def plain(self) -> bool:
        """Whether the conditional model is used alone."""
        return self.scale == 1


class DPMSolverSpec(_Spec):
    """DPM-Solver++, single-step, third order, uniform times (the paper's sampler for UViT)."""

    name: Literal["dpm-solver"] = "dpm-solver"
    nfe: PositiveInt = Field(default=30, ge=3, description="number of function evaluations")

    @property
    def process(self) -> ProcessName:
        """The process it samples."""
        return "vp"


class AncestralSpec(_Spec):
    """Ancestral DDPM sampling with learned variance, on evenly chosen steps (the paper's sampler for DiT)."""

    name: Literal["ddpm"] = "ddpm"
    steps: PositiveInt = Field(default=250, ge=2, le=1000, description="of the 1000 training steps")

    @property
    def process(self) -> ProcessName:
        """The process it samples."""
        return "learned-range"


class Dopri5Spec(_Spec):
    """Dormand and Prince's adaptive fifth-order solver (the paper's sampler for USiT)."""

    name: Literal["dopri5"] = "dopri5"
    atol: PositiveFloat = 1e-6
    rtol: PositiveFloat = 1e-3
    step_control: Literal["sample", "batch"] = Field(
        default="sample",
        description="sample: steps of its own for every sample; batch: one for all, by their mean error, as the "
        "authors do, so that a sample depends on those beside it",
    )

    @property
    def process(self) -> ProcessName:
        """The process it samples."""
        return "flow"


SamplerSpec = Annotated[DPMSolverSpec | AncestralSpec | Dopri5Spec, Field(discriminator="name")]


def paper_sampler(process: ProcessName) -> SamplerSpec:
    """Return the sampler that the paper uses for a process."""
    return {"vp": DPMSolverSpec(), "learned-range": AncestralSpec(), "flow": Dopri5Spec()}[process]
