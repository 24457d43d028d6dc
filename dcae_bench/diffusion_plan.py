"""One row of a profile's diffusion part with all that it names put in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dcae_bench.denoiser_presets import denoiser_catalogue
from dcae_bench.denoiser_specs import DenoiserSpec, LatentSpace
from dcae_bench.diffusion_spec import (
    DenoiserTrainingSpec,
    DiffusionSpec,
    LatentDataSpec,
    LatentSource,
    ReleasedRow,
    TrainedRow,
)
from dcae_bench.diffusion_specs import GuidanceSpec, ProcessName, SamplerSpec, paper_sampler
from dcae_bench.presets import Scaling, catalogue
from dcae_bench.specs import AutoencoderSpec


@dataclass(frozen=True)
class RowPlan:
    """What is sampled, on which latents, and how: of a denoiser that is trained, or of one that was released."""

    name: str
    row: TrainedRow | ReleasedRow
    data: LatentDataSpec
    autoencoder: AutoencoderSpec
    denoiser: DenoiserSpec
    process: ProcessName
    sampler: SamplerSpec
    guidance: tuple[GuidanceSpec, ...]
    """Guidances that samples are drawn with."""


@dataclass(frozen=True)
class TrainedPlan(RowPlan):
    """What is trained, on what, and how."""

    row: TrainedRow
    training: DenoiserTrainingSpec

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


@dataclass(frozen=True)
class ReleasedPlan(RowPlan):
    """A denoiser of the catalogue, with the paper's sampler for its process."""

    row: ReleasedRow

    @property
    def scaling(self) -> Scaling:
        """Scale of the latents that its authors trained it on."""
        return self.row.preset.scaling


def plan_row(
    spec: DiffusionSpec, name: str, autoencoders: Mapping[LatentSource, AutoencoderSpec]
) -> TrainedPlan | ReleasedPlan:
    """Put together a row; ``autoencoders`` are those that the profile trains or that are the user's own.

    Raises ValueError for a latent that is not there or does not fit, and for data that released weights do not fit.
    """
    row = spec.rows[name]
    data = spec.data[row.data]
    try:
        if isinstance(row, ReleasedRow):
            _require_fit(row, data)
        autoencoder = latent_spec(row.source, autoencoders)
        latent = LatentSpace.of(autoencoder, data.resolution, row.patch)
        if isinstance(row, TrainedRow):
            denoiser = spec.architecture(row.denoiser).on(latent, data.class_count)
        else:
            denoiser = denoiser_catalogue().spec(row.released)
    except ValueError as error:
        raise ValueError(f"row {name}: {_reason(error)}") from error
    parts = {"name": name, "data": data, "autoencoder": autoencoder, "denoiser": denoiser}
    if isinstance(row, ReleasedRow):
        preset = row.preset
        usual = (GuidanceSpec(s=1),) if preset.classes is None else (GuidanceSpec(s=1), preset.guidance)
        sampler = paper_sampler(preset.process)
        return ReleasedPlan(**parts, row=row, process=preset.process, sampler=sampler, guidance=row.guidance or usual)
    training = spec.trainings[row.training]
    return TrainedPlan(
        **parts,
        row=row,
        process=training.process,
        sampler=training.chosen_sampler,
        guidance=row.guidance or training.guidance,
        training=training,
    )


def _require_fit(row: ReleasedRow, data: LatentDataSpec) -> None:
    preset = row.preset
    for what, found, needed in (
        ("px", data.resolution, preset.resolution),
        ("classes", data.class_count or "no", preset.classes or "no"),
    ):
        if found != needed:
            raise ValueError(
                f"data '{row.data}' have {found} {what}, but {row.released} was trained on {needed} {what}; name "
                "other data"
            )


def latent_spec(source: LatentSource, autoencoders: Mapping[LatentSource, AutoencoderSpec]) -> AutoencoderSpec:
    """The autoencoder behind latents. Raises ValueError where the profile or the catalogue has none."""
    name = source.autoencoder
    if source.weights != "released":
        if source not in autoencoders:
            known = ", ".join(other.autoencoder for other in autoencoders if other.weights == source.weights)
            kind = "the profile retrains" if source.weights == "retrained" else "with 'weights: own' the profile has"
            raise ValueError(f"latent '{name}@{source.weights}': {kind} {known or 'nothing'}")
        return autoencoders[source]
    preset = catalogue().autoencoders.get(name)
    if preset is None or preset.weights is None:
        raise ValueError(f"latent '{name}@released': the catalogue (dcae-bench zoo) has no such released weights")
    return catalogue().spec(name)


def _reason(error: ValueError) -> str:
    """The one message of a pydantic error, or the error's own."""
    return error.errors()[0]["msg"].removeprefix("Value error, ") if hasattr(error, "errors") else str(error)
