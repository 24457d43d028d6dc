"""The case: one kind of work of one network on one latent space; and the batch sizes of the authors' code."""

import re
from typing import Self

from pydantic import Field, model_validator

from dcae_bench.base.errors import MeasurementError
from dcae_bench.base.typed import Strict
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.measurement.record import Work
from dcae_bench.measurement.workloads import stand_ins
from dcae_bench.measurement.workloads.paper_phases import PHASE_WORK, paper_phase, paper_training
from dcae_bench.specs.autoencoders import AutoencoderSpec
from dcae_bench.specs.denoisers import DenoiserSpec, LatentSpace

CLASSES = 1000
DENOISER_WORK: tuple[Work, ...] = ("train", "forward", "sample", "sample_decode")
AUTOENCODER_WORK: tuple[Work, ...] = ("encode", "decode", *PHASE_WORK)
RESOLUTION = 512
"""Default image side in px, as in the paper's table of speeds. A training phase has its own default."""

# Batch sizes by tokens per side, from the authors' later measuring code (DC-Gen, c2icore/diffusioncore/efficiency).
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


def _autoencoder(name: str) -> AutoencoderSpec:
    """Spec of a stand-in, or of an autoencoder in the catalogue. Raises :class:`ConfigError`."""
    return stand_ins.AUTOENCODERS.get(name) or catalogue().spec(name)


class Latent(Strict):
    """A latent space as the paper names it: an autoencoder and a patch size."""

    autoencoder: str = Field(description="name in the catalogue, e.g. dc-ae-f64c128")
    patch: int = Field(ge=1, description="latent cells per side of a token")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read e.g. ``dc-ae-f64c128-p1``. Raises :class:`MeasurementError` and :class:`ConfigError`."""
        found = re.fullmatch(r"(.+)-p([1-9]\d*)", text)
        if not found:
            raise MeasurementError(f"latent space '{text}': has no patch size; write e.g. dc-ae-f64c128-p1")
        _autoencoder(found[1])
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
"""The latent space that the paper's speed-ups are relative to."""
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


class Case(Strict):
    """One kind of work of a denoiser on a latent space, or of an autoencoder alone."""

    denoiser: str | None = Field(description="name in the catalogue, e.g. uvit-h; null: the autoencoder alone is timed")
    latent: Latent = Field(description="autoencoder and patch size; the patch is unused without a denoiser")
    resolution: int = Field(gt=0, description="side of the image in pixels")
    work: Work

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.work in DENOISER_WORK) != (self.denoiser is not None):
            raise ValueError(f"work '{self.work}' is {'a denoiser' if self.denoiser is None else 'an autoencoder'}'s")
        return self

    @property
    def name(self) -> str:
        """Short name, unique within a session."""
        subject = self.latent.slug if self.denoiser else self.latent.autoencoder
        return ".".join(filter(None, (self.denoiser, subject, f"{self.resolution}px", self.work)))

    @property
    def recipe(self) -> dict[str, object]:
        """Everything that shapes what is timed, with the specs that catalogue and profile give to the names."""
        phase = paper_phase(self.work).model_dump(mode="json") if self.work in PHASE_WORK else None
        loss = paper_training().loss.model_dump(mode="json") if self.work in PHASE_WORK else None
        return {
            "case": self.name,
            "autoencoder": self.autoencoder.model_dump(mode="json"),
            "denoiser": self.spec.model_dump(mode="json") if self.denoiser else None,
            "phase": phase,
            "loss": loss,
        }

    @property
    def trains(self) -> bool:
        """Whether one iteration is a training step."""
        return self.work == "train" or self.work in PHASE_WORK

    @property
    def autoencoder(self) -> AutoencoderSpec:
        """Spec of the case's autoencoder. Raises :class:`ConfigError`."""
        return _autoencoder(self.latent.autoencoder)

    @property
    def space(self) -> LatentSpace:
        """Shape of one image's latent. Raises :class:`MeasurementError` if f and patch do not divide the resolution."""
        try:
            return LatentSpace.of(self.autoencoder, self.resolution, self.latent.patch)
        except ValueError as error:
            reason = str(error).splitlines()
            raise MeasurementError(f"{self.latent.slug} at {self.resolution} px: {reason[-1].strip()}") from error

    @property
    def spec(self) -> DenoiserSpec:
        """Spec of the case's denoiser. Raises :class:`MeasurementError` and :class:`ConfigError`."""
        name = self.denoiser or ""
        return (stand_ins.DENOISERS.get(name) or denoiser_catalogue().architecture(name)).on(self.space, CLASSES)


def usual_resolution(work: Work) -> int:
    """Image side in px for work that names no resolution."""
    return paper_phase(work).resolution if work in PHASE_WORK else RESOLUTION


def authors_batch(case: Case) -> tuple[int, str]:
    """Batch size that the authors' measuring code uses for the case's denoiser, and the explanation of this number.

    If the authors list no batch for the case's number of tokens, the nearest entry is scaled to as many tokens a batch,
    and never above the authors' largest batch. Inference of a denoiser that they only train takes the batches of
    training. The explanation says both. Raises :class:`MeasurementError` for a denoiser that the authors do not list.
    """
    name, said = case.denoiser or "", "the authors' map"
    known = (TRAIN_BATCHES if case.work == "train" else INFERENCE_BATCHES).get(name)
    if not known:
        known, said = TRAIN_BATCHES.get(name), "the authors' map of training"
    if not known:
        raise MeasurementError(f"{case.name}: the authors' code has no batch for it; name one with --batch")
    grid = case.space.grid
    if grid in known:
        return known[grid], said
    nearest = min(known, key=lambda side: abs(side - grid))
    batch = min(known[nearest] * nearest**2 // grid**2, max(known.values()))
    return max(batch, 1), f"{said} at {nearest**2} tokens, with as many tokens a batch"


def equal_tokens_batch(case: Case, tokens: int = 1024) -> int:
    """Batch size that gives ``tokens`` tokens, at least 1: every latent space then multiplies equal matrices."""
    return max(1, tokens // case.space.tokens) if case.denoiser else 1
