"""What is timed: one piece of work of one network on one latent space, and the batches that the authors' code uses."""

import re
from typing import Self

from pydantic import Field, model_validator

from dcae_bench.denoiser_presets import denoiser_catalogue
from dcae_bench.denoiser_specs import DenoiserSpec, LatentSpace
from dcae_bench.errors import MeasurementError
from dcae_bench.measurement.paper_phases import PHASE_WORK, paper_phase
from dcae_bench.measurement.record import Work
from dcae_bench.measurement.statistics import Value
from dcae_bench.presets import catalogue
from dcae_bench.specs import AutoencoderSpec

CLASSES = 1000
DENOISER_WORK: tuple[Work, ...] = ("train", "forward", "sample", "sample_decode")
AUTOENCODER_WORK: tuple[Work, ...] = ("encode", "decode", *PHASE_WORK)
RESOLUTION = 512
"""Side of the images (px) where none is named, as in the paper's table of speeds; a phase has its own."""

# By tokens per side, as the authors' later measuring code has them (DC-Gen, c2icore/diffusioncore/efficiency).
TRAIN_BATCHES: dict[str, dict[int, int]] = {
    "uvit-s": {64: 256, 32: 1024, 16: 4096, 8: 16384},
    "uvit-h": {32: 256, 16: 1024, 8: 4096},
    "uvit-2b": {32: 128, 16: 512, 8: 2048},
    "dit-xl": {64: 64, 32: 256, 16: 1024, 8: 4096, 4: 8192},
    "dit-s": {64: 256, 32: 1024, 16: 4096},
}
INFERENCE_BATCHES: dict[str, dict[int, int]] = {
    "uvit-s": {32: 512, 16: 2048, 8: 8192},
    "uvit-h": {32: 128, 16: 512, 8: 2048},
    "uvit-2b": {32: 128, 16: 512, 8: 2048},
    "dit-xl": {64: 64, 32: 256, 16: 1024, 8: 4096, 4: 16384},
}


class Latent(Value):
    """A latent space as the paper names it: an autoencoder and a patch size."""

    autoencoder: str = Field(description="of the catalogue, e.g. dc-ae-f64c128")
    patch: int = Field(ge=1, description="latent cells per side of a token")

    @classmethod
    def parse(cls, text: str) -> Self:
        """``dc-ae-f64c128-p1`` to a latent space. Raises :class:`MeasurementError`, :class:`ConfigError`."""
        found = re.fullmatch(r"(.+)-p([1-9]\d*)", text)
        if not found:
            raise MeasurementError(f"latent space '{text}': has no patch size; write e.g. dc-ae-f64c128-p1")
        catalogue().spec(found[1])
        return cls(autoencoder=found[1], patch=int(found[2]))

    @property
    def slug(self) -> str:
        """Name in commands and files."""
        return f"{self.autoencoder}-p{self.patch}"

    @property
    def name(self) -> str:
        """Name in records and tables."""
        return f"{self.autoencoder} p{self.patch}"


BASELINE = Latent(autoencoder="sd-vae-f8c4", patch=2)
"""What the paper's speed-ups are relative to."""
LATENTS = tuple(
    map(
        Latent.parse,
        (
            *("sd-vae-f8c4-p2", "sd-vae-f8c4-p4", "ldm-f16c16-p2", "ldm-f32c64-p1", "flux-vae-f8c16-p2"),
            *("dc-ae-f32c32-p1", "dc-ae-f64c128-p1", "dc-ae-f128c512-p1"),
        ),
    )
)
"""Latent spaces of the full matrix."""
DENOISERS = ("uvit-s", "uvit-h", "uvit-2b", "dit-xl")


class Case(Value):
    """One workload: a denoiser on a latent space, or an autoencoder alone."""

    denoiser: str | None = Field(description="of the catalogue, e.g. uvit-h; null for an autoencoder's own work")
    latent: Latent = Field(description="for an autoencoder's work its patch is 1 and means nothing")
    resolution: int = Field(gt=0, description="side of the image in pixels")
    work: Work

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.work in DENOISER_WORK) != (self.denoiser is not None):
            raise ValueError(f"work '{self.work}' is {'a denoiser' if self.denoiser is None else 'an autoencoder'}'s")
        return self

    @property
    def name(self) -> str:
        """Short name, unique among the cases of one measurement."""
        subject = self.latent.slug if self.denoiser else self.latent.autoencoder
        return ".".join(filter(None, (self.denoiser, subject, f"{self.resolution}px", self.work)))

    @property
    def trains(self) -> bool:
        """Whether an iteration is a step of training."""
        return self.work == "train" or self.work in PHASE_WORK

    @property
    def autoencoder(self) -> AutoencoderSpec:
        """Spec of the autoencoder whose latents these are. Raises :class:`ConfigError`."""
        return catalogue().spec(self.latent.autoencoder)

    @property
    def space(self) -> LatentSpace:
        """Latents of this case's images. Raises :class:`MeasurementError` where side, f and patch do not fit."""
        try:
            return LatentSpace.of(self.autoencoder, self.resolution, self.latent.patch)
        except ValueError as error:
            reason = str(error).splitlines()
            raise MeasurementError(f"{self.latent.slug} at {self.resolution} px: {reason[-1].strip()}") from error

    @property
    def spec(self) -> DenoiserSpec:
        """The denoiser's spec. Raises :class:`MeasurementError`, :class:`ConfigError`."""
        return denoiser_catalogue().architecture(self.denoiser or "").on(self.space, CLASSES)


def usual_resolution(work: Work) -> int:
    """Side of the images (px) where none is named."""
    return paper_phase(work).resolution if work in PHASE_WORK else RESOLUTION


def authors_batch(case: Case) -> tuple[int, str]:
    """Batch of the authors' measuring code for a denoiser's case, and where it is from.

    Where their map has no entry, the next one is scaled so that a batch has as many tokens (more than their largest
    batch is never taken), and the source says so. Raises :class:`MeasurementError` for a denoiser without a map.
    """
    known = (TRAIN_BATCHES if case.work == "train" else INFERENCE_BATCHES).get(case.denoiser or "")
    if not known:
        raise MeasurementError(f"{case.name}: the authors' code has no batch for it; name one with --batch")
    grid = case.space.grid
    if grid in known:
        return known[grid], "the authors' map"
    nearest = min(known, key=lambda side: abs(side - grid))
    batch = min(known[nearest] * nearest**2 // grid**2, max(known.values()))
    return max(batch, 1), f"the authors' map at {nearest**2} tokens, with as many tokens a batch"


def equal_tokens_batch(case: Case, tokens: int = 1024) -> int:
    """Batch that has ``tokens`` tokens, at least one image: the same matrices for every latent space."""
    return max(1, tokens // case.space.tokens) if case.denoiser else 1
