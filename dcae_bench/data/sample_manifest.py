"""Manifest of samples: what is in a folder of generated images and how they were drawn, read without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from dcae_bench.base.errors import DataError
from dcae_bench.base.files import sha256_json
from dcae_bench.base.sealed import read_sealed, write_sealed
from dcae_bench.base.typed import Strict
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import sampling_recipe
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.path import ComputePath
from dcae_bench.specs.diffusion import GuidanceSpec, SamplerSpec
from dcae_bench.specs.latent_scale import Factor, Numbers, Offset

SAMPLES, LABELS, MANIFEST = "samples.npy", "labels.npy", "samples.json"
"""Files of a folder of samples; the manifest is written last."""
SAMPLER = "dcae_bench.generation.sample"
"""Module that draws samples; its code is part of their recipe."""


class SampleManifest(Strict):
    """Description of samples, stored beside them as ``samples.json``."""

    version: Literal[1] = 1
    row: str = Field(description="name of the row in the profile")
    released: str | None = Field(
        default=None, description="catalogue name of the denoiser's released weights; null: trained by the profile"
    )
    denoiser_sha256: str
    autoencoder: str = Field(description="autoencoder behind the latents, as autoencoder@weights")
    autoencoder_sha256: str
    latents_sha256: str | None = Field(
        description="hash of the latents that the denoiser learned from; null for a released denoiser"
    )
    scaling_factor: Factor = Field(
        description="the denoiser works on (latent - shift) * scaling_factor; a list has a number for each channel"
    )
    shift: Offset
    crops_sha256: str | None = Field(
        description="hash of the images behind those latents, the reference set; null for a released denoiser"
    )
    data_sha256: str | None
    sampler: SamplerSpec
    nfe: int | None = Field(
        description="network evaluations per sample; guidance's doubled batch counts once; null: adaptive"
    )
    guidance_scale: float = Field(ge=0, description="guidance scale s; at 1 the conditional model is used alone")
    count: int
    shape: tuple[int, int, int] = Field(description="H, W, 3 of one image")
    classes: int | None
    seed: int
    seed_policy: Literal["sample", "paper_8gpu"]
    noise: str | None = Field(
        default=None,
        description="paper_8gpu: the device whose generators drew the noise, as kind: name; another device draws other "
        "numbers from the same seed; null: noise keyed by sample, equal on every device",
    )
    precision: Literal["fp32"] = "fp32"
    tf32: bool = False
    path: ComputePath | None = Field(
        default=None, description="how denoiser and decoder were computed; null: not stated"
    )
    seconds: float = Field(description="wall-clock seconds of sampling, summed over resumed runs")
    sha256: str = Field(description="hash of samples.npy")
    labels_sha256: str
    recipe_sha256: str = Field(description="hash of everything that shaped the samples, code included")


def samples_recipe_sha256(
    profile: Profile,
    row: str,
    guidance: float,
    *,
    denoiser_sha256: str,
    autoencoder_sha256: str,
    latents_sha256: str | None,
    scaling_factor: Numbers,
    shift: Numbers,
) -> str:
    """Hash of everything that shapes the samples that the profile asks of ``row`` now, code included.

    The hashes and the scale are those of the denoiser, of the autoencoder that decodes, and of the latents that the
    denoiser learned from (None for a released denoiser). Raises :class:`ConfigError` for an unknown row.
    """
    drawn_by = [denoiser_sha256, autoencoder_sha256, latents_sha256, scaling_factor, shift]
    return sha256_json([sampling_recipe(profile, row, GuidanceSpec(s=guidance)), *drawn_by, fingerprint(SAMPLER)])


def recipe_asked(profile: Profile, drawn: SampleManifest) -> str:
    """Recipe that samples would have if they were drawn now by the networks that their manifest states."""
    return samples_recipe_sha256(
        profile,
        drawn.row,
        drawn.guidance_scale,
        denoiser_sha256=drawn.denoiser_sha256,
        autoencoder_sha256=drawn.autoencoder_sha256,
        latents_sha256=drawn.latents_sha256,
        scaling_factor=drawn.scaling_factor,
        shift=drawn.shift,
    )


def read_sample_manifest(folder: Path) -> SampleManifest:
    """Read the manifest of finished samples. Raises :class:`DataError`."""
    path = Path(folder) / MANIFEST
    try:
        return read_sealed(path, SampleManifest)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); sample first (dcae-bench sample)") from error
    except ValueError as error:
        raise DataError(f"{path}: is not a manifest of samples ({error}); delete {folder} and sample again") from error


def write_sample_manifest(manifest: SampleManifest, folder: Path) -> None:
    """Write the manifest of samples whose other files are complete. Raises :class:`ResultsError`."""
    write_sealed(Path(folder) / MANIFEST, manifest)
