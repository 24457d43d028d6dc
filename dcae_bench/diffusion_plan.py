"""One row of a profile's diffusion part with all that it names put in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dcae_bench.denoiser_specs import DenoiserSpec, LatentSpace
from dcae_bench.diffusion_spec import DenoiserTrainingSpec, DiffusionRow, DiffusionSpec, LatentDataSpec, LatentSource
from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.presets import catalogue
from dcae_bench.specs import AutoencoderSpec


@dataclass(frozen=True)
class RowPlan:
    """What is trained, on what, and how."""

    name: str
    row: DiffusionRow
    data: LatentDataSpec
    training: DenoiserTrainingSpec
    autoencoder: AutoencoderSpec
    denoiser: DenoiserSpec

    @property
    def guidance(self) -> tuple[GuidanceSpec, ...]:
        """Guidances that samples are drawn with."""
        return self.row.guidance or self.training.guidance

    @property
    def steps(self) -> int:
        """Optimiser's steps of the whole training."""
        return self.row.images // self.training.batch_size

    def recipe(self) -> dict[str, Any]:
        """All that shapes the trained weights, except latents, seed, device and code.

        How samples are drawn later is no part of it; what the previews are drawn with shapes no weight either.
        """
        later = {"sampler", "guidance", "previews"}
        return {
            "latent": self.row.latent,
            "data": self.data.model_dump(mode="json"),
            "model": self.autoencoder.model_dump(mode="json"),
            "denoiser": self.denoiser.model_dump(mode="json"),
            "images": self.row.images,
            "training": self.training.model_dump(mode="json", exclude=later),
        }


def plan_row(spec: DiffusionSpec, name: str, retrained: Mapping[str, AutoencoderSpec]) -> RowPlan:
    """Put together a row; ``retrained`` are the autoencoders that the profile trains.

    Raises ValueError for a latent that is not there or does not fit.
    """
    row = spec.rows[name]
    data = spec.data[row.data]
    try:
        autoencoder = latent_spec(row.source, retrained)
        latent = LatentSpace.of(autoencoder, data.resolution, row.patch)
        denoiser = spec.architecture(row.denoiser).on(latent, data.class_count)
    except ValueError as error:
        raise ValueError(f"row {name}: {_reason(error)}") from error
    return RowPlan(name, row, data, spec.trainings[row.training], autoencoder, denoiser)


def latent_spec(source: LatentSource, retrained: Mapping[str, AutoencoderSpec]) -> AutoencoderSpec:
    """The autoencoder behind latents. Raises ValueError where the profile or the catalogue has none."""
    name = source.autoencoder
    if source.weights == "retrained":
        if name not in retrained:
            raise ValueError(f"latent '{name}@retrained': the profile retrains {', '.join(retrained) or 'nothing'}")
        return retrained[name]
    preset = catalogue().autoencoders.get(name)
    if preset is None or preset.weights is None:
        raise ValueError(f"latent '{name}@released': the catalogue (dcae-bench zoo) has no such released weights")
    return catalogue().spec(name)


def _reason(error: ValueError) -> str:
    """The one message of a pydantic error, or the error's own."""
    return error.errors()[0]["msg"].removeprefix("Value error, ") if hasattr(error, "errors") else str(error)
